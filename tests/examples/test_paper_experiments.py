"""The experiments of examples/paper: their quick runs, that they resume, and the page of results."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

import keras_rwinit.data

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "examples" / "paper"
BY_HAND = (
    "deep_mnist",
    "fixed_parameters",
    "loss_against_gain",
    "plain_against_residual",
    "recipe",
    "smooth_activations",
)
TRAINED = ("speech", *BY_HAND)


@pytest.fixture(autouse=True)
def import_from_the_scripts_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PAPER))


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.exhaustive if name in BY_HAND else ()) for name in TRAINED],
)
def test_an_experiment_runs_and_is_not_repeated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "speech":
        pytest.importorskip("tensorflow_datasets")
    experiment = module(name)
    arguments = ["--quick", "--output", str(tmp_path)]
    rows = experiment.main(arguments)
    directory = tmp_path / name
    written = (directory / "results.csv").read_bytes()
    assert (directory / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in directory.iterdir()} <= {"results.csv", "history.csv", "picture.png"}

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(experiment, "train_classifier", refuse)
    assert len(experiment.main(arguments)) == len(rows)
    assert (directory / "results.csv").read_bytes() == written
    capsys.readouterr()


@pytest.fixture
def experiment(tmp_path: Path) -> Any:
    return module("_experiment").Experiment("some", tmp_path / "some", True, None, "digits")


def test_a_stopped_table_continues_with_the_next_run(experiment: Any) -> None:
    runs = [{"depth": depth, "rate": 0.1, "name": "a"} for depth in (1, 2, 3)]
    done: list[int] = []

    def work(run: dict[str, Any]) -> dict[str, Any]:
        if run["depth"] == 3 and len(done) == 2:
            raise KeyboardInterrupt
        done.append(run["depth"])
        return {"loss": 1.0 / run["depth"]}

    with pytest.raises(KeyboardInterrupt):
        experiment.run(runs, work)
    done.append(0)
    rows = experiment.run(runs, work)
    assert done == [1, 2, 0, 3]
    assert [row["loss"] for row in rows] == [1.0, 0.5, 1 / 3]
    # Another value of any column is another run, and takes nothing from the table.
    assert experiment.run([{**runs[0], "rate": 0.2}], work)[0]["rate"] == 0.2
    assert done[-1] == 1
    assert experiment.run(runs, work) == module("_experiment").read(experiment.directory / "results.csv")[:3]


def test_baselines_stand_at_the_margin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no gain: in the picture they are right of the axes, at the height of their loss."""
    drawing, figures = module("loss_against_gain"), []
    runs = [(drawing.WALKS["tanh"], 1.0, 0.5), *((name, "", 0.9) for name in drawing.BASELINES)]
    columns = ("activation", "depth", "initializer", "gain_ratio", "loss")
    rows = [dict(zip(columns, ("tanh", 10, *run), strict=True)) for run in runs]
    experiment = module("_experiment").Experiment("some", tmp_path / "some", True, None, "digits")
    monkeypatch.setattr(type(experiment), "save_picture", lambda self, figure: figures.append(figure))
    drawing.draw(experiment, rows)
    axes = figures[0].axes[0]
    margin = [line for line in axes.lines if line.get_fillstyle() == "none" and len(line.get_xdata())]
    assert len(margin) == len(drawing.baselines_in(rows)) > 1
    for line in margin:
        assert line.get_transform() == axes.get_yaxis_transform()
        assert 1.0 < line.get_xdata()[0] < 1.2  # of the axes' width
        assert line.get_ydata()[0] == 0.9


def test_a_diverged_run_has_no_mean() -> None:
    mean = module("_experiment").mean_and_deviation
    assert mean([{"loss": 1.0}, {"loss": 3.0}], "loss") == (2.0, pytest.approx(2.0**0.5))
    assert np.isnan(mean([{"loss": 1.0}, {"loss": float("nan")}], "loss")[0])


def test_the_skip_initializer_makes_a_residual_network() -> None:
    """`f(V h)` with `V = I + W` is `f(h + W h)`, and `W` has variance `2 / (fan_in blocks)`."""
    networks = module("_networks")
    width, blocks = 200, 8
    kernel = np.asarray(networks.SkipInitializer(blocks, seed=3)((width, width), "float32"))
    branch = kernel - np.eye(width)
    # A sample variance of n normal entries has a relative error of sqrt(2 / n); truncated ones have less.
    assert branch.var() == pytest.approx(2.0 / (width * blocks), rel=4.0 * (2.0 / width**2) ** 0.5)
    h = np.random.default_rng(0).standard_normal((5, width)).astype(np.float32)
    layer = keras.layers.Dense(width, "tanh", kernel_initializer=networks.SkipInitializer(blocks, seed=3))
    np.testing.assert_allclose(np.asarray(layer(h)), np.tanh(h + h @ branch), atol=1e-5)
    digits = keras_rwinit.data.load("digits")
    model = networks.build_network("residual", 4, 16, "relu", digits, seed=0)
    first, second, third = model.get_layer("hidden_stack").get_weights()[0]
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


