"""`keras-rwinit gain | plan | train | tune`: what they print and write, and how they refuse."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import case_name, paths_in, refusal, run_cli
from rich.table import Table

import keras_rwinit
from keras_rwinit import cli
from keras_rwinit.commands.options import console, print_text
from keras_rwinit.models.model_zoo import deep_mlp
from keras_rwinit.training import plan as training_plan
from keras_rwinit.training import run as training_run

COMMANDS = ("gain", "plan", "train", "walk", "tune")
TRAIN = ("train", "--depth", 12, "--width", 16, "--epochs", 1)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        training_run, "train_classifier", lambda *args, **kwargs: pytest.fail("training began")
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_common_options(command: str) -> None:
    finished = run_cli(command, "--help")
    assert finished.code == 0
    assert finished.err == ""
    for option in ("--help", "--output", "--seed"):
        assert option in finished.out


def test_version() -> None:
    finished = run_cli("--version")
    assert (finished.code, finished.out, finished.err) == (
        0,
        f"keras-rwinit {keras_rwinit.__version__}\n",
        "",
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("gain", "--depth", 5, "--samples", 9), " +- "),
        (("plan", "--width", 20), "ln|delta|"),
        (("gain", "--help"), "+- Options"),
    ],
    ids=case_name,
)
def test_output_that_is_not_utf_8(
    command: tuple[Any, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = io.BytesIO()
    monkeypatch.setattr(sys, "argv", ["keras-rwinit", *map(str, command)])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(binary, encoding="ascii", write_through=True))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert expected in binary.getvalue().decode("ascii")


def test_a_back_end_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'jax'")

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(cli.importlib, "import_module", missing)
    assert refusal("walk") == (
        "Keras cannot import its back end jax (No module named 'jax'): pip install \"keras-rwinit[jax]\", or "
        "set KERAS_BACKEND to another of tensorflow, jax, torch.\n"
    )


def test_brackets_and_colons_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("a[/b]c", "exp[lr=0.1]/run", "[red]x", ":smile:", "1.5 'x'", "\\[b]"):
        print_text(text)
        table = Table(text)
        table.add_row(text)
        console.print(table)
        printed = capsys.readouterr().out.splitlines()
        assert printed[0] == text
        assert sum(text in line for line in printed) == 3


def test_pictures_are_optional(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    finished = run_cli("walk", "--depth", 2, "--width", 8, "--examples", 2, "--output", "walk")
    assert (finished.code, finished.err) == (0, "")
    assert (
        'No pictures are drawn. Pictures need matplotlib: pip install "keras-rwinit[plots]"' in finished.out
    )
    assert {path.name for path in (directory / "walk").iterdir()} == {
        "gradient_walk.json",
        "gradient_walk.txt",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x\udcff", "exp[lr=0.1]/[/b]:smile:"])
def test_train_takes_any_path_and_needs_no_pictures(
    name: str, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    finished = run_cli(*TRAIN, "--no-compare", "--output", name)
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.endswith(f"Written to {name}\n")
    names = {path.name for path in (directory / name).iterdir()}
    assert names == {".lock", "history.csv", "model.keras", "report.json", "settings.json"}
    assert run_cli("train", "--resume", "--output", name).code == 0


def test_help_lists_the_commands() -> None:
    finished = run_cli("--help")
    assert finished.code == 0
    for command in COMMANDS:
        assert command in finished.out


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ((), ("relu", 100)),
        (("--activation", "tanh", "--width", 50, "--depth", 200), ("tanh", 50, 200)),
        (("--activation", "leaky_relu(0.1)", "--distribution", "uniform"), ("leaky_relu(0.1)", 100, None)),
        (("--distribution", "orthogonal", "--depth", 1), ("relu", 100, 1)),
    ],
)
def test_gain_prints_and_writes_the_gain(options: tuple[Any, ...], arguments: tuple[Any, ...]) -> None:
    finished = run_cli("gain", *options, "--output", "gain.json")
    assert (finished.code, finished.err) == (0, "")
    result = json.loads(Path("gain.json").read_text(encoding="utf-8"))
    depth = arguments[2] if len(arguments) > 2 else None
    expected = keras_rwinit.gain(arguments[0], arguments[1], depth, distribution=result["distribution"])
    assert result["gain"] == expected
    assert (result["activation"], result["width"], result["depth"]) == (*arguments[:2], depth)
    printed = re.search(r"^ *gain +([\d.]+)", finished.out, re.MULTILINE)
    assert printed is not None
    assert float(printed.group(1)) == pytest.approx(expected, rel=1e-9)


def test_title_says_in_one_line_what_was_asked() -> None:
    finished = run_cli("gain", "--width", 300, "--depth", 1000)
    assert "relu, width 300, depth 1,000, normal kernels" in finished.out


def test_shaped_activations_are_named_with_their_parameters(directory: Path) -> None:
    for command in ("gain", "plan"):
        options = ("--width", 100) if command == "plan" else ()
        result = directory / f"{command}.json"
        finished = run_cli(
            command, "--activation", "shaped(relu)", "--depth", 200, *options, "--output", result
        )
        assert "leaky_relu(0.6796)" in finished.out
        assert json.loads(result.read_text(encoding="utf-8"))["activation"] == "leaky_relu(0.6796)"


def test_plan_of_a_spread_is_the_width_and_what_to_expect_of_it() -> None:
    finished = run_cli("plan", "--depth", 1000, "--spread", 1, "--output", "plan.json")
    assert (finished.code, finished.err) == (0, "")
    result = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    assert result["width"] == keras_rwinit.plan_width(1000, 1.0) == 1253
    walk = keras_rwinit.predict_walk("relu", 1253, 1000)
    assert result["gain"] == walk.gain
    assert result["predicted_spread"] == walk.std[0] <= 1.0
    assert result["hidden_parameters"] == 1000 * (1253**2 + 1253)
    assert "1,253" in finished.out
    assert f"{walk.std[0]:.4f} nats" in finished.out


def test_plan_of_a_width_is_its_spread() -> None:
    finished = run_cli("plan", "--depth", 30, "--width", 20, "--activation", "tanh", "--output", "plan.json")
    assert (finished.code, finished.err) == (0, "")
    result = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    assert result["predicted_spread"] == keras_rwinit.predict_walk("tanh", 20, 30).std[0]


@pytest.mark.parametrize("command", [("gain",), ("plan", "--width", 20)], ids=lambda c: c[0])
def test_samples_simulate_from_the_seed(command: tuple[Any, ...]) -> None:
    results = []
    for index, seed in enumerate((1, 1, 2)):
        options = (*command[1:], "--depth", 10, "--samples", 200, "--seed", seed)
        finished = run_cli(command[0], *options, "--output", f"{index}.json")
        assert (finished.code, finished.err) == (0, "")
        assert "drift" in finished.out
        results.append(json.loads(Path(f"{index}.json").read_text(encoding="utf-8")))
    assert results[0] == results[1]
    assert results[0]["simulated_mean"] != results[2]["simulated_mean"]
    width = results[0]["width"]
    walks = keras_rwinit.simulate_walk("relu", width, 10, samples=200, seed=1)[:, 0]
    assert results[0]["simulated_mean"] == walks.mean()
    assert results[0]["standard_error"] == pytest.approx(walks.std() / np.sqrt(200), rel=1e-12)


TOO_LONG = 10**400  # more than a float holds

BAD_THEORY = [
    (("gain", "--width", 0), "width.*at least 1.*width=0"),
    (("gain", "--width", -3), "width.*at least 1.*width=-3"),
    (("gain", "--width", "1.5"), "width.*integer.*1.5"),
    (("gain", "--width", "wide"), "width.*integer.*wide"),
    (("gain", "--width", TOO_LONG), "width"),
    (("gain", "--depth", 0), "depth.*at least 1.*depth=0"),
    (("gain", "--depth", "2.5"), "depth.*integer.*2.5"),
    (("gain", "--activation", "rleu"), "activation.*relu.*'rleu'"),
    (("gain", "--activation", "softmax"), "activation.*softmax"),
    (("gain", "--activation", "shaped(relu)"), "shaped for a depth.*Pass --depth, or write"),
    (("gain", "--distribution", "gauss"), "distribution.*orthogonal.*'gauss'"),
    (("gain", "--samples", 10), "--depth"),
    (("gain", "--samples", 10, "--depth", 5, "--seed", -1), "seed.*at least 0.*-1"),
    (("gain", "--samples", -1, "--depth", 5), "samples.*-1"),
    (("plan", "--samples", 1, "--depth", 5, "--width", 9), "--samples must be .* at least 2.*=1"),
    (("plan",), "--spread and --width, as in keras-rwinit plan --depth 1000 --spread 1. Received: neither"),
    (("plan", "--spread", 1, "--width", 10), "--spread and --width.*both"),
    (("plan", "--spread", "nan"), "spread.*above 0.*nan"),
    (("plan", "--spread", 0), "spread.*above 0.*0"),
    (("plan", "--spread", 1e-9), "No width.*larger spread"),
    (("plan", "--spread", 1, "--depth", 0), "depth.*at least 1.*depth=0"),
    (("plan", "--width", 0), "width.*at least 1.*width=0"),
    (("plan", "--width", 100, "--depth", TOO_LONG), "depth"),
    (("gain", "--widht", 5), "--widht"),
    (
        ("gain", "extra"),
        "no argument. Received: extra. An example: keras-rwinit gain --activation tanh --width",
    ),
    (("gain", "tanh"), "Received: tanh. Try: keras-rwinit gain --output result.json --activation tanh$"),
    (("gain", "tanh", 100, 200), "Try: .* --activation tanh --width 100 --depth 200$"),
    (("gain", "rleu"), "Received: rleu. Try: .* --activation relu$"),
    (("gain", "shaped(gelu)"), r"Try: .* --activation 'shaped\(gelu\)'$"),
    (("gain", "orthogonal", "--seed", 7, 7), "Received: orthogonal 7. Try: .* --seed 7 .* --width 7$"),
    (("gain", "--activation", "relu", "tanh"), "Received: tanh. An example"),
    (("gain", "--refine", "tanh"), "Try: keras-rwinit gain --refine .* --activation tanh$"),
    (("gain", "--", "--x"), "Received: --x .*An example"),
    (("gain", "--refine", "--activation", "tanh"), "refine.*depth"),
    (("plan", "tanh"), "Try: .* --activation tanh --spread 1$"),
    (("plan", 1000, 1), "Try: .* --depth 1000 --spread 1$"),
    (("plan", 1000, 100), "Try: .* --depth 1000 --width 100$"),
    (
        ("plan", "--spread", 1, "--depth", 20, "--activation", "gelu"),
        "No width will do.*--distribution looks_linear",
    ),
    (("gian",), "gian.*gain"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_THEORY, ids=case_name)
def test_gain_and_plan_refuse(arguments: tuple[Any, ...], message: str, directory: Path) -> None:
    if arguments[0] in COMMANDS:
        arguments = (*arguments, "--output", "result.json")
    line = refusal(*arguments)
    assert re.search(message, line)
    assert not re.search(r"`\w+`", line)  # options are named, not arguments
    assert paths_in(directory) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "relu", 50, 32), "Try: keras-rwinit train --activation relu --depth 50 --width 32"),
        (("train", "mnist"), "Try: keras-rwinit train --dataset mnist"),
        (("train", "digits_tanh_100"), "Try: keras-rwinit train --preset digits_tanh_100"),
        (("train", "adam"), "Try: keras-rwinit train --optimizer adam"),
        (("train", "mirrored"), "Try: keras-rwinit train --strategy mirrored"),
        (("tune", "tanh"), "Try: keras-rwinit tune --activation tanh"),
        (("walk", "tanh"), "There is no file tanh. Try: keras-rwinit walk --activation tanh"),
        (
            ("walk", "model.keras", "tanh"),
            "Received: tanh. Try: keras-rwinit walk model.keras --activation tanh",
        ),
        (("plan", "--spread"), "'--spread' requires an argument. An example: keras-rwinit plan --depth"),
    ],
    ids=case_name,
)
def test_a_word_is_answered_with_the_option_that_it_means(arguments: tuple[Any, ...], message: str) -> None:
    assert message in refusal(*arguments)


BAD_TRAINING = [
    (("--width", 0), "width.*at least 1.*width=0"),
    (("--width", -3), "width.*at least 1.*width=-3"),
    (("--width", "x"), "width.*integer.*x"),
    (("--depth", 0), "depth.*at least 1.*depth=0"),
    (("--depth", "1e3"), "depth.*integer.*1e3"),
    (("--batch", 0), "batch.*at least 1.*batch=0"),
    (("--epochs", -1), "epochs.*at least 1.*epochs=-1"),
    (("--seed", -1), "seed.*at least 0.*seed=-1"),
    (("--activation", "rleu"), "activation.*relu.*'rleu'"),
    (("--activation", "softmax"), "activation.*softmax"),
    (("--activation", "rleu", "--initializer", "he_normal"), "activation.*relu.*'rleu'"),
    (("--distribution", "gauss"), "distribution.*orthogonal.*'gauss'"),
    (("--dataset", "mnits"), "digits, mnist.*'mnits'"),
    (("--optimizer", "admm"), "optimizer.*adam.*'admm'"),
    (("--optimizer", ""), "optimizer.*adam.*''"),
    (("--optimizer", "LossScaleOptimizer"), "optimizer.*adam.*LossScaleOptimizer"),
    (("--optimizer", "optimizer"), "optimizer.*adam.*'optimizer'"),
    (("--initializer", "initializer"), "initializer.*he_normal.*'initializer'"),
    (("--initializer", "stft"), "initializer.*he_normal.*'stft'"),
    (("--initializer", "he_nromal"), "initializer.*he_normal.*'he_nromal'"),
    (("--compare", "he_nromal"), "compare.*he_normal.*'he_nromal'"),
    (("--compare", "constant"), "compare.*constant"),
    (("--compare", "random_walk"), "another initializer.*'random_walk' twice.*--no-compare"),
    (("--learning-rate", "nan"), "--learning-rate must.*above 0.*nan"),
    (("--learning-rate", "inf"), "--learning-rate must.*above 0.*inf"),
    (("--learning-rate", 0), "--learning-rate must.*above 0.*0"),
    (("--learning-rate", "fast"), "learning-rate.*fast"),
    (("--preset", "mnist"), "preset.*mnist_relu_200.*'mnist'"),
    (("--preset", "digits_tanh_100", "--width", 0), "width.*at least 1.*width=0"),
    (("--output-gain", 0), "--output-gain must.*above 0.*0"),
    (("--input-gain", "nan"), "--input-gain must.*above 0.*nan"),
    (("--width", 10**6, "--depth", 100), r"takes [\d.,]+ [KMGTP]iB.*has [\d.]+ GiB of memory.*smaller"),
]


@pytest.mark.parametrize(("options", "message"), BAD_TRAINING, ids=case_name)
@pytest.mark.usefixtures("no_training")
def test_train_refuses_and_leaves_nothing(options: tuple[Any, ...], message: str, directory: Path) -> None:
    line = refusal(*TRAIN, *options)
    assert re.search(message, line), line
    assert "0x" not in line
    assert not re.search(r"`\w+`", line)  # options are named, not arguments
    assert paths_in(directory) == []


@pytest.mark.usefixtures("no_training")
def test_a_depth_that_cannot_fit_is_refused_before_anything_of_that_length_is_computed(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    monkeypatch.setattr(training_plan, "predict_walk", lambda *args, **kwargs: pytest.fail("predicted first"))
    assert "GiB" in refusal("train", "--depth", 10**7, "--width", 100)
    assert paths_in(directory) == []


def test_a_depth_with_a_gain_is_not_refused_for_lack_of_one_at_another_depth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At width 8 tanh has an unbiased gain for 4 layers and none for 2."""
    assert keras_rwinit.predict_walk("tanh", 8, 4, distribution="orthogonal").gain > 1.0
    monkeypatch.setattr(training_run.TrainingRun, "execute", lambda *args, **kwargs: None)
    finished = run_cli("train", "--depth", 4, "--width", 8)
    assert (finished.code, finished.err) == (0, "")


