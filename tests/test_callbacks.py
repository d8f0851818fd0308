"""`GradientWalkCallback`: records during `fit`, its files, and training that stays the same."""

from __future__ import annotations

import csv
import inspect
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import to_numpy

from keras_rwinit import GradientWalkCallback, callbacks, gradient_walk, model_zoo
from keras_rwinit.callbacks._table import GrowingCsv

backends = pytest.mark.backends  # where a back end keeps its weights in its own way

X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 48)
BATCH = 16  # three steps an epoch
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@cache
def compiled_model() -> tuple[keras.Model, list[np.ndarray]]:
    """One model for most tests, since compiling takes most of the time, and its initial values."""
    model = model_zoo.deep_mlp(4, 16, "tanh", distribution="orthogonal", input_shape=(6,), classes=3, seed=0)
    model.compile("adam", LOSS)
    model.optimizer.build(model.trainable_variables)
    return model, [to_numpy(variable).copy() for variable in (*model.variables, *model.optimizer.variables)]


def initial_model() -> keras.Model:
    """The model as it was before its first step."""
    keras.utils.set_random_seed(0)
    model, values = compiled_model()
    for variable, value in zip((*model.variables, *model.optimizer.variables), values, strict=True):
        variable.assign(value)
    return model


def fit(callback: GradientWalkCallback | None, epochs: int = 4) -> keras.Model:
    model = initial_model()
    callbacks = [] if callback is None else [callback]
    model.fit(X, Y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=callbacks)
    return model


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "gradient_walk.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("update_freq", "steps"),
    [
        ("epoch", [0, 3, 6, 9, 12]),
        pytest.param("batch", list(range(13)), marks=pytest.mark.slow),
        pytest.param(1, list(range(13)), marks=pytest.mark.slow),
        (5, [0, 5, 10]),
        pytest.param(99, [0], marks=pytest.mark.slow),
    ],
)
def test_update_freq_says_when_to_record(tmp_path: Path, update_freq: Any, steps: list[int]) -> None:
    walk = GradientWalkCallback(X[:5], Y[:5], log_dir=tmp_path, update_freq=update_freq)
    fit(walk)
    assert [record.step for record in walk.history] == steps
    # The record that a batch asks for comes before the end of its epoch.
    in_epochs = update_freq == "epoch"
    epochs = [step // 3 if in_epochs else max(step - 1, 0) // 3 for step in steps]
    assert [record.epoch for record in walk.history] == epochs
    table = rows(tmp_path)
    assert [int(row["step"]) for row in table[::4]] == steps
    assert len(table) == 4 * len(steps)


def test_arguments_are_named_as_in_keras() -> None:
    keras_names = inspect.signature(keras.callbacks.TensorBoard).parameters
    names = inspect.signature(GradientWalkCallback).parameters
    assert {"log_dir", "update_freq"} <= names.keys() & keras_names.keys()
    assert names["update_freq"].default == keras_names["update_freq"].default == "epoch"
    assert all(names[name].kind is inspect.Parameter.KEYWORD_ONLY for name in names.keys() - {"x", "y"})


@backends
@pytest.mark.slow
def test_records_are_of_the_model_at_the_moment(tmp_path: Path) -> None:
    """The first record and the last: in between, JAX keeps the weights elsewhere."""
    walk = GradientWalkCallback(X[:5], Y[:5], log_dir=tmp_path, update_freq=2)
    first = gradient_walk(initial_model(), X[:5], Y[:5])
    last = gradient_walk(fit(walk), X[:5], Y[:5])
    for record, now in ((walk.history[0], first), (walk.history[-1], last)):
        np.testing.assert_allclose(record.relative, now.relative.mean(axis=0), atol=1e-5)
        assert record.drift == pytest.approx(now.drift, abs=1e-5)
    mean = [float(row["ln_gradient"]) for row in rows(tmp_path)[-4:]]
    np.testing.assert_allclose(mean, last.backward.mean(axis=0), atol=1e-5)
    assert last.correlation is not None
    for column, values in (
        ("correlation", last.correlation.forward),
        ("gradient_correlation", last.correlation.backward),
        ("effective_rank", last.correlation.effective_rank),
    ):
        np.testing.assert_allclose([float(row[column]) for row in rows(tmp_path)[-4:]], values, atol=1e-4)
    assert not np.allclose(walk.history[0].relative, walk.history[-1].relative, atol=1e-3)


def test_verdicts_are_about_the_start_until_the_first_step(tmp_path: Path) -> None:
    """Gradients three times as large from layer to layer, in a model that has been trained and in one not."""
    triple = keras.initializers.Identity(3.0)
    layers = [keras.layers.Dense(6, "relu", kernel_initializer=triple) for _ in range(4)]
    walk = GradientWalkCallback(
        np.abs(X[:5]), log_dir=tmp_path, update_freq="batch", tensorboard=False, picture=False
    )
    walk.set_model(keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)]))
    walk.on_train_begin()
    walk.on_train_batch_end(0)
    first, second = walk.history
    assert first.verdict.startswith("growing from")
    assert "initialize(model, x" in first.advice
    assert (second.verdict, second.advice) == ("fine", "")
    assert first.drift == second.drift


