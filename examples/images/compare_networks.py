"""Networks of 5 to 50 layers that draw a photograph, fitted to a quarter of its pixels.

python examples/images/compare_networks.py [--quick] [--output DIRECTORY]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _fitting import fit, paint
from _photographs import load, psnr
from _sine_networks import FORMS, LABELS, WIDTH

from keras_rwinit.plots import new_figure

# The table of results, the options and the search are those of the paper's experiments.
sys.path.append(str(Path(__file__).parents[1] / "paper"))
from _experiment import Experiment, Row, distinct, fill_marks, markdown_table, parse_options, read, select
from _ladders import climb

__all__ = [
    "FITTED",
    "HELD_OUT",
    "PHOTOGRAPHS",
    "PLANS",
    "SEARCH",
    "Plan",
    "Row",
    "distinct",
    "fill_marks",
    "main",
    "markdown_table",
    "read",
    "select",
]

SEARCH, HELD_OUT, FITTED = "search.csv", "held_out.csv", "fitted.csv"
PHOTOGRAPHS = "photographs.csv"
# What the search looks at, for each table of results
OBJECTIVES = {HELD_OUT: "searched_db", FITTED: "fitted_db"}
DRAWN_DEPTH = 20
DRAWN = ("siren", "siren, larger output", "walk", "walk, phases")
MARKERS = "osD^v<>P"


@dataclass(frozen=True)
class Plan:
    """What is run of one photograph at one depth.

    Args:
        depth: Number of hidden layers.
        networks: Names of networks in `FORMS`.
        photograph: Name of the photograph.
        searched_on: Name of the photograph on which the settings are searched.
        table: Table of the results, which says what the settings are chosen by.
        size: Number of pixels along one axis.
        steps: Steps of Adam.
        seeds: Number of seeds behind a result; the search has another one.
        settings_of: Depth whose settings are taken. `None`: they are searched.
    """

    depth: int
    networks: Sequence[str]
    photograph: str = "china"
    searched_on: str = "china"
    table: str = HELD_OUT
    size: int = 64
    steps: int = 300
    seeds: int = 3
    settings_of: int | None = None


MAIN = ("siren", "siren, larger output", "walk", "walk, phases")
PLANS = (
    Plan(20, (*MAIN, "walk, normal", "siren, zero biases", "glorot", "fourier")),
    Plan(5, (*MAIN, "siren, zero biases", "glorot", "fourier")),
    Plan(50, MAIN),
    Plan(20, MAIN, photograph="flower", settings_of=20),
    Plan(5, ("siren", "walk", "walk, phases"), table=FITTED),
)
QUICK = Plan(3, ("siren", "walk"), size=16, steps=50, seeds=1)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the tables, draws them, and returns the rows of the seeds behind the results."""
    experiment = parse_options("networks", __doc__, arguments)
    plans = [QUICK] if experiment.quick else PLANS
    pairs = dict.fromkeys((plan.photograph, plan.size) for plan in plans)
    experiment.run([{"photograph": name, "size": size} for name, size in pairs], describe, PHOTOGRAPHS)
    rows = [row for plan in plans for name in plan.networks for row in repeat(experiment, plan, name)]
    draw_errors(experiment, [row for row in rows if row["table"] == HELD_OUT])
    draw_pictures(experiment, rows)
    return rows


def describe(run: Row) -> dict[str, float]:
    """Returns the numbers of a photograph: its frequency and the PSNR of linear interpolation."""
    photograph = load(run["photograph"], run["size"])
    errors = photograph.interpolate() - photograph.pixels
    return {
        "frequency": photograph.frequency,
        "fitted": int(photograph.fitted.sum()),
        "searched": int(photograph.searched.sum()),
        "held_out": int(photograph.held_out.sum()),
        "interpolated_db": psnr(errors[photograph.held_out]),
    }


def repeat(experiment: Experiment, plan: Plan, name: str) -> list[Row]:
    """Returns the results of one network with the plan's seeds at its best settings."""
    base = {
        "photograph": plan.searched_on,
        "size": plan.size,
        "network": name,
        "depth": plan.depth,
        "width": WIDTH,
        "steps": plan.steps,
    }
    if experiment.quick:
        rate, scale = FORMS[name].first_rate, 1.0
    elif plan.settings_of is not None:
        rate, scale = found_settings(experiment, name, plan.settings_of)
    else:
        rate, scale = climb(search(experiment, base, OBJECTIVES[plan.table]), FORMS[name].first_rate)
    chosen = {**base, "photograph": plan.photograph, "rate": rate, "scale": scale}
    runs = [{**chosen, "seed": seed} for seed in range(1, plan.seeds + 1)]
    return [{**row, "table": plan.table} for row in experiment.run(runs, fit, plan.table)]