@pytest.mark.parametrize("activation", ["erf", "sin", "celu(0.5)"])
def test_train_takes_the_activations_of_gain(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[training_run.TrainingRun] = []
    monkeypatch.setattr(training_run.TrainingRun, "execute", lambda self, *args, **kwargs: runs.append(self))
    finished = run_cli("train", "--depth", 4, "--width", 64, "--activation", activation)
    assert (finished.code, finished.err) == (0, "")
    assert runs[0].settings.activation == activation
    assert runs[0].plan.prediction is not None


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[training_run.TrainingRun]:
    """The runs that `train` would execute."""
    planned: list[training_run.TrainingRun] = []
    monkeypatch.setattr(
        training_run.TrainingRun, "execute", lambda self, *args, **kwargs: planned.append(self)
    )
    return planned


@pytest.mark.parametrize(
    ("options", "network"),
    [
        (("--activation", "relu"), {"activation": "relu"}),
        (("--activation", "gelu"), {"activation": "gelu"}),
        (("--activation", "shaped(tanh)"), {"activation": "shaped(tanh)"}),
        (("--preset", "digits_tanh_100", "--activation", "relu"), {"activation": "relu"}),
        (("--activation", "relu", "--bias-stddev", 0.1), {"activation": "relu", "bias_stddev": 0.1}),
        (("--activation", "relu", "--distribution", "normal"), {"distribution": "normal"}),
        ((), {"activation": "tanh", "distribution": "orthogonal"}),
        (
            ("--preset", "digits_tanh_100"),
            {"activation": "tanh", "distribution": "orthogonal", "input_gain": 0.1, "output_gain": 3.0},
        ),
    ],
    ids=case_name,
)
def test_train_builds_the_network_of_deep_mlp(
    options: tuple[Any, ...], network: dict[str, Any], runs: list[training_run.TrainingRun]
) -> None:
    """Kernel by kernel. Every activation had the orthogonal kernels of the tanh preset."""
    finished = run_cli("train", "--depth", 4, "--width", 16, *options)
    assert (finished.code, finished.err) == (0, "")
    built = runs[0]._build("random_walk").get_weights()
    expected = deep_mlp(4, 16, input_shape=(64,), seed=0, **network).get_weights()
    for found, wanted in zip(built, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    prediction, settings = runs[0].plan.prediction, runs[0].settings
    assert prediction is not None
    assert prediction.gain == keras_rwinit.gain(
        settings.activation, 16, 4, distribution=settings.distribution
    )


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        (("--preset", "digits_tanh_100"), 3e-4),
        (("--preset", "digits_tanh_100", "--depth", 1000), 3e-5),
        (("--preset", "digits_tanh_100", "--width", 128), 1.5e-4),
        (("--preset", "digits_relu_30"), 3e-4),
        (("--preset", "digits_relu_30", "--learning-rate", 0.1), 0.1),
        ((), 3e-5),
    ],
    ids=case_name,
)
def test_the_learning_rate_of_a_preset_is_for_its_size(
    options: tuple[Any, ...], rate: float, runs: list[training_run.TrainingRun]
) -> None:
    assert run_cli("train", *options).code == 0
    assert runs[0].settings.learning_rate == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "depth"),
    [
        (("--activation", "tanh"), "very deep"),
        (("--activation", "relu"), "any depth"),
        (("--activation", "gelu", "--distribution", "looks_linear"), "any depth"),
        (("--distribution", "delta_orthogonal"), "any depth"),
    ],
    ids=case_name,
)
def test_a_gain_without_a_depth_says_for_which_it_is(options: tuple[Any, ...], depth: str) -> None:
    """The gain of tanh is that of the limit, 1.105, where it is 1.226 at 50 layers."""
    assert f", width 100, {depth}, " in run_cli("gain", *options).out