@backends
def test_training_stays_the_same(tmp_path: Path) -> None:
    callback = GradientWalkCallback(X[:5], Y[:5], log_dir=tmp_path, update_freq="batch")
    with_callback = [to_numpy(weight).copy() for weight in fit(callback).weights]
    for one, other in zip(with_callback, fit(None).weights, strict=True):
        np.testing.assert_array_equal(one, to_numpy(other))


@pytest.mark.slow
def test_a_second_fit_continues_the_record(tmp_path: Path) -> None:
    walk = GradientWalkCallback(X[:5], log_dir=tmp_path)
    model = fit(walk, epochs=1)
    model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[walk])
    assert [record.step for record in walk.history] == [0, 3, 6, 9]
    assert [int(row["epoch"]) for row in rows(tmp_path)[::4]] == [0, 1, 2, 3]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras knows one step an execution there")
def test_several_steps_an_execution(tmp_path: Path) -> None:
    walk = GradientWalkCallback(X[:5], log_dir=tmp_path, update_freq=2)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(3)])
    model.compile("sgd", LOSS, steps_per_execution=3)
    model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[walk])
    assert [record.step for record in walk.history] == [0, 3, 6]


@backends
def test_an_unbuilt_model_and_a_later_start(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Dense(4, "relu"), keras.layers.Dense(3)])
    model.compile("sgd", LOSS)
    walk = GradientWalkCallback(X[:5], log_dir=tmp_path)
    model.fit(X, Y, epochs=6, initial_epoch=4, verbose=0, callbacks=[walk])
    assert [record.epoch for record in walk.history] == [0, 5, 6]


def test_without_a_directory_records_are_kept_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for package in ("matplotlib", "tensorboard"):  # nor needed
        monkeypatch.setitem(sys.modules, package, None)
    walk = GradientWalkCallback(X[:5], Y[:5])
    assert walk.verdict == "not measured: the training has not begun"
    fit(walk, epochs=1)
    assert [record.step for record in walk.history] == [0, 3]
    assert walk.verdict == walk.history[-1].verdict == "fine"
    assert not any(tmp_path.iterdir())


def test_a_model_may_be_measured_as_in_training() -> None:
    """Its first record is then of the network that training starts from."""
    layers = [keras.layers.Dense(4, "relu"), keras.layers.BatchNormalization(), keras.layers.Dense(4, "relu")]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)])
    walk = GradientWalkCallback(X, Y, loss=LOSS, training=True)
    walk.set_model(model)
    walk.on_train_begin()
    assert walk.verdict == "fine"
    expected, other = (
        gradient_walk(model, X, Y, LOSS, training=training).drift for training in (True, False)
    )
    assert walk.history[0].drift == expected != pytest.approx(other, abs=1e-3)


