"""Draws measured walks and learning curves on matplotlib Axes, which it returns; shows no window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "check_matplotlib",
    "new_figure",
    "plot_correlation",
    "plot_histories",
    "plot_walk",
    "plot_walk_history",
]

Array = NDArray[np.float64]

_MOST_LINES = 100
_MARKERS_BELOW = 10  # layers; more markers than that hide the line
_EXAMPLES, _MEAN = "single examples", "mean of a walk"
_HUMP_NOTE = "; its hump: one gain\nbalances the sum of all steps, not each step"
# A predicted mean that bends by less looks straight, or bends because the gains of its kernels differ.
_HUMP, _HUMP_SPREAD = 0.1, 0.3  # nats, standard deviations

# Curves may cover each other: later ones are broken and narrower, so that earlier ones show through.
_DASHES = ("solid", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_MARKERS = "osv^D"


class _LineStyle(TypedDict):
    color: str
    linestyle: str | tuple[float, tuple[float, ...]]
    linewidth: float
    marker: str
    markersize: float
    label: str


class Walk(Protocol):
    """A measured walk, such as `GradientWalk`: `relative` has shape (examples, layers), in nats."""

    @property
    def relative(self) -> Array: ...


class Prediction(Protocol):
    """A predicted walk, such as `WalkPrediction`: `mean` and `std` have shape (layers,), in nats."""

    @property
    def mean(self) -> Array: ...

    @property
    def std(self) -> Array: ...


class Correlation(Protocol):
    """How alike examples are, such as `WalkCorrelation`: numbers of the inputs, arrays of shape (layers,)."""

    @property
    def forward(self) -> Array: ...

    @property
    def backward(self) -> Array: ...

    @property
    def effective_rank(self) -> Array: ...

    @property
    def inputs(self) -> float: ...

    @property
    def inputs_rank(self) -> float: ...


class Record(Protocol):
    """The mean walk at a step of the training, such as `WalkRecord`: `relative` has shape (layers,)."""

    @property
    def step(self) -> int: ...

    @property
    def relative(self) -> Array: ...


def check_matplotlib() -> None:
    """Checks that matplotlib is installed, before long work that ends with a picture.

    Raises:
        ImportError: Matplotlib is missing; the message names the extra to install.

    Example:
        >>> from keras_rwinit import plots
        >>> plots.check_matplotlib()
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('Pictures need matplotlib: pip install "keras-rwinit[plots]"') from error


