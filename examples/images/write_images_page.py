"""Writes docs/studies/images.md: fills the marks of page.md with the tables and numbers of the results.

python examples/images/write_images_page.py
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _sine_networks import FORMS, LABELS, OMEGA, far_distance, phase_gain, phase_input_gain, sine_gain
from compare_networks import (
    FITTED,
    HELD_OUT,
    PHOTOGRAPHS,
    RETRIED,
    SEARCH,
    Row,
    distinct,
    markdown_table,
    read,
    select,
)
from search_gain import COMPARED, TRIALS
from siren_gain import follow, siren_bias_bound

from keras_rwinit import theory

RESULTS = Path(__file__).parent / "results"
TEMPLATE = Path(__file__).parent / "page.md"
PAGE = Path(__file__).parents[2] / "docs" / "studies" / "images.md"
DEPTHS = (5, 20, 50)
COLUMNS = ("network", "rate", "scale", "fitted (dB)", "held out (dB)", "lowest to highest")


def make_page() -> str:
    """Returns the page: the template with its marks filled."""
    values = (
        photograph_values()
        | retried_values()
        | network_values()
        | siren_values()
        | landscape_values()
        | run_values()
    )
    for depth in DEPTHS:
        values |= theory_values(depth)
    template = TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(.+?)\}\}", lambda mark: values[mark[1]], template)


def photograph_values() -> dict[str, str]:
    """Returns what is known of the photographs without any network."""
    rows = read(RESULTS / "networks" / PHOTOGRAPHS)
    values = {}
    for row in rows:
        name = row["photograph"]
        values |= {
            f"{name}.frequency": f"{row['frequency']:.1f}",
            f"{name}.interpolated": decibels(row["interpolated_db"]),
        }
    return values


def network_values() -> dict[str, str]:
    """Returns a table for each depth, photograph and kind of result, and the medians in them."""
    values = {}
    for table in (HELD_OUT, FITTED):
        rows = read(RESULTS / "networks" / table)
        for photograph in distinct(rows, "photograph"):
            of_photograph = select(rows, photograph=photograph)
            for depth in distinct(of_photograph, "depth"):
                of_depth = select(of_photograph, depth=depth)
                prefix = f"{table.removesuffix('.csv')}.{photograph}.{depth}"
                groups = {name: select(of_depth, network=name) for name in FORMS}
                groups = {name: group for name, group in groups.items() if group}
                seeds = len(distinct(of_depth, "seed"))
                values[f"{prefix}.seeds"] = "one seed" if seeds == 1 else f"{seeds} seeds"
                values[f"{prefix}.table"] = markdown_table(
                    COLUMNS, [line(group) for group in groups.values()]
                )
                for name, group in groups.items():
                    values[f"{prefix}.{name}.fitted"] = decibels(median(group, "fitted_db"))
                    values[f"{prefix}.{name}.held_out"] = decibels(median(group, "held_out_db"))
                    values[f"{prefix}.{name}.omega"] = f"{OMEGA * group[0]['scale']:g}"
    for name in ("siren", "walk", "walk, phases"):
        tried = select(read(RESULTS / "networks" / SEARCH), network=name, depth=20)
        values[f"searched.20.{name}"] = decibels(max(row["fitted_db"] for row in tried))
    first = read(RESULTS / "networks" / HELD_OUT)[0]
    return values | {
        "width": str(first["width"]),
        "size": str(first["size"]),
        "steps": str(first["steps"]),
        "features": str(first["width"] // 2),
    }


def retried_values() -> dict[str, str]:
    """Returns what single runs of SIREN at other settings, and with a larger output, had."""
    results = read(RESULTS / "networks" / HELD_OUT)
    retried = read(RESULTS / "networks" / RETRIED)
    deep = select(results, network="siren", depth=50) + select(retried, network="siren", depth=50)
    deep = select(deep, seed=1)
    values = {}
    for after in select(retried, network="siren, larger output"):
        same = {key: after[key] for key in ("photograph", "depth", "rate", "scale", "seed")}
        (before,) = select([*results, *retried], network="siren", **same)
        for time, row in (("before", before), ("after", after)):
            for pixels in ("fitted", "held_out"):
                values[f"larger.{row['depth']}.{time}.{pixels}"] = decibels(row[f"{pixels}_db"])
    return values | {
        "retried.50.settings": str(len(deep)),
        "retried.50.list": ", ".join(f"{row['rate']:g} and {row['scale']:g}" for row in deep),
        "retried.50.best": decibels(max(row["held_out_db"] for row in deep)),
    }


def siren_values() -> dict[str, str]:
    """Returns the computed and measured walk of SIREN's scheme."""
    rows = read(RESULTS / "siren" / "results.csv")
    columns = ["hidden biases", "width", "q", "factor"]
    columns += [f"{depth} layers, {kind}" for depth in DEPTHS for kind in ("predicted", "measured")]
    lines = []
    for biases in distinct(rows, "biases"):
        for width in distinct(rows, "width"):
            group = select(rows, biases=biases, width=width)
            deepest = select(group, depth=DEPTHS[-1])[0]
            cells = [str(biases), str(width), f"{deepest['variance']:.2f}", f"{deepest['growth']:.3f}"]
            for depth in DEPTHS:
                of_depth = select(group, depth=depth)
                measured = [row["measured"] for row in of_depth]
                cells.append(f"{of_depth[0]['predicted']:+.2f}")
                cells.append(f"{np.mean(measured):+.2f} ± {np.std(measured, ddof=1):.2f}")
            lines.append(cells)
    uniform = phase_gain(20, "uniform")
    return {
        "siren.table": markdown_table(columns, lines),
        "siren.networks": str(len(distinct(rows, "seed"))),
        **{f"siren.{width}.factor": siren_factor(width) for width in (64, 256, 1024)},
        "siren.input_gain": f"{OMEGA * 0.5 / math.sqrt(3.0) * math.sqrt(2.0):.1f}",
        "phase_gain.uniform": f"{uniform:.4f}",
    }