class Parts(keras.Model):  # type: ignore[misc]
    """Takes two arguments, or one with a part that may be missing."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.top = keras.layers.Dense(4, "relu"), keras.layers.Dense(3)


class TwoArguments(Parts):
    def call(self, one: Any, other: Any) -> Any:
        return self.top(self.hidden(one + other))


class OptionalPart(Parts):
    def call(self, inputs: Any) -> Any:
        one, other = inputs
        return self.top(self.hidden(one if other is None else one + other))


@pytest.mark.parametrize(("model", "other"), [(TwoArguments, X), (OptionalPart, X), (OptionalPart, None)])
def test_unbuilt_models_of_several_inputs_are_built(model: Any, other: Any, tmp_path: Path) -> None:
    walk = GradientWalkCallback((X, other), log_dir=tmp_path, tensorboard=False, picture=False)
    walk.set_model(model())
    walk.on_train_begin()
    assert [record.verdict for record in walk.history] == ["fine"]


@pytest.mark.slow
def test_one_callback_records_one_model(tmp_path: Path) -> None:
    walk = GradientWalkCallback(X[:5], log_dir=tmp_path)
    fit(walk, epochs=1)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    other.compile("sgd", LOSS, run_eagerly=True)
    with pytest.warns(UserWarning, match="the training goes on.*records one model.*make a callback for each"):
        other.fit(X, Y, verbose=0, callbacks=[walk])
    assert [record.verdict.split(":")[0] for record in walk.history] == ["fine", "fine", "not measured"]


class Fragile(keras.layers.Layer):  # type: ignore[misc]
    """Fails when it is run outside a graph, as measurements run it, from the second epoch on."""

    broken = False

    def call(self, inputs: Any) -> Any:
        if Fragile.broken:
            raise RuntimeError("not\nhere")
        return inputs


def fragile_model() -> keras.Model:
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, "relu"), Fragile(), keras.layers.Dense(3)]
    )
    model.compile("sgd", LOSS)
    return model


class Break(keras.callbacks.Callback):  # type: ignore[misc]
    """Breaks the layer while measurements of epochs 1 and 2 are taken."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        Fragile.broken = epoch in (0, 1)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        Fragile.broken = False


@backends
def test_a_measurement_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    walk, model = GradientWalkCallback(X[:5], Y[:5], log_dir=tmp_path), fragile_model()
    with pytest.warns(UserWarning, match="GradientWalkCallback") as caught:
        history = model.fit(X, Y, batch_size=BATCH, epochs=3, verbose=0, callbacks=[Break(), walk])
    assert len(history.history["loss"]) == 3
    ours = [warning for warning in caught if "GradientWalkCallback" in str(warning.message)]
    assert len(ours) == 1
    assert "at step 3, and the training goes on. RuntimeError: " in str(ours[0].message)
    verdicts = [record.verdict for record in walk.history]
    assert [verdict.startswith("not measured: RuntimeError: ") for verdict in verdicts] == [
        False,
        True,
        True,
        False,
    ]
    failed = [row for row in rows(tmp_path) if row["layer"] == "0"]
    assert [(row["step"], row["name"], row["ln_gradient"]) for row in failed] == [
        ("3", verdicts[1], "nan"),
        ("6", verdicts[2], "nan"),
    ]
    assert "not here" in verdicts[1]
    assert (tmp_path / "gradient_walk.png").stat().st_size > 1000


def test_a_first_measurement_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    """Targets that do not fit the loss: the training has others."""
    walk = GradientWalkCallback(X[:5], Y[:5] + 7, log_dir=tmp_path)
    with pytest.warns(UserWarning, match="failed at step 0, and the training goes on. BadTargetsError"):
        fit(walk, epochs=1)
    assert all(record.verdict.startswith("not measured: BadTargetsError") for record in walk.history)
    assert [row["layer"] for row in rows(tmp_path)] == ["0", "0"]


def test_a_lost_directory_does_not_end_the_training(tmp_path: Path) -> None:
    walk = GradientWalkCallback(X[:5], log_dir=tmp_path / "logs", tensorboard=False)
    lose = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: shutil.rmtree(tmp_path / "logs", ignore_errors=True)
    )
    model = initial_model()
    with pytest.warns(UserWarning, match="goes on. FileNotFoundError"):
        model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[lose, walk])
    assert [record.verdict for record in walk.history] == ["fine"] * 3