def found_settings(experiment: Experiment, name: str, depth: int) -> tuple[float, float]:
    """Returns the rate and the scale of the results of another depth, on the first photograph."""
    rows = read(experiment.directory / HELD_OUT)
    row = select(rows, photograph=Plan.photograph, network=name, depth=depth)[0]
    return row["rate"], row["scale"]


def search(experiment: Experiment, base: Row, objective: str) -> Callable[[float, float], float]:
    """Returns the cost of a rate and a scale: the negative PSNR with seed 0."""

    def cost(rate: float, scale: float) -> float:
        (row,) = experiment.run([{**base, "rate": rate, "scale": scale, "seed": 0}], fit, SEARCH)
        return -float(row[objective])

    return cost


def draw_errors(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws the PSNR of fitted and held-out pixels by depth: every seed, and the median."""
    rows = select(rows, photograph="china")
    figure, axes = new_figure(columns=2, width=10.0, height=4.0)
    depths = sorted(distinct(rows, "depth"))
    for ax, column, title in zip(axes, ("fitted_db", "held_out_db"), ("fitted", "held-out"), strict=True):
        for number, name in enumerate(distinct(rows, "network")):
            _draw_network(ax, select(rows, network=name), column, depths, number)
        ax.set_xticks(range(len(depths)), [str(depth) for depth in depths])
        ax.set_xlabel("hidden layers")
        ax.set_ylabel(f"PSNR of {title} pixels in dB")
    interpolated = read(experiment.directory / PHOTOGRAPHS)[0]["interpolated_db"]
    axes[-1].axhline(interpolated, color="0.3", linestyle="--", linewidth=1.0, label="linear interpolation")
    axes[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    experiment.save_picture(figure, "errors.png")


def _draw_network(ax: Any, rows: Sequence[Row], column: str, depths: Sequence[Any], number: int) -> None:
    places, medians = [], []
    for place, depth in enumerate(depths):
        values = [row[column] for row in select(rows, depth=depth)]
        if values:
            shifted = place + 0.07 * (number - 3)
            ax.plot([shifted] * len(values), values, ".", color=f"C{number}", markersize=3)
            places.append(shifted)
            medians.append(np.median(values))
    ax.plot(places, medians, MARKERS[number], color=f"C{number}", label=LABELS[rows[0]["network"]])


def draw_pictures(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws the photograph, what interpolation and networks make of it, and the errors; fits these again."""
    picture = "pictures.png"
    if (experiment.directory / picture).exists():
        return
    first = select(rows, photograph="china", table=HELD_OUT, seed=1)
    depth = DRAWN_DEPTH if select(first, depth=DRAWN_DEPTH) else first[0]["depth"]
    photograph = load("china", first[0]["size"])
    shown = {"linear interpolation": photograph.interpolate()}
    shown |= {
        LABELS[row["network"]]: paint(row) for row in select(first, depth=depth) if row["network"] in DRAWN
    }
    figure, _ = new_figure(width=2.2 * (len(shown) + 1), height=5.2)
    figure.clear()
    axes = figure.subplots(2, len(shown) + 1)
    for ax in axes.flat:
        ax.set_axis_off()
    gray = {"cmap": "gray", "vmin": -1.0, "vmax": 1.0}
    axes[0, 0].imshow(photograph.pixels, **gray)
    axes[0, 0].set_title("photograph", fontsize="small")
    axes[1, 0].imshow(np.where(photograph.fitted, photograph.pixels, np.nan), **gray)
    axes[1, 0].set_title("fitted pixels", fontsize="small")
    for (above, below), (label, drawn) in zip(axes.T[1:], shown.items(), strict=True):
        above.imshow(drawn, **gray)
        above.set_title(label, fontsize="small")
        errors = drawn - photograph.pixels
        below.imshow(np.where(photograph.fitted, np.nan, np.abs(errors)), cmap="magma", vmin=0.0, vmax=0.5)
        below.set_title(f"errors, {psnr(errors[photograph.held_out]):.1f} dB", fontsize="small")
    experiment.save_picture(figure, picture)


if __name__ == "__main__":
    main()
