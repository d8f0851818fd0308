"""Pictures: a record in, matplotlib Axes out, and no window."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from keras_rwinit import GradientWalk, plots, predict_walk
from keras_rwinit.callbacks import WalkRecord
from keras_rwinit.diagnostics import WalkCorrelation
from keras_rwinit.theory.correlation import predict_correlation

pytest.importorskip("matplotlib")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D

DEPTH, EXAMPLES = 12, 5
ZERO = "as in the last hidden layer"
PREDICTION = predict_walk("relu", 30, DEPTH, gain=1.2)


@pytest.fixture(autouse=True)
def no_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is shown, and nothing is left with pyplot, which would keep it in memory."""
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("show was called"))
    before = plt.get_fignums()
    yield
    assert plt.get_fignums() == before


@pytest.fixture
def walk() -> GradientWalk:
    rng = np.random.default_rng(0)
    names = tuple(f"hidden_{layer}" for layer in range(1, DEPTH + 1))
    return walk_of(rng.normal(size=(EXAMPLES, DEPTH)), names)


def walk_of(backward: np.ndarray, names: tuple[str, ...]) -> GradientWalk:
    return GradientWalk(names, backward, -backward, np.zeros(len(names)), np.zeros(len(names)))


def lines_of(ax: Axes) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), float) for line in ax.get_lines()]


def legend_of(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_band_is_the_prediction(walk: GradientWalk) -> None:
    ax = plots.plot_walk(walk, PREDICTION)
    bands = [one for one in ax.collections if isinstance(one, PolyCollection)]
    assert len(bands) == 2
    edges = {1.0: False, 2.0: False}
    for band in bands:
        (path,) = band.get_paths()
        layers, values = path.vertices.T
        for deviations in edges:
            low = PREDICTION.mean - deviations * PREDICTION.std
            high = PREDICTION.mean + deviations * PREDICTION.std
            edges[deviations] |= all(
                sorted(values[layers == layer])[:1] == [pytest.approx(low[layer - 1])]
                and sorted(values[layers == layer])[-1:] == [pytest.approx(high[layer - 1])]
                for layer in range(1, DEPTH + 1)
            )
    assert edges == {1.0: True, 2.0: True}
    assert any(np.array_equal(line, PREDICTION.mean) for line in lines_of(ax))


def test_examples_and_their_mean_relative_to_the_last_layer(walk: GradientWalk) -> None:
    ax = plots.plot_walk(walk)
    assert not ax.collections
    relative = walk.backward - walk.backward[:, -1:]
    expected = [*relative, relative.mean(axis=0)]
    for line, values in zip(lines_of(ax), expected, strict=True):
        np.testing.assert_allclose(line, values, rtol=1e-12)
    for line in ax.get_lines():
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, DEPTH + 1))
    assert ax.get_xlabel() == "hidden layer"
    assert "nats" in ax.get_ylabel()
    assert legend_of(ax) == ["single examples", "measured"]
    assert ax.get_title() == "The gradient's norm at each layer"


def test_no_more_than_a_hundred_lines_are_drawn_and_all_are_averaged() -> None:
    backward = np.random.default_rng(1).normal(size=(1000, 2))
    ax = plots.plot_walk(walk_of(backward, ("a", "b")))
    lines = lines_of(ax)
    assert len(lines) == 101
    assert lines[-1][0] == pytest.approx((backward[:, 0] - backward[:, 1]).mean())


@pytest.mark.parametrize("method", [False, True])
def test_draws_on_the_axes_it_is_given_and_returns_them(walk: GradientWalk, method: bool) -> None:
    figure, axes = plots.new_figure(columns=2)
    drawn = walk.plot(axes[1]) if method else plots.plot_walk(walk, ax=axes[1], label="mine", color="C3")
    assert drawn is axes[1]
    assert not axes[0].get_lines()
    assert axes[1].get_lines()
    assert axes[1].figure is figure
    if not method:
        assert drawn.get_lines()[-1].get_color() == "C3"
        assert drawn.get_lines()[-1].get_label() == "mine"


@pytest.mark.parametrize("method", [False, True])
def test_makes_axes_of_its_own(walk: GradientWalk, method: bool) -> None:
    ax = walk.plot() if method else plots.plot_walk(walk)
    assert isinstance(ax, Axes)
    assert len(ax.get_lines()) == EXAMPLES + 1


def test_dead_gradients_are_left_out_without_a_warning(walk: GradientWalk) -> None:
    dead = walk.backward.copy()
    dead[0, :4] = dead[1] = -np.inf
    ax = plots.plot_walk(walk_of(dead, walk.layer_names), PREDICTION)
    ax.figure.canvas.draw()
    assert np.isfinite(lines_of(ax)[3]).all()


@pytest.mark.parametrize("layers", [4, 40])
def test_walk_history_has_a_line_for_each_record(layers: int) -> None:
    rng = np.random.default_rng(2)
    history = [WalkRecord(step // 3, step, "fine", 0.0, rng.normal(size=layers)) for step in (0, 3, 6)]
    ax = plots.plot_walk_history(history)
    *lines, zero = ax.get_lines()
    assert legend_of(ax) == ["step 0", "step 6", zero.get_label()] == ["step 0", "step 6", ZERO]
    assert ax.get_title() == "The gradient's norm during training, 3 records"
    for line, record in zip(lines, history, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), record.relative)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, layers + 1))
        assert (line.get_marker() == "o") == (layers == 4)
    assert len({line.get_color() for line in lines}) == 3
    assert [label for axes in ax.figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())] == [
        "hidden layer",
        "mean ln |δ| relative to the last hidden layer (nats)",
        "",
        "training step",
    ]