KILLED = """
import os, sys
import numpy as np, keras
from keras_rwinit import GradientWalkCallback
x, y = np.random.default_rng(0).normal(size=(8, 4)), np.zeros((8, 1))
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
model.compile("sgd", "mse", run_eagerly=True)
def kill(epoch, logs):
    if epoch == 2:
        os.kill(os.getpid(), 9)
die = keras.callbacks.LambdaCallback(on_epoch_begin=kill)
walk = GradientWalkCallback(x, y, log_dir=sys.argv[1], tensorboard=False)
model.fit(x, y, epochs=5, verbose=0, callbacks=[walk, die])
"""


@pytest.mark.slow
def test_a_killed_training_leaves_its_records(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "logs"], check=False, timeout=120)
    assert killed.returncode == -9
    assert [int(row["epoch"]) for row in rows(tmp_path / "logs")] == [0, 1, 2]


def test_a_record_that_was_cut_short_is_written_over(tmp_path: Path) -> None:
    table = GrowingCsv(tmp_path / "gradient_walk.csv")
    table.append([(0, 0, 1, "a", *"123456")])
    whole = (tmp_path / "gradient_walk.csv").read_bytes()
    with open(tmp_path / "gradient_walk.csv", "ab") as file:
        file.write(b"1,3,1,a,1,2")  # what a full disk leaves
    table.append([(1, 3, 1, "a, b", *"123456")])
    content = (tmp_path / "gradient_walk.csv").read_bytes()
    assert content == whole + b'1,3,1,"a, b",1,2,3,4,5,6\r\n'
    assert [row["name"] for row in rows(tmp_path)] == ["a", "a, b"]


def test_records_are_appended(tmp_path: Path) -> None:
    """The file grows by one record; nothing before it is written again."""
    sizes: list[int] = []
    see = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: sizes.append((tmp_path / "gradient_walk.csv").stat().st_size)
    )
    inode = set()
    walk = GradientWalkCallback(X[:5], log_dir=tmp_path, tensorboard=False, picture=False)
    see.on_epoch_end = lambda epoch, logs=None: inode.add((tmp_path / "gradient_walk.csv").stat().st_ino)
    initial_model().fit(X, Y, batch_size=BATCH, epochs=3, verbose=0, callbacks=[walk, see])
    assert len(inode) == 1
    assert sizes == sorted(set(sizes))


def test_a_dead_example_is_left_out_of_the_means(tmp_path: Path) -> None:
    x = X[:5].copy()
    x[0] = -100.0
    model = keras.Sequential(
        [keras.Input((6,)), *(keras.layers.Dense(4, "relu", kernel_initializer="ones") for _ in range(2))]
    )
    model.compile("sgd", "mse", run_eagerly=True)
    x[1:] = np.abs(x[1:])
    model.fit(x, np.zeros((5, 4)), verbose=0, callbacks=[walk := GradientWalkCallback(x, log_dir=tmp_path)])
    assert np.isfinite(walk.history[0].drift)
    assert np.isfinite([float(rows(tmp_path)[0][name]) for name in ("ln_gradient", "ln_gradient_std")]).all()


def test_layers_of_the_same_name_have_different_tags(tmp_path: Path) -> None:
    def block() -> keras.Model:
        return keras.Sequential([keras.layers.Dense(4, "relu", name="same")])

    model = keras.Sequential([keras.Input((6,)), block(), block(), keras.layers.Dense(3)])
    model.compile("sgd", LOSS, run_eagerly=True)
    model.fit(X, Y, verbose=0, callbacks=[GradientWalkCallback(X[:5], log_dir=tmp_path)])
    assert len({row["name"] for row in rows(tmp_path)}) == 2


