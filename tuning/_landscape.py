"""`plot_landscape`: the picture of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_rwinit.plots import new_figure

from ._trial_row import TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_landscape"]


def plot_landscape(rows: Sequence[TrialRow], objective: str = "score", ax: Axes | None = None) -> Axes:
    """Draws trials over gain ratio and width, colored by score, with a line at the analytic gain.

    With a single width the vertical axis is the score. Failed trials are crosses.

    Args:
        rows: The trials.
        objective: Name of the score.
        ax: Axes to draw on. `None`: those of a new figure.

    Returns:
        The axes.

    Raises:
        ImportError: Matplotlib is missing; the message names the extra to install.

    Example:
        >>> from keras_rwinit import tuning
        >>> row = tuning.TrialRow(
        ...     trial=0, gain_ratio=1.0, gain=1.41, width=8, depth=3, parameters=754, drift=0.0,
        ...     spread=0.6, score=0.4, seconds=2.5, status="COMPLETED", reason=None, others={},
        ... )
        >>> tuning.plot_landscape([row], "val_loss").get_xlabel()
        'gain / analytic gain'
    """
    if ax is None:
        ax = new_figure()[1]
    done = sorted((row for row in rows if row.score is not None), key=lambda row: row.gain_ratio)
    failed = [row for row in rows if row.status == "FAILED"]
    ratios, scores = [row.gain_ratio for row in done], [float(row.score or 0.0) for row in done]
    if len({row.width for row in rows}) > 1:
        points = ax.scatter(
            ratios,
            [row.width for row in done],
            c=scores,
            cmap="viridis_r",
            s=60,
            edgecolors="0.2",
            zorder=3,
            label="trial",
        )
        if done:
            ax.figure.colorbar(points, ax=ax, label=objective)
        failed_at = [float(row.width) for row in failed]
        ax.set_ylabel("width")
    else:
        ax.plot(ratios, scores, marker="o", zorder=3, label="trial")
        failed_at = [max(scores, default=0.0)] * len(failed)
        ax.set_ylabel(objective)
    if failed:
        ax.scatter(
            [row.gain_ratio for row in failed], failed_at, marker="x", color="C3", label="failed", zorder=3
        )
    ax.axvline(1.0, color="0.3", linestyle="--", linewidth=1.2, label="analytic optimum")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.set_xlabel("gain / analytic gain")
    if not ax.get_title():
        ax.set_title(f"{objective} of {len(done)} trials")
    ax.legend(fontsize="small", frameon=False)
    return ax