def new_figure(columns: int = 1, width: float = 7.0, height: float = 4.2) -> tuple[Figure, Any]:
    """Makes a figure that no window shows, and its axes: one, or an array of several in a row.

    Args:
        columns: Number of axes, at least 1.
        width, height: Size in inches, above 0.

    Returns:
        The figure, and its axes: matplotlib Axes for one column, else an array of them of shape (columns,).

    Raises:
        ImportError: Matplotlib is missing; the message names the extra to install.
        ValueError: `columns` is not an integer of at least 1, or a size is negative or not finite.

    Example:
        >>> from keras_rwinit import plots
        >>> figure, axes = plots.new_figure(columns=2, width=9.0)
        >>> axes.shape, figure.get_size_inches().tolist()
        ((2,), [9.0, 4.2])
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # `pyplot.figure` would keep the figure in memory and may open a window.
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def plot_walk(
    walk: Walk,
    prediction: Prediction | None = None,
    ax: Axes | None = None,
    label: str = "measured",
    color: str = "C0",
) -> Axes:
    """Draws `ln(|delta_d| / |delta_last|)` against depth: examples, their mean, the predicted band.

    Walks that are drawn on the same axes have different lines, so that one that covers another is told from
    it. With one gain for all layers, the predicted mean of a smooth activation has a hump: the
    pre-activations' variance takes many layers to settle, the steps before are larger than those after, and
    the gain balances their sum. The legend says so.

    Args:
        walk: The walk that `gradient_walk` measured; at most 100 of its examples are drawn as lines.
        prediction: The walk that `predict_walk` predicts; its mean and bands of one and two standard
            deviations are drawn. `None`: no band.
        ax: Axes to draw on. `None`: those of a new figure.
        label: Label of the mean in the legend.
        color: Matplotlib color of the measured lines.

    Returns:
        The axes.

    Raises:
        ImportError: Matplotlib is missing; the message names the extra to install.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit import gradient_walk, model_zoo, plots, predict_walk
        >>> model = model_zoo.deep_mlp(depth=20, width=50, input_shape=(8,), seed=0)
        >>> walk = gradient_walk(model, np.random.default_rng(0).normal(size=(4, 8)))
        >>> plots.plot_walk(walk, predict_walk("relu", 50, 20)).get_xlabel()
        'hidden layer'
    """
    if ax is None:
        ax = new_figure()[1]
    # A dead gradient has no place on the axis.
    relative = np.where(np.isfinite(walk.relative), walk.relative, np.nan)
    alive = relative[np.isfinite(relative).all(axis=1)]
    mean = alive.mean(axis=0) if len(alive) else np.full(relative.shape[1], np.nan)
    layers = np.arange(1, relative.shape[1] + 1)
    if prediction is not None:
        _draw_band(ax, layers, prediction, 2.0, alpha=0.12, label="predicted, 2 standard deviations")
        _draw_band(ax, layers, prediction, 1.0, alpha=0.22, label="predicted, 1 standard deviation")
        label_of_mean = "predicted mean" + (_HUMP_NOTE if _has_hump(prediction) else "")
        ax.plot(layers, prediction.mean, color="0.3", linewidth=0.8, linestyle="--", label=label_of_mean)
    drawn = {line.get_label() for line in ax.get_lines()}
    number = sum(line.get_gid() == _MEAN for line in ax.get_lines())
    lines = ax.plot(layers, relative[:_MOST_LINES].T, color=color, linewidth=0.4, alpha=0.35)
    if _EXAMPLES not in drawn:
        lines[0].set_label(_EXAMPLES)
    ax.plot(
        layers,
        mean,
        color=color,
        linewidth=1.6,
        linestyle=_DASHES[number % len(_DASHES)],
        label=label,
        gid=_MEAN,
    )
    if not ax.get_title():
        ax.set_title("The gradient's norm at each layer")
    ax.set_xlabel("hidden layer")
    ax.set_ylabel("ln |δ| relative to the last hidden layer (nats)")
    for handle in ax.legend(fontsize="small", frameon=False).get_lines():
        handle.set_linewidth(max(handle.get_linewidth(), 0.8))  # the examples' thin line is hard to see
    return ax


def plot_correlation(
    correlation: Correlation, prediction: Prediction | None = None, ax: Axes | None = None
) -> Axes:
    """Draws how alike different examples are at each layer: their correlation, and their effective rank.

    The correlation is on the left axis, that of the inputs at layer 0; the effective rank is on a second axis
    on the right.

    Args:
        correlation: `gradient_walk(...).correlation`.
        prediction: What `predict_correlation` predicts for a pair; its mean and a band of one standard
            deviation over networks are drawn. `None`: no band.
        ax: Axes to draw on. `None`: those of a new figure.

    Returns:
        The axes on the left.

    Raises:
        ImportError: Matplotlib is missing; the message names the extra to install.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit import plots
        >>> from keras_rwinit.diagnostics import WalkCorrelation
        >>> alike, ranks = np.array([0.2, 0.4, 0.5]), np.array([6.0, 5.0, 4.5])
        >>> correlation = WalkCorrelation(alike, alike, ranks, inputs=0.0, inputs_rank=7.0)
        >>> plots.plot_correlation(correlation).get_ylabel()
        'mean correlation of two examples'
    """
    if ax is None:
        ax = new_figure()[1]
    layers = np.arange(1, len(correlation.forward) + 1)
    if prediction is not None:
        low, high = prediction.mean - prediction.std, prediction.mean + prediction.std
        ax.fill_between(
            layers,
            np.maximum(low, -1.0),
            np.minimum(high, 1.0),
            color="0.3",
            alpha=0.18,
            linewidth=0,
            label="predicted, 1 standard deviation",
        )
        ax.plot(layers, prediction.mean, color="0.3", linewidth=0.8, linestyle="--", label="predicted mean")
    from_inputs = np.append(0, layers), np.append(correlation.inputs, correlation.forward)
    ax.plot(*from_inputs, color="C0", linewidth=1.6, label="activations")
    ax.plot(layers, correlation.backward, color="C1", linewidth=1.2, label="gradients")
    ranks = ax.twinx()
    with_inputs = np.append(correlation.inputs_rank, correlation.effective_rank)
    ranks.plot(from_inputs[0], with_inputs, color="C2", linewidth=1.0, linestyle=":", label="effective rank")
    ranks.set_ylabel("effective rank of the activations")
    ranks.set_ylim(bottom=0.0)
    ax.set_ylim(top=1.05)
    ax.set_title("How alike different examples are at each layer")
    ax.set_xlabel("hidden layer, 0: the inputs")
    ax.set_ylabel("mean correlation of two examples")
    handles, labels = (
        one + other
        for one, other in zip(ax.get_legend_handles_labels(), ranks.get_legend_handles_labels(), strict=True)
    )
    # Below, since lines of two axes leave no corner free.
    ax.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=3,
        fontsize="small",
        frameon=False,
    )
    return ax


def _has_hump(prediction: Prediction) -> bool:
    """Returns whether a predicted mean goes away from level and comes back."""
    mean = prediction.mean
    bend = np.abs(mean - np.linspace(mean[0], mean[-1], len(mean))).max()
    return bool(bend > max(_HUMP, _HUMP_SPREAD * prediction.std[0], abs(mean[0])))


def _draw_band(
    ax: Axes, layers: NDArray[np.int64], prediction: Prediction, deviations: float, alpha: float, label: str
) -> None:
    low = prediction.mean - deviations * prediction.std
    high = prediction.mean + deviations * prediction.std
    ax.fill_between(layers, low, high, color="0.3", alpha=alpha, linewidth=0, label=label)


def plot_walk_history(history: Sequence[Record], ax: Axes | None = None) -> Axes:
    """Draws the mean walk at each record of a training, one line each, early ones dark, late ones bright.

    Args:
        history: The records, `GradientWalkCallback.history`.
        ax: Axes to draw on. `None`: those of a new figure.

    Returns:
        The axes.

    Raises:
        ImportError: Matplotlib is missing; the message names the extra to install.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit import plots
        >>> from keras_rwinit.callbacks import WalkRecord
        >>> start = WalkRecord(0, 0, "fine", 0.0, np.array([0.1, 0.2, 0.0]))
        >>> end = WalkRecord(1, 45, "fine", 0.1, np.array([0.3, 0.2, 0.0]))
        >>> plots.plot_walk_history([start, end]).get_title()
        "The gradient's norm during training, 2 records"
    """
    if ax is None:
        ax = new_figure()[1]
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    # A record that could not be measured has no layers.
    measured = [record for record in history if len(record.relative)]
    last = max((record.step for record in measured), default=0)
    colors = ScalarMappable(Normalize(0, max(last, 1)), "viridis")
    for number, record in enumerate(measured):
        layers = np.arange(1, len(record.relative) + 1)
        ax.plot(
            layers,
            record.relative,
            color=colors.to_rgba(np.asarray(record.step)),
            # Later records, which are drawn above, leave the earlier ones visible.
            linewidth=2.2 - 1.4 * number / max(len(measured) - 1, 1),
            marker="o" if len(layers) < _MARKERS_BELOW else None,
            markersize=3,
            label=f"step {record.step}" if number in (0, len(measured) - 1) else None,
        )
    ax.axhline(0.0, color="0.6", linewidth=0.6, linestyle="--", label="as in the last hidden layer")
    ax.set_title(f"The gradient's norm during training, {len(measured)} records")
    ax.set_xlabel("hidden layer")
    ax.set_ylabel("mean ln |δ| relative to the last hidden layer (nats)")
    ax.legend(fontsize="small", frameon=False)
    ax.figure.colorbar(colors, ax=ax, label="training step")
    return ax


def plot_histories(
    histories: Mapping[str, Sequence[Mapping[str, float]]], axes: Sequence[Axes]
) -> Sequence[Axes]:
    """Draws training loss and test accuracy against the epoch, one line for each network.

    Args:
        histories: Rows with `epoch`, `loss` (nats) and `test_accuracy` (0 to 1), by the network's name.
        axes: Two axes, for the loss and for the accuracy.

    Returns:
        The axes.

    Raises:
        KeyError: A row lacks one of the three numbers.

    Example:
        >>> from keras_rwinit import plots
        >>> rows = [
        ...     {"epoch": 1, "loss": 1.2, "test_accuracy": 0.61},
        ...     {"epoch": 2, "loss": 0.4, "test_accuracy": 0.88},
        ... ]
        >>> figure, axes = plots.new_figure(columns=2)
        >>> plots.plot_histories({"tanh": rows}, axes)[1].get_ylabel()
        'test accuracy (%)'
    """
    from matplotlib.ticker import MaxNLocator

    for index, (name, rows) in enumerate(histories.items()):
        epochs = [row["epoch"] for row in rows]
        style: _LineStyle = {
            "color": f"C{index}",
            "linestyle": _DASHES[index % len(_DASHES)],
            "linewidth": max(2.4 - 0.6 * index, 1.0),
            "marker": _MARKERS[index % len(_MARKERS)],
            "markersize": max(6.0 - 1.5 * index, 3.0),
            "label": name,
        }
        axes[0].plot(epochs, [row["loss"] for row in rows], **style)
        axes[1].plot(epochs, [100.0 * row["test_accuracy"] for row in rows], **style)
    axes[0].set_title("loss")
    axes[0].set_ylabel("training loss (nats)")
    axes[1].set_title("accuracy")
    axes[1].set_ylabel("test accuracy (%)")
    axes[1].set_ylim(0.0, 102.0)  # a marker at 100 % is whole
    for ax in axes:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(fontsize="small", frameon=False)
    return axes