def test_events_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    walk = GradientWalkCallback(X[:5], Y[:5], log_dir=tmp_path)
    fit(walk, epochs=2)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    tags = events.Tags()["tensors"]
    for layer in ("hidden_1", "hidden_stack[2]"):
        norms = ("ln_gradient", "ln_activation", "ln_weight_gradient", "dead", "gradient")
        for kind in (*norms, "correlation", "gradient_correlation", "effective_rank"):
            assert f"{kind}/{layer}" in tags
    assert "gradient_walk/example_spread" in tags
    drift = [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors("gradient_walk/drift")]
    assert [step for step, _ in drift] == [0, 3, 6]
    assert [value for _, value in drift] == pytest.approx([record.drift for record in walk.history])
    assert len(events.Tensors("gradient/hidden_1")) == 3


def test_a_diverged_training_is_recorded(tmp_path: Path) -> None:
    model = initial_model()
    walk = GradientWalkCallback(X[:5], Y[:5], log_dir=tmp_path)
    model.set_weights([np.full(w.shape, np.nan) for w in model.get_weights()])
    model.fit(X, Y, batch_size=BATCH, verbose=0, callbacks=[walk])
    assert walk.history[-1].verdict.startswith("not finite")
    assert "clipped gradients" in walk.history[-1].advice
    assert (tmp_path / "gradient_walk.png").stat().st_size > 1000


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    fit(GradientWalkCallback(X[:5], log_dir=tmp_path), epochs=1)
    before = (tmp_path / "gradient_walk.csv").read_bytes()
    message = "exists, and nothing is overwritten. Choose another log_dir, or pass overwrite=True"
    with pytest.raises(ValueError, match=message):
        GradientWalkCallback(X[:5], log_dir=tmp_path)
    assert (tmp_path / "gradient_walk.csv").read_bytes() == before
    assert not list(tmp_path.glob(".partial*"))
    (tmp_path / "events.of.another").touch()
    fit(GradientWalkCallback(X[:5], log_dir=tmp_path, overwrite=True), epochs=2)
    assert [int(row["epoch"]) for row in rows(tmp_path)[::4]] == [0, 1, 2]
    assert len(list(tmp_path.glob("events.*.gradient_walk"))) == 1
    assert (tmp_path / "events.of.another").exists()


@pytest.mark.parametrize(
    ("update_freq", "message"),
    [
        (
            "step",
            "`update_freq` must be 'epoch', 'batch' or a number of batches. Received: update_freq='step'",
        ),
        (0, "`update_freq` must be an integer of at least 1"),
        (1.5, "`update_freq` must be an integer"),
    ],
)
def test_bad_update_freq(tmp_path: Path, update_freq: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientWalkCallback(X, log_dir=tmp_path, update_freq=update_freq)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="must be a directory"):
        GradientWalkCallback(X, log_dir=tmp_path / "file")


def test_bad_data_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`x` must be finite"):
        GradientWalkCallback(X[:5] * np.nan, log_dir=tmp_path)
    with pytest.raises(ValueError, match="`x` and `y` must hold equally many examples. Received: 5 and 4"):
        GradientWalkCallback(X[:5], Y[:4], log_dir=tmp_path)
    with pytest.raises(ValueError, match="A loss needs targets"):
        GradientWalkCallback(X[:5], log_dir=tmp_path, loss="mse")


def test_a_record_prints_as_one_line() -> None:
    record = callbacks.WalkRecord(1, 23, "fine", -0.25, np.zeros(1000))
    assert str(record) == "epoch 1, step 23: fine, drift -0.2500 nats per layer over 1,000 layers"
    assert repr(record) == f"<WalkRecord: {record}>"


@pytest.mark.parametrize(("package", "option"), [("matplotlib", "picture"), ("tensorboard", "tensorboard")])
def test_missing_packages_are_named(
    package: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"keras-rwinit\[plots\]"):
        GradientWalkCallback(X, log_dir=tmp_path)
    GradientWalkCallback(X, log_dir=tmp_path, **{option: False})