def siren_factor(width: int) -> str:
    """Returns the computed factor of the squared gradient per layer with the biases of SIREN's code."""
    return f"{follow(DEPTHS[-1], siren_bias_bound(width))[-1].growth:.3f}"


def landscape_values() -> dict[str, str]:
    """Returns what the search of gain and input gain found."""
    rows = read(RESULTS / "gain" / TRIALS)
    done = [row for row in rows if row["score"] != ""]
    best = min(done, key=lambda row: row["score"])
    pairs = read(RESULTS / "gain" / COMPARED)
    gained = [to_decibels(row["best"]) - to_decibels(row["computed"]) for row in pairs]
    return {
        "gain.trials": str(len(rows)),
        "gain.depth": str(rows[0]["depth"]),
        "gain.computed": f"{rows[0]['gain']:.3f}",
        "gain.first": decibels(to_decibels(rows[0]["score"])),
        "gain.best": decibels(to_decibels(best["score"])),
        "gain.best_ratio": f"{best['gain_ratio']:.2f}",
        "gain.best_input_ratio": f"{best['input_gain_ratio']:.2f}",
        "gain.worst": decibels(to_decibels(max(row["score"] for row in done))),
        "gain.pairs": str(len(pairs)),
        "gain.gained": ", ".join(f"{value:+.1f}" for value in gained),
    }


def theory_values(depth: int) -> dict[str, str]:
    """Returns gains, input gains and distances at a depth, for the first photograph."""
    gain = sine_gain(depth)
    frequency = read(RESULTS / "networks" / PHOTOGRAPHS)[0]["frequency"]
    return {
        f"theory.{depth}.gain": f"{gain:.3f}",
        f"theory.{depth}.phase_gain": f"{phase_gain(depth):.4f}",
        f"theory.{depth}.distance": f"{far_distance(depth):.3f}",
        f"theory.{depth}.input_gain": f"{theory.input_gain('sin', depth, gain, frequency, inputs=2):.1f}",
        f"theory.{depth}.phase_input_gain": f"{phase_input_gain(depth, frequency):.1f}",
    }


def run_values() -> dict[str, str]:
    """Returns machine, number of runs and minutes."""
    values = {}
    tables = {"networks": (SEARCH, HELD_OUT, FITTED, RETRIED), "siren": ("results.csv",)}
    for name, files in tables.items():
        rows = [row for file in files for row in read(RESULTS / name / file)]
        values[f"{name}.runs"] = str(len(rows))
        values[f"{name}.minutes"] = f"{sum(row['seconds'] for row in rows) / 60:.0f}"
        values[f"{name}.machine"] = "; ".join(str(machine) for machine in distinct(rows, "machine"))
    trials = read(RESULTS / "gain" / TRIALS)
    values["gain.minutes"] = f"{sum(row['trial_seconds'] for row in trials) / 60:.0f}"
    return values


def line(rows: Sequence[Row]) -> list[str]:
    """Returns the cells of one network."""
    held_out = [row["held_out_db"] for row in rows]
    return [
        LABELS[rows[0]["network"]],
        f"{rows[0]['rate']:g}",
        f"{rows[0]['scale']:g}",
        decibels(median(rows, "fitted_db")),
        decibels(median(rows, "held_out_db")),
        f"{decibels(min(held_out))} to {decibels(max(held_out))}",
    ]


def median(rows: Sequence[Row], column: str) -> float:
    """Returns the median over the seeds."""
    return float(np.median([row[column] for row in rows]))


def to_decibels(mean_square: float) -> float:
    """Returns the PSNR of a mean squared error of pixels from -1 to 1."""
    return 10.0 * math.log10(4.0 / mean_square)


def decibels(value: float) -> str:
    """Returns a PSNR with one digit after the point."""
    return f"{value:.1f}"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(make_page(), encoding="utf-8")
    print(PAGE)
