"""Pictures: a record in, matplotlib Axes out. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_matplotlib", "new_figure", "plot_histories", "plot_walk", "plot_walk_history"]

Array = NDArray[np.float64]

_MOST_LINES = 100
_MARKED = 10


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


class Record(Protocol):
    """The mean walk at a step of the training, such as `WalkRecord`: `relative` has shape (layers,)."""

    @property
    def step(self) -> int: ...

    @property
    def relative(self) -> Array: ...


def check_matplotlib() -> None:
    """ImportError with the way out if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('Pictures need matplotlib: pip install "keras-rwinit[plots]"') from error


def new_figure(columns: int = 1, width: float = 7.0, height: float = 4.2) -> tuple[Figure, Any]:
    """A figure that no window will show, and its axes (one, or an array of several in a row)."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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

        Args:
            walk: What `gradient_walk` measured.
            prediction: What `predict_walk` said of the network; its mean and bands of one and two
                standard deviations are drawn. `None`: no band.
            ax: Axes to draw on. `None`: those of a new figure.
            label: Of the mean, for the legend.
            color: Of the lines.

        Returns:
            The axes.

        Example:
            >>> import numpy as np
    from numpy.typing import NDArray
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
        bands = (
            (2.0, 0.12, "predicted, 2 standard deviations"),
            (1.0, 0.22, "predicted, 1 standard deviation"),
        )
        for deviations, alpha, label_of_band in bands:
            ax.fill_between(
                layers,
                prediction.mean - deviations * prediction.std,
                prediction.mean + deviations * prediction.std,
                color="0.3",
                alpha=alpha,
                linewidth=0,
                label=label_of_band,
            )
        ax.plot(layers, prediction.mean, color="0.3", linewidth=0.8, linestyle="--")
    ax.plot(layers, relative[:_MOST_LINES].T, color=color, linewidth=0.4, alpha=0.35)
    ax.plot(layers, mean, color=color, linewidth=1.6, label=label)
    ax.set_xlabel("hidden layer")
    ax.set_ylabel("ln |δ| relative to the last hidden layer (nats)")
    ax.legend(fontsize="small", frameon=False)
    return ax


def plot_walk_history(history: Sequence[Record], ax: Axes | None = None) -> Axes:
    """Draws the mean walk at each record of a training, a line a record, early ones dark, late ones bright.

    Args:
        history: `GradientWalkCallback.history`.
        ax: Axes to draw on. `None`: those of a new figure.

    Returns:
        The axes.
    """
    if ax is None:
        ax = new_figure()[1]
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    last = max((record.step for record in history), default=0)
    colors = ScalarMappable(Normalize(0, max(last, 1)), "viridis")
    for record in history:
        layers = np.arange(1, len(record.relative) + 1)
        marker = "o" if len(layers) < _MARKED else None
        color = colors.to_rgba(np.asarray(record.step))
        ax.plot(layers, record.relative, color=color, linewidth=1.0, marker=marker, markersize=3)
    ax.axhline(0.0, color="0.6", linewidth=0.6, linestyle="--")
    ax.set_xlabel("layer")
    ax.set_ylabel("mean ln |δ| relative to the last layer (nats)")
    ax.figure.colorbar(colors, ax=ax, label="step of the training")
    return ax


def plot_histories(
    histories: Mapping[str, Sequence[Mapping[str, float]]], axes: Sequence[Axes]
) -> Sequence[Axes]:
    """Draws training loss and test accuracy against the epoch, a line a network.

    Args:
        histories: Rows with `epoch`, `loss` and `test_accuracy`, by network.
        axes: Two: for the loss and for the accuracy.

    Returns:
        The axes.
    """
    for index, (name, rows) in enumerate(histories.items()):
        epochs = [row["epoch"] for row in rows]
        style: dict[str, Any] = {"color": f"C{index}", "marker": "o", "markersize": 3, "label": name}
        axes[0].plot(epochs, [row["loss"] for row in rows], **style)
        axes[1].plot(epochs, [100.0 * row["test_accuracy"] for row in rows], **style)
    axes[0].set_ylabel("training loss (nats)")
    axes[1].set_ylabel("test accuracy (%)")
    axes[1].set_ylim(0.0, 100.0)
    for ax in axes:
        ax.set_xlabel("epoch")
    axes[1].legend(fontsize="small", frameon=False)
    return axes
