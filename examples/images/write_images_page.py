"""Writes docs/studies/images.md: fills the marks of page.md with the tables and numbers of the results.

python examples/images/write_images_page.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _sine_networks import FORMS, LABELS, OMEGA, far_distance, phase_gain, phase_input_gain, sine_gain
from compare_networks import (
    FITTED,
    HELD_OUT,
    PHOTOGRAPHS,
    SEARCH,
    Row,
    distinct,
    fill_marks,
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
# Photograph, depth and title of the columns of the first table
CASES = (
    ("china", 5, "5 layers"),
    ("china", 20, "20 layers"),
    ("china", 50, "50 layers"),
    ("flower", 20, "`flower`, 20 layers"),
)
COLUMNS = ("network", "rate", "scale", "fitted (dB)", "held out (dB)", "lowest to highest")


def make_page() -> str:
    """Returns the page: the template with its marks filled."""
    values = (
        photograph_values()
        | network_values()
        | interpolation_values()
        | siren_values()
        | landscape_values()
        | run_values()
    )
    for depth in DEPTHS:
        values |= theory_values(depth)
    template = TEMPLATE.read_text(encoding="utf-8")
    return fill_marks(template, values)


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
    """Returns the tables of all networks, and the numbers in them by table, photograph, depth and network."""
    rows = read(RESULTS / "networks" / HELD_OUT)
    stored = read(RESULTS / "networks" / FITTED)
    values = {
        "held_out.table": markdown_table(
            ("network", *(title for _, _, title in CASES)), held_out_lines(rows)
        ),
        "settings.table": markdown_table(
            ("network", *(f"{depth} layers" for depth in DEPTHS)), settings_lines(rows)
        ),
        "fitted.table": markdown_table(COLUMNS, [line(group) for group in groups(stored)]),
    }
    for table, found in (("held_out", rows), ("fitted", stored)):
        for group in groups(found):
            first = group[0]
            prefix = f"{table}.{first['photograph']}.{first['depth']}.{first['network']}"
            values |= {
                f"{prefix}.fitted": decibels(median(group, "fitted_db")),
                f"{prefix}.held_out": decibels(median(group, "held_out_db")),
                f"{prefix}.lowest": decibels(min(row["held_out_db"] for row in group)),
                f"{prefix}.highest": decibels(max(row["held_out_db"] for row in group)),
                f"{prefix}.omega": f"{OMEGA * first['scale']:g}",
            }
    best = max(row["held_out_db"] for row in select(rows, photograph="flower", network="walk, phases"))
    (known,) = select(read(RESULTS / "networks" / PHOTOGRAPHS), photograph="flower")
    first = rows[0]
    return values | {
        "flower.gained": decibels(best - known["interpolated_db"]),
        "width": str(first["width"]),
        "size": str(first["size"]),
        "steps": str(first["steps"]),
        "seeds": str(len(distinct(rows, "seed"))),
        "features": str(first["width"] // 2),
    }


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Returns the seeds of each network at each depth and photograph, networks in the order of `FORMS`."""
    keys = dict.fromkeys((row["photograph"], row["depth"], row["network"]) for row in rows)
    ordered = sorted(keys, key=lambda key: (key[0], key[1], list(FORMS).index(key[2])))
    return [
        select(rows, photograph=photograph, depth=depth, network=network)
        for photograph, depth, network in ordered
    ]


def held_out_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Returns a line for each network, its held-out PSNR in each of `CASES`, and one for interpolation."""
    lines = []
    for name, label in LABELS.items():
        cells = [
            held_out_cell(select(rows, network=name, photograph=photograph, depth=depth))
            for photograph, depth, _ in CASES
        ]
        lines.append([label, *cells])
    known = {row["photograph"]: row["interpolated_db"] for row in read(RESULTS / "networks" / PHOTOGRAPHS)}
    return [*lines, ["linear interpolation", *(decibels(known[photograph]) for photograph, _, _ in CASES)]]


def held_out_cell(rows: Sequence[Row]) -> str:
    """Returns median and range over the seeds."""
    if not rows:
        return "not run"
    values = [row["held_out_db"] for row in rows]
    return f"{decibels(float(np.median(values)))} ({decibels(min(values))} to {decibels(max(values))})"


def settings_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Returns a line for each network: rate, scale and fitted PSNR at each depth, of the first photograph."""
    lines = []
    for name, label in LABELS.items():
        cells = []
        for depth in DEPTHS:
            group = select(rows, network=name, photograph="china", depth=depth)
            settings = [f"{group[0]['rate']:g}", f"{group[0]['scale']:g}"] if group else []
            cells.append(", ".join([*settings, decibels(median(group, "fitted_db"))]) if group else "")
        lines.append([label, *cells])
    return lines


def interpolation_values() -> dict[str, str]:
    """Returns the table of the methods without a network, and the numbers in it."""
    rows = read(RESULTS / "interpolation" / "results.csv")
    names = distinct(rows, "photograph")
    lines, values = [], {}
    for method in distinct(rows, "method"):
        cells = [str(method)]
        for (row,) in (select(rows, method=method, photograph=name) for name in names):
            found = f"{row['held_out_db']:.2f}"
            values[f"interpolation.{row['photograph']}.{method}"] = found
            difference = f" ({row['gained_db']:+.2f} ± {row['error_db']:.2f})".replace("-0.00", "0.00")
            settings = f"{row['length']:g}, {row['noise']:g}" if row["length"] != "" else ""
            cells += [found + difference * (method != "linear"), settings]
        lines.append(cells)
    columns = ["method"]
    for name in names:
        columns += [f"`{name}` (dB)", "length, noise"]
    (gaussian,) = select(rows, photograph="china", method="Gaussian kernel")
    return values | {
        "interpolation.table": markdown_table(columns, lines),
        "interpolation.china.lost": decibels(-gaussian["gained_db"]),
    }


def siren_values() -> dict[str, str]:
    """Returns the computed and measured walk of SIREN's scheme."""
    rows = read(RESULTS / "siren" / "results.csv")
    columns = ["hidden biases", "width", "q", "factor", *(f"{depth} layers" for depth in DEPTHS)]
    lines = []
    for biases in distinct(rows, "biases"):
        for width in distinct(rows, "width"):
            group = select(rows, biases=biases, width=width)
            deepest = select(group, depth=DEPTHS[-1])[0]
            cells = [str(biases), str(width), f"{deepest['variance']:.2f}", f"{deepest['growth']:.3f}"]
            for depth in DEPTHS:
                of_depth = select(group, depth=depth)
                measured = [row["measured"] for row in of_depth]
                found = f"{np.mean(measured):+.2f} ± {np.std(measured, ddof=1):.2f}"
                cells.append(f"{of_depth[0]['predicted']:+.2f}; {found}")
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
    tables = {
        "networks": (SEARCH, HELD_OUT, FITTED),
        "siren": ("results.csv",),
        "interpolation": ("results.csv",),
    }
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