@pytest.mark.parametrize("shape", [(40, 40), (100, 40), (40, 100)])
def test_near_identity_kernels_are_the_identity_and_noise(shape: tuple[int, int]) -> None:
    """The noise's deviation is within four standard errors of 0.085 / sqrt(fan-in), and not of 0.1 / sqrt."""
    drawn = module("tuned_baselines").NearIdentityInitializer(seed=0)(shape, "float32")
    kernel = np.asarray(keras.ops.convert_to_numpy(drawn), np.float64)
    identity = np.zeros(shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            identity[row, column] = (row - column) % min(shape) == 0
    deviation = (kernel - identity).std() * shape[0] ** 0.5
    error = deviation / (2.0 * kernel.size) ** 0.5
    assert abs(deviation - 0.085) < 4.0 * error
    assert abs(deviation - 0.1) > 4.0 * error


def test_few_runs_have_no_deviation() -> None:
    """Two values do not tell a deviation; the page gives them as they are."""
    cell = module("_tables").mean_cell
    rows = [{"loss": loss} for loss in (0.5, 0.25, 0.75)]
    assert cell(rows, "loss") == "0.500 ± 0.250"
    assert cell(rows[:2], "loss") == "0.500, 0.250"
    assert cell(rows[:2], "loss", percent=True, digits=0) == "50, 25"
    assert cell([], "loss") == ""
    assert cell([*rows, {"loss": float("nan")}], "loss") == "diverged"


RANKING = re.compile(r"(?i)\b(better|best|worse|worst|superior|outperform\w*|beats?|faster|slower|halves)\b")
# The second says "the better of two learning rates".
RANKS = ("Tuned baselines", "A deep autoencoder", "Plain against residual on MNIST")


def test_only_sections_with_seeds_and_tuned_baselines_rank() -> None:
    sections = re.split(r"(?m)^## ", (PAPER / "page.md").read_text(encoding="utf-8"))
    ranking = {text.splitlines()[0] for text in sections if RANKING.search(text)}
    assert ranking <= set(RANKS)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_tuned_baselines_run_and_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = module("tuned_baselines")
    arguments = ["--quick", "--output", str(tmp_path)]
    rows = tuned.main(arguments)
    assert {row["seed"] for row in rows} == {1}
    assert (tmp_path / "tuned_baselines" / "picture.png").read_bytes().startswith(b"\x89PNG")

    def refuse(*args: Any) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(tuned, "train", refuse)
    assert tuned.main(arguments) == rows


@pytest.mark.parametrize("form", ["inside", "outside", "normalized"])
def test_residual_forms(form: str) -> None:
    """Each form against its equation, block by block."""
    tuned = module("tuned_baselines")
    stack = tuned.ResidualStack(3, "tanh", form)
    stack.build((None, 8))
    stack.draw(1)
    stack.bias.assign(np.random.default_rng(2).standard_normal((3, 8)))
    kernels, biases = (np.asarray(keras.ops.convert_to_numpy(v), float) for v in (stack.kernel, stack.bias))
    h = x = np.random.default_rng(3).standard_normal((4, 8))
    for kernel, bias in zip(kernels, biases, strict=True):
        if form == "inside":
            h = np.tanh(h + h @ kernel + bias)
        elif form == "outside":
            h = h + np.tanh(h @ kernel + bias)
        else:
            normalized = (h - h.mean(1, keepdims=True)) / h.std(1, keepdims=True)
            h = h + np.tanh(normalized) @ kernel + bias
    np.testing.assert_allclose(keras.ops.convert_to_numpy(stack(x.astype(np.float32))), h, atol=1e-4)
    # 192 normal entries of variance 2 / (8 * 3): a relative error of sqrt(2 / 192) each way.
    assert kernels.var() == pytest.approx(2.0 / 24.0, rel=4.0 * (2.0 / 192.0) ** 0.5)


def test_equal_parameters() -> None:
    fixed = module("fixed_parameters")
    digits = keras_rwinit.data.load("digits")
    for depth in (2, 30, 500):
        width = fixed.largest_width(depth, 50_000, digits)
        count = keras_rwinit.model_zoo.count_parameters
        assert count(depth, width, 64, 10) <= 50_000 < count(depth, width + 1, 64, 10)


def test_the_page_agrees_with_the_tables() -> None:
    module("make_page").main(["--check"])


def test_marks_are_filled_across_lines() -> None:
    experiments = importlib.import_module("_experiment")
    values = {"one": "1", "two words": "2"}
    assert experiments.fill_marks("{{one}}, {{two\nwords}} and ${x}$", values) == "1, 2 and ${x}$"
    with pytest.raises(KeyError, match="three"):
        experiments.fill_marks("{{three}}", values)