def test_correlation_and_rank_have_an_axis_each() -> None:
    rng = np.random.default_rng(3)
    forward, backward, rank = rng.uniform(size=DEPTH), rng.uniform(size=DEPTH), rng.uniform(1, 9, size=DEPTH)
    correlation = WalkCorrelation(forward, backward, rank, 0.1, 9.5)
    predicted = predict_correlation("relu", 30, DEPTH, correlation=0.1)
    ax = plots.plot_correlation(correlation, predicted)
    mean, activations, gradients = lines_of(ax)
    np.testing.assert_array_equal(mean, predicted.mean)
    np.testing.assert_array_equal(activations, [0.1, *forward])  # the inputs are layer 0
    np.testing.assert_array_equal(gradients, backward)
    (ranks,) = (other for other in ax.figure.axes if other is not ax)
    np.testing.assert_array_equal(lines_of(ranks)[0], [9.5, *rank])
    assert legend_of(ax)[1:] == ["predicted mean", "activations", "gradients", "effective rank"]
    names = tuple(map(str, range(DEPTH)))
    walk = dataclasses.replace(walk_of(rng.normal(size=(EXAMPLES, DEPTH)), names), correlation=correlation)
    assert walk.plot(correlation=True).get_title() == "How alike different examples are at each layer"
    assert walk.plot().get_title() == "The gradient's norm at each layer"


def test_histories() -> None:
    rows = [{"epoch": epoch, "loss": 2.0 / epoch, "test_accuracy": 0.1 * epoch} for epoch in (1, 2, 3)]
    diverged = [{"epoch": 1, "loss": float("nan"), "test_accuracy": 0.1}]
    _, axes = plots.new_figure(columns=2)
    drawn = plots.plot_histories({"random_walk": rows, "glorot_uniform": diverged}, axes)
    assert drawn is axes
    for ax, values in zip(drawn, ([2.0, 1.0, 2.0 / 3.0], [10.0, 20.0, 30.0]), strict=True):
        np.testing.assert_allclose(lines_of(ax)[0], values)
        assert len(ax.get_lines()) == 2
        assert ax.get_xlabel() == "epoch"
    for ax, title in zip(axes, ("loss", "accuracy"), strict=True):
        assert legend_of(ax) == ["random_walk", "glorot_uniform"]
        assert ax.get_title() == title
        assert_told_apart(ax.get_lines())


def assert_told_apart(lines: list[Line2D]) -> None:
    """Curves on top of each other differ in more than their color: the upper one is broken and narrower."""
    lower, upper = lines
    assert lower.get_linestyle() == "-" != upper.get_linestyle()
    assert lower.get_linewidth() >= upper.get_linewidth()


def test_walks_that_cover_each_other_are_told_apart(walk: GradientWalk) -> None:
    ax = plots.plot_walk(walk, label="one")
    plots.plot_walk(walk, ax=ax, label="other", color="C1")
    assert legend_of(ax) == ["single examples", "one", "other"]
    assert_told_apart([line for line in ax.get_lines() if line.get_label() in ("one", "other")])


@pytest.mark.parametrize(
    ("activation", "gain", "hump"), [("tanh", None, True), ("tanh", 1.0, False), ("relu", None, False)]
)
def test_the_hump_of_a_smooth_activation_is_explained(
    activation: str, gain: float | None, hump: bool
) -> None:
    prediction = predict_walk(activation, 64, 100, gain=gain)
    names = tuple(map(str, range(100)))
    ax = plots.plot_walk(walk_of(np.zeros((2, 100)), names), prediction)
    assert any("one gain\nbalances the sum of all steps" in text for text in legend_of(ax)) == hump
    assert any(text.startswith("predicted mean") for text in legend_of(ax))


def test_records_that_could_not_be_measured_are_left_out() -> None:
    history = [
        WalkRecord(0, 0, "not measured: ValueError: no", np.nan, np.empty(0)),
        WalkRecord(1, 3, "fine", 0.0, np.zeros(4)),
    ]
    assert legend_of(plots.plot_walk_history(history)) == ["step 3", ZERO]
    assert legend_of(plots.plot_walk_history(history[:1])) == [ZERO]


def test_a_title_of_ones_own_stays(walk: GradientWalk) -> None:
    _, ax = plots.new_figure()
    ax.set_title("mine")
    assert plots.plot_walk(walk, ax=ax).get_title() == "mine"


@pytest.mark.parametrize("arguments", [{"columns": 0}, {"width": -1.0}, {"height": float("nan")}])
def test_a_figure_without_axes_or_size_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        plots.new_figure(**arguments)


def test_without_matplotlib_the_extra_is_named(walk: GradientWalk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (plots.check_matplotlib, plots.new_figure, walk.plot, lambda: plots.plot_walk(walk)):
        with pytest.raises(ImportError, match=r'pip install "keras-rwinit\[plots\]"'):
            draw()