TRACKED = """
import sys
import numpy as np
from keras_rwinit import GradientWalkCallback, model_zoo

x, y = np.random.default_rng(0).normal(size=(32, 8)), np.zeros(32)
model = model_zoo.deep_mlp(depth=20, width=16, input_shape=(8,), classes=1, seed=0)
model.compile("sgd", "mse")

def fit(tracker):
    walk = GradientWalkCallback(x, y, trackers=tracker)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[walk])
    return walk.history[-1]
"""

TRACKERS = {
    "wandb": """
import wandb
try:
    GradientWalkCallback(x, y, trackers="wandb")
except ValueError as error:
    print(error)
with wandb.init(mode="offline", dir=sys.argv[1], settings=wandb.Settings(console="off")) as run:
    run.log({"loss": 1.0})  # of another callback
    last = fit("wandb")
    logged = dict(run.summary)
    assert run.step == 1 + 3, run.step
assert logged["gradient_walk/step"] == 2
""",
    "mlflow": """
import mlflow
mlflow.set_tracking_uri(f"file://{sys.argv[1]}/mlruns")
try:
    GradientWalkCallback(x, y, trackers="mlflow")
except ValueError as error:
    print(error)
with mlflow.start_run() as run:
    last = fit(["mlflow", "mlflow"])
client = mlflow.MlflowClient()
logged = client.get_run(run.info.run_id).data.metrics
steps = [one.step for one in client.get_metric_history(run.info.run_id, "gradient_walk/drift")]
assert steps == [0, 1, 2], steps
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", TRACKERS)
def test_trackers_take_a_few_numbers_of_each_record(tracker: str, tmp_path: Path) -> None:
    """In a process of its own: both trackers start threads and processes."""
    pytest.importorskip(tracker)
    checks = """
names = "drift example_spread first_over_last dead correlation effective_rank".split()
assert {f"gradient_walk/{name}" for name in names} <= set(logged), logged
assert logged["gradient_walk/drift"] == last.drift
assert np.isclose(logged["gradient_walk/first_over_last"], last.relative[0])
"""
    finished = subprocess.run(
        [sys.executable, "-c", TRACKED + TRACKERS[tracker] + checks, str(tmp_path)],
        env={**os.environ, "WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert {"wandb": "wandb.init()", "mlflow": "mlflow.start_run()"}[tracker] in finished.stdout


def test_trackers_are_known_and_do_not_end_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"`trackers` must be of .* 'wandbb'. Did you mean 'wandb'\?"):
        GradientWalkCallback(X[:5], Y[:5], trackers=["wandbb"])
    for wrong in (None, 3, [["wandb"]]):
        with pytest.raises(ValueError, match="`trackers` must be of"):
            GradientWalkCallback(X[:5], Y[:5], trackers=wrong)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match="pip install mlflow"):
        GradientWalkCallback(X[:5], Y[:5], trackers="mlflow")

    def fail(metrics: object, step: int) -> None:
        raise ConnectionError("no server")

    module = SimpleNamespace(log_metrics=fail, active_run=lambda: "a run")
    monkeypatch.setitem(sys.modules, "mlflow", module)
    walk = GradientWalkCallback(X[:5], Y[:5], trackers="mlflow")
    with pytest.warns(UserWarning, match="ConnectionError: no server"):
        fit(walk, epochs=1)
    assert [record.verdict for record in walk.history] == ["fine", "fine"]


def test_a_data_set_gives_its_first_batch_with_targets_and_weights() -> None:
    weights = np.linspace(0.1, 3.0, len(X)).astype("float32")

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(X) // BATCH

        def __getitem__(self, batch: int) -> tuple[np.ndarray, ...]:
            rows = slice(batch * BATCH, (batch + 1) * BATCH)
            return X[rows], Y[rows], weights[rows]

    walk = GradientWalkCallback(Batches())
    model = initial_model()
    walk.set_model(model)
    walk.on_train_begin()
    first = X[:BATCH], Y[:BATCH]
    assert walk.history[0].drift == gradient_walk(model, *first, sample_weight=weights[:BATCH]).drift
    assert walk.history[0].drift != gradient_walk(model, *first).drift
