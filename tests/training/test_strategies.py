"""Training on several devices, in several processes: the learning curve is that of one device."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli_helpers import FILES, files_in, paths_in, refusal, report_of, run_cli

from keras_rwinit import data, model_zoo, sharding
from keras_rwinit.training.loop import compile_classifier
from keras_rwinit.training.settings import Settings
from keras_rwinit.training.strategies.base import Strategy, padded_batches

EPOCHS, DEPTH, BATCH = 3, 20, 61  # 61 examples go evenly on neither two devices nor eight; nor do the last 35
OPTIONS = ("--depth", DEPTH, "--width", 32, "--batch", BATCH, "--epochs", EPOCHS, "--no-compare")
TRAIN = ("train", *OPTIONS)
TIMEOUT = 120

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="starts processes on the back ends it needs"
)


def curve(directory: Path) -> np.ndarray:
    """Training loss, training accuracy, test loss, test accuracy: a row an epoch."""
    with open(directory / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ("loss", "accuracy", "test_loss", "test_accuracy")
    return np.array([[float(row[name]) for name in names] for row in rows])


def same_curve(one: np.ndarray, other: np.ndarray) -> bool:
    """Are two curves one, but for the order in which devices add up?

    A sum in another order is off by a rounding, 2^-24 of its value; one in each layer of each step,
    forward and backward, adds up to at most 2 * layers * steps of them where training does not magnify
    them. An accuracy is a count, and one example may be on the edge.
    """
    steps = EPOCHS * -(-1438 // BATCH)
    relative = 2 * (DEPTH + 1) * steps * 2.0**-24
    losses = np.allclose(one[:, ::2], other[:, ::2], rtol=relative, atol=0.0)
    return losses and bool(np.all(np.abs(one - other)[:, 1::2] < [1.5 / 1438, 1.5 / 359]))


def environment(**variables: str) -> dict[str, str]:
    """Of a process that finds the package and the helpers of the tests."""
    tests = str(Path(__file__).parents[1])
    kept = {name: value for name, value in os.environ.items() if name not in ("TF_CONFIG", "XLA_FLAGS")}
    return {**kept, "PYTHONPATH": tests, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}


def run_script(script: str, directory: Path, *arguments: object, **variables: str) -> dict[str, Any]:
    """Runs a script in a process and a directory of its own; what it prints last is JSON."""
    finished = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=directory,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("one") / "run"
    finished = run_cli(*TRAIN, "--output", directory)
    assert (finished.code, finished.err) == (0, "")
    return directory


MIRRORED = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from cli_helpers import run_cli
finished = run_cli(*sys.argv[1:], "--strategy", "mirrored", "--output", "run")
print(json.dumps([finished.code, finished.err, finished.out]))
"""


@pytest.mark.slow
def test_two_mirrored_devices_have_the_curve_of_one(one_device: Path, tmp_path: Path) -> None:
    code, err, out = run_script(MIRRORED, tmp_path, *TRAIN)
    assert (code, err) == (0, "")
    assert "mirrored, 2 devices" in out
    assert files_in(tmp_path / "run") == FILES
    assert report_of(tmp_path / "run")["devices"] == 2
    assert report_of(tmp_path / "run")["settings"]["strategy"] == "mirrored"
    assert same_curve(curve(tmp_path / "run"), curve(one_device))
    drift = "measured_drift_nats_per_layer"
    measured, once = (report_of(f)["networks"]["random_walk"][drift] for f in (tmp_path / "run", one_device))
    assert measured == once


@pytest.mark.slow
def test_another_seed_has_another_curve(one_device: Path, tmp_path: Path) -> None:
    assert run_cli(*TRAIN, "--seed", 1, "--output", tmp_path / "other").code == 0
    assert not same_curve(curve(tmp_path / "other"), curve(one_device))


JAX_LOOPS = """
import json
from keras_rwinit import data, model_zoo
from keras_rwinit.training.loop import compile_classifier
from keras_rwinit.training.strategies.base import Strategy
from keras_rwinit.training.strategies.select import make_strategy

digits, scores = data.load("digits"), {}
for name in ("none", "data-parallel", "model-parallel"):
    strategy = make_strategy(name, 16)
    with strategy.scope():
        model = model_zoo.deep_mlp(4, 16, "tanh", input_shape=(64,), distribution="orthogonal", seed=0)
        loop = strategy.loop(compile_classifier(model, "adam", 1e-3), 61, lambda: None)
        trained = loop.fit(digits.x_train, digits.y_train, 0)
        scores[name] = [[*trained, *loop.evaluate(digits.x_test, digits.y_test)]]
print(json.dumps(scores))
"""


