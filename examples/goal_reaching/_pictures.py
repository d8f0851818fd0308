"""The pictures of the study: success over steps, success by depth, and ways through the maze."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from _encoders import LABELS
from _maze import Array, Maze

from keras_rwinit.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bootstrap", "curve", "curves", "draw_curves", "draw_depths", "draw_ways", "points_of"]

Row = dict[str, Any]

RESAMPLES = 2000
MARKERS = "osD^v<"


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean: percentiles of the means of values drawn with replacement."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    low, high = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def curve(row: Row) -> tuple[list[int], list[float]]:
    """Returns the steps at which the success of a run was measured, and the success."""
    steps, found = [], []
    for name, value in row.items():
        if (match := re.fullmatch(r"success_(\d+)", name)) and value != "":
            steps.append(int(match[1]))
            found.append(float(value))
    return steps, found


def curves(rows: Sequence[Row]) -> tuple[list[int], Array]:
    """Returns the steps at which the success of some runs was measured, and a row with it for each run.

    A run that was stopped before others keeps its last success; where all were, the curve ends.
    """
    each = [curve(row) for row in rows]
    steps = max((steps for steps, _ in each), key=len)
    return steps, np.array([found + found[-1:] * (len(steps) - len(found)) for _, found in each])


def points_of(text: str | int) -> list[int]:
    """Returns the points of a recorded way."""
    return [int(point) for point in str(text).split()]


def draw_curves(rows: Sequence[Row]) -> Figure:
    """Returns a picture with the success over the steps, a panel for each depth, with bootstrap intervals."""
    depths = sorted({row["depth"] for row in rows})
    figure, axes = new_figure(columns=len(depths), width=3.2 * len(depths), height=3.4)
    for ax, depth in zip(np.atleast_1d(axes), depths, strict=True):
        for number, name in enumerate(LABELS):
            chosen = [row for row in rows if row["depth"] == depth and row["network"] == name]
            if chosen:
                steps, values = curves(chosen)
                low, high = np.array([bootstrap(column) for column in values.T]).T
                ax.plot(steps, values.mean(axis=0), color=f"C{number}", label=LABELS[name])
                ax.fill_between(steps, low, high, color=f"C{number}", alpha=0.2, linewidth=0.0)
        ax.set_title(f"{depth} layers", fontsize="medium")
        ax.set_xlabel("training step")
        ax.set_ylim(-0.02, 1.0)
    first = np.atleast_1d(axes)[0]
    first.set_ylabel("share of goals reached")
    first.legend(fontsize="x-small", loc="upper left")
    return figure


def draw_depths(rows: Sequence[Row]) -> Figure:
    """Returns a picture with the success of every seed, its mean and bootstrap interval, by depth."""
    depths = sorted({row["depth"] for row in rows})
    names = [name for name in LABELS if any(row["network"] == name for row in rows)]
    figure, ax = new_figure(width=7.0, height=3.8)
    for number, name in enumerate(LABELS):
        places, means, ends = [], [], []
        for place, depth in enumerate(depths):
            found = [row["success"] for row in rows if row["depth"] == depth and row["network"] == name]
            if found:
                shifted = place + 0.09 * (names.index(name) - (len(names) - 1) / 2.0)
                ax.plot([shifted] * len(found), found, ".", color=f"C{number}", markersize=3)
                places.append(shifted)
                means.append(np.mean(found))
                ends.append(bootstrap(found))
        if places:
            lengths = np.abs(np.array(ends).T - np.array(means))
            style = {"fmt": f"{MARKERS[number]}-", "color": f"C{number}", "capsize": 3, "linewidth": 0.8}
            ax.errorbar(places, means, lengths, label=LABELS[name], **style)
    ax.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    ax.set_xlabel("hidden layers after the first")
    ax.set_ylabel("share of goals reached")
    ax.set_ylim(-0.02, 1.0)
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_ways(maze: Maze, ways: dict[str, Sequence[Sequence[int]]], goals: Sequence[int]) -> Figure:
    """Returns a picture of the maze with ways, a panel for each title.

    Args:
        maze: The maze.
        ways: Points of the lattice on each way, by the title of its panel.
        goals: Goal of each way.
    """
    figure, axes = new_figure(columns=len(ways), width=3.0 * len(ways), height=3.3)
    for ax, (title, of_panel) in zip(np.atleast_1d(axes), ways.items(), strict=True):
        _draw_walls(ax, maze)
        for number, (way, goal) in enumerate(zip(of_panel, goals, strict=True)):
            # The ways are drawn side by side where they share a corridor.
            shift = 0.1 * (number - (len(goals) - 1) / 2.0)
            x, y = maze.lattice[list(way)].T + shift
            ax.plot(x, y, "-", color=f"C{number}", linewidth=1.2)
            ax.plot(x[0], y[0], "o", color=f"C{number}", markersize=5)
            ax.plot(*(maze.lattice[goal] + shift), "*", color=f"C{number}", markersize=10)
        ax.set_title(title, fontsize="small")
    return figure


def _draw_walls(ax: Axes, maze: Maze) -> None:
    walls: Array = maze.walls.T.astype(float)
    ax.imshow(walls, origin="lower", extent=(0, len(walls), 0, len(walls)), cmap="Greys", vmin=0.0, vmax=2.0)
    ax.set_axis_off()