def test_a_missing_gain_names_an_option_that_works() -> None:
    options = ("gain", "--activation", "gelu", "--depth", 50)
    line = refusal(*options)
    assert "--distribution looks_linear" in line
    assert "gain=" not in line
    assert run_cli(*options, "--distribution", "looks_linear").code == 0


@pytest.mark.usefixtures("no_training")
def test_mnist_without_network(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    tfds, requests = pytest.importorskip("tensorflow_datasets"), pytest.importorskip("requests")

    def head(url: str, timeout: float) -> None:
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", head)
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", lambda self: pytest.fail("asked to download")
    )
    line = refusal(*TRAIN, "--dataset", "mnist", "--data-dir", "sets")
    assert re.search('"mnist" is not prepared in .*sets.*network.*copy DIRECTORY here', line), line
    assert [path for path in paths_in(directory) if "sets" not in path.parts] == []


@pytest.mark.parametrize(
    ("missing", "options", "extra"),
    [
        ("tensorflow_datasets", ("--dataset", "mnist"), "keras-rwinit[data]"),
    ],
)
@pytest.mark.usefixtures("no_training")
def test_a_missing_extra_is_named(
    missing: str, options: tuple[Any, ...], extra: str, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert extra in refusal(*TRAIN, *options)
    assert paths_in(directory) == []