@pytest.mark.slow
def test_two_jax_devices_learn_as_one(tmp_path: Path) -> None:
    """One epoch of four layers: the bound on the difference is that of more epochs and layers."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip('jax is not installed: pip install "keras-rwinit[jax]"')
    variables = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    scores = run_script(JAX_LOOPS, tmp_path, **variables)
    assert np.isfinite(scores["none"]).all()
    for name in ("data-parallel", "model-parallel"):
        assert same_curve(np.array(scores[name]), np.array(scores["none"]))


JAX = """
import json, re, sys
import jax, keras, numpy as np
from cli_helpers import run_cli
from keras_rwinit import model_zoo, sharding

runs = {}
for name in ("none", "data-parallel", "model-parallel"):
    finished = run_cli(*sys.argv[1:], "--strategy", name, "--output", name)
    runs[name] = [finished.code, finished.err, finished.out]
runs["refused"] = run_cli(*sys.argv[1:], "--strategy", "model-parallel", "--width", 30).err

def network():
    return model_zoo.deep_mlp(21, 32, "tanh", input_shape=(64,), distribution="orthogonal", seed=0)

whole = network()
mesh = keras.distribution.DeviceMesh((1, 8), ("batch", "model"), keras.distribution.list_devices())
with keras.distribution.ModelParallel(layout_map=sharding.layout_map(mesh)).scope():
    cut = network()
    unstacked = model_zoo.unstack(cut)
    # Keras draws what exceeds 250 MiB on all devices together another way.
    keras.src.backend.jax.core.should_shard_at_init = lambda layout, shape: True
    large = network()
    glorot = model_zoo.deep_mlp(3, 32, "tanh", input_shape=(64,), kernel_initializer="glorot_uniform", seed=0)
    spread = [v.value.sharding.is_fully_replicated for v in glorot.variables]
both = [*cut.variables, *unstacked.variables]
runs["large"] = all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), large.get_weights()))
runs["large_layout"] = list(next(v for v in large.variables if v.ndim == 3).value.sharding.spec)
runs["spread"] = spread
runs["layouts"] = {"/".join(v.path.split("/")[-2:]): list(v.value.sharding.spec) for v in both}
runs["equal"] = all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), cut.get_weights()))

weights = [v.value for v in cut.trainable_variables]
def loss(weights, x):
    return (cut.stateless_call(weights, [], x)[0] ** 2).sum()
compiled = jax.jit(jax.grad(loss), out_shardings=[w.sharding for w in weights])
everywhere = jax.sharding.NamedSharding(mesh.backend_mesh, jax.sharding.PartitionSpec())
x = jax.device_put(np.ones((16, 64), "float32"), everywhere)
text = compiled.lower(weights, x).compile().as_text()
runs["whole_stack"], runs["part_of_stack"] = "f32[20,32,32]" in text, "f32[20,32,4]" in text
runs["gathered"] = sorted(set(re.findall(r"= (f32\\[[0-9,]*\\])\\S* all-gather", text)))
print(json.dumps(runs))
"""


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Three runs on JAX, and what becomes of a stack that is cut in eight."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip('jax is not installed: pip install "keras-rwinit[jax]"')
    directory = tmp_path_factory.mktemp("eight")
    variables = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    return directory, run_script(JAX, directory, *TRAIN, **variables)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data-parallel", "model-parallel"])
def test_eight_jax_devices_have_the_curve_of_one(name: str, on_eight: tuple[Path, dict[str, Any]]) -> None:
    directory, results = on_eight
    code, err, out = results[name]
    assert (code, err) == (0, "")
    assert f"{name}, 8 devices" in out
    assert files_in(directory / name) == FILES
    assert report_of(directory / name)["devices"] == 8
    assert same_curve(curve(directory / name), curve(directory / "none"))


@pytest.mark.slow
def test_a_stack_is_cut_along_the_units_it_puts_out(on_eight: tuple[Path, dict[str, Any]]) -> None:
    results = on_eight[1]
    layouts = results["layouts"]
    assert layouts["hidden_stack/kernel"] == [None, None, "model"]
    assert layouts["hidden_stack/bias"] == [None, "model"]
    assert layouts["hidden_1/kernel"] == layouts["hidden_21/kernel"] == [None, "model"]
    assert layouts["hidden_21/bias"] == ["model"]
    assert layouts["classifier/kernel"] == ["model", None]
    assert results["equal"]
    assert results["large"]
    assert results["large_layout"] == [None, None, "model"]
    assert results["spread"] == [False] * 5 + [True]  # the classifier's bias
    assert "--width must be a multiple of the 8 devices. Received: 30" in results["refused"]


@pytest.mark.slow
def test_devices_exchange_activations_and_never_the_kernel(on_eight: tuple[Path, dict[str, Any]]) -> None:
    results = on_eight[1]
    assert not results["whole_stack"]
    assert results["part_of_stack"]
    assert results["gathered"] == ["f32[16,32]"]  # (batch, units)


def test_a_mesh_without_the_axis_is_refused() -> None:
    mesh = keras.distribution.DeviceMesh((1,), ("batch",), ["cpu:0"])
    with pytest.raises(ValueError, match="with an axis named 'model'"):
        sharding.layout_map(mesh)


@contextlib.contextmanager
def cluster(home: Path, *commands: tuple[object, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    """A process a worker, each in a directory of its own; none of them outlives this."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in commands]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    workers: list[subprocess.Popen[str]] = []
    try:
        for index, command in enumerate(commands):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            (home / f"worker-{index}").mkdir(exist_ok=True)
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "keras_rwinit", *map(str, command)],
                    cwd=home / f"worker-{index}",
                    env=environment(TF_CONFIG=json.dumps(task)),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def wait_for_workers(workers: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each worker."""
    deadline, results = time.monotonic() + TIMEOUT, []
    for worker in workers:
        out, err = worker.communicate(timeout=max(1.0, deadline - time.monotonic()))
        results.append((worker.returncode, out, err))
    return results


@pytest.mark.slow
def test_a_worker_alone_learns_as_one_device() -> None:
    """The strategy of several workers in a cluster of one: TensorFlow allows it, the command does not."""
    import tensorflow as tf

    from keras_rwinit.training.strategies.tensorflow import TensorFlowStrategy

    digits, scores = data.load("digits"), []
    for strategy in (
        Strategy(),
        TensorFlowStrategy("multi-worker", tf.distribute.MultiWorkerMirroredStrategy()),
    ):
        strategy.check_same(7, "the test")
        with strategy.scope():
            model = model_zoo.deep_mlp(4, 16, "tanh", input_shape=(64,), distribution="orthogonal", seed=0)
            loop = strategy.loop(compile_classifier(model, "adam", 1e-3), BATCH, lambda: None)
            scores.append(
                [*loop.fit(digits.x_train, digits.y_train, 0), *loop.evaluate(digits.x_test, digits.y_test)]
            )
        strategy.barrier()
    assert same_curve(np.array(scores[1:]), np.array(scores[:1]))


@pytest.mark.slow
def test_two_workers_have_the_curve_of_one_device_and_only_the_chief_writes(
    one_device: Path, tmp_path: Path
) -> None:
    command = (*TRAIN, "--strategy", "multi-worker")
    with cluster(tmp_path, command, command) as workers:
        chief, other = wait_for_workers(workers)
    assert (chief[0], chief[2], other[0], other[2]) == (0, "", 0, "")
    assert "multi-worker, 2 devices" in chief[1]
    assert other[1] == "This worker trains; the chief reports, and writes.\n"
    directory = tmp_path / "worker-0/runs/train-1"
    assert files_in(directory) == FILES
    assert paths_in(tmp_path / "worker-1") == []
    assert same_curve(curve(directory), curve(one_device))


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_cluster_that_lost_a_worker_goes_on_where_it_was(one_device: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    command = (*TRAIN, "--strategy", "multi-worker", "--output", directory)
    with cluster(tmp_path, command, command) as workers:
        assert workers[0].stdout is not None
        assert any(" epoch 1/3" in line for line in workers[0].stdout)
        workers[1].kill()
        code, _, err = wait_for_workers(workers[:1])[0]
    assert code == 2
    assert err.startswith("keras-rwinit: A worker left the cluster: ")
    assert err.endswith("Start all workers again, with --resume.\n")
    assert "checkpoint-random_walk.npz" in files_in(directory)

    again = ("train", "--resume", "--output", directory)
    with cluster(tmp_path, again, again) as workers:
        chief, other = wait_for_workers(workers)
    assert (chief[0], chief[2], other[0], other[2]) == (0, "", 0, "")
    assert " epoch 1/3" not in chief[1]
    assert files_in(directory) == FILES
    assert same_curve(curve(directory), curve(one_device))


@pytest.mark.slow
def test_workers_with_other_options_refuse(tmp_path: Path) -> None:
    """Each would draw an order of its own, and leave out what the other repeats."""
    command = (*TRAIN, "--strategy", "multi-worker")
    with cluster(tmp_path, command, (*command, "--seed", 1)) as workers:
        for code, out, err in wait_for_workers(workers):
            assert (code, out) == (2, "")
            assert (
                "All workers must see the same run, but the digest of the options differs among them" in err
            )


@pytest.mark.exhaustive
@pytest.mark.slow
def test_workers_that_do_not_see_the_same_run_refuse(tmp_path: Path, one_device: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    settings = json.loads((one_device / "settings.json").read_text(encoding="utf-8"))
    (begun / "settings.json").write_text(json.dumps({**settings, "strategy": "multi-worker"}))
    before = paths_in(begun)
    fresh = (*TRAIN, "--strategy", "multi-worker")
    with cluster(tmp_path, ("train", "--resume", "--output", begun), fresh) as workers:
        results = wait_for_workers(workers)
    for code, out, err in results:
        assert (code, out) == (2, "")
        assert "All workers must see the same run" in err
        assert err.count("\n") == 1
    assert paths_in(begun) == before


@pytest.mark.slow
def test_a_tpu_is_found_connected_and_initialized_in_this_order(
    one_device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The TPU is faked, and TensorFlow's default strategy stands for its own."""
    tf = pytest.importorskip("tensorflow")
    calls: list[Any] = []

    def resolver(tpu: str) -> str:
        calls.append(("resolver", tpu))
        return "the resolver"

    def strategy(of: str) -> Any:
        calls.append(("strategy", of))
        return tf.distribute.get_strategy()

    monkeypatch.setenv("TPU_NAME", "node-1")
    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    monkeypatch.setattr(
        tf.config, "experimental_connect_to_cluster", lambda of: calls.append(("connect", of))
    )
    monkeypatch.setattr(
        tf.tpu.experimental, "initialize_tpu_system", lambda of: calls.append(("initialize", of))
    )
    monkeypatch.setattr(tf.distribute, "TPUStrategy", strategy)
    finished = run_cli(*TRAIN, "--strategy", "tpu", "--output", tmp_path / "run")
    assert (finished.code, finished.err) == (0, "")
    expected = [("resolver", "node-1")]
    expected += [(step, "the resolver") for step in ("connect", "initialize", "strategy")]
    assert calls == expected
    assert same_curve(curve(tmp_path / "run"), curve(one_device))


WORKERS = '"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}'


@pytest.mark.parametrize(
    "config",
    [
        None,
        "{",
        "[1]",
        '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}',
        f'{{{WORKERS}, "task": {{"type": "worker", "index": 2}}}}',
        f'{{{WORKERS}, "task": {{"type": "evaluator", "index": 0}}}}',
        f"{{{WORKERS}}}",
    ],
)
def test_what_is_no_cluster_is_refused(
    config: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    line = refusal(*TRAIN, "--strategy", "multi-worker")
    assert "in the environment variable TF_CONFIG, as in {" in line
    assert line.endswith(f"Received: {config or 'none'}\n")
    assert paths_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "many",
            "must be one of none, mirrored, multi-worker, tpu, data-parallel, model-parallel. Received: ",
        ),
        ("data-parallel", "Keras's jax back end. Received: tensorflow; set KERAS_BACKEND=jax"),
        ("mirrored", "needs at least two devices on this machine. Received: "),
        ("tpu", "needs a TPU, and none is reached at 'local': "),
    ],
)
def test_unavailable_strategies_are_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = pytest.importorskip("tensorflow")
    if len(tf.config.list_physical_devices("GPU")) > 1 or tf.config.list_physical_devices("TPU"):
        pytest.skip("this machine has more than one device")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TPU_NAME", raising=False)
    assert message in refusal(*TRAIN, "--strategy", name)
    assert paths_in(tmp_path) == []


def test_a_run_from_before_there_were_strategies_loads(one_device: Path, tmp_path: Path) -> None:
    settings = json.loads((one_device / "settings.json").read_text(encoding="utf-8"))
    assert settings.pop("strategy") == "none"
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert Settings.load(tmp_path) == Settings.load(one_device)


def test_batches_are_padded_with_examples_of_weight_zero() -> None:
    digits = data.load("digits")
    x, y, weight = padded_batches(digits.x_train, digits.y_train, BATCH, parts=8)
    assert x.shape == (24, 64, 64)
    assert weight.sum(axis=1).tolist() == [BATCH] * 23 + [35]
    np.testing.assert_array_equal(x[weight == 1.0], digits.x_train)
    np.testing.assert_array_equal(y[weight == 1.0], digits.y_train)
