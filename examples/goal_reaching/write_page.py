"""Writes docs/studies/goal_reaching.md: fills the marks of page.md with the numbers of the results.

python examples/goal_reaching/write_page.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _encoders import LABELS
from _pictures import bootstrap
from reach_goals import BATCH, FAR, NAME, ROOMS, Row, distinct, fill_marks, markdown_table, read, select

from keras_rwinit import model_zoo

RESULTS = Path(__file__).parent / "results" / NAME
TEMPLATE = Path(__file__).parent / "page.md"
PAGE = Path(__file__).parents[2] / "docs" / "studies" / "goal_reaching.md"
COLUMNS = (
    "network",
    "rate",
    "seeds",
    "goals reached (%)",
    "95 % interval",
    "lowest to highest",
    "loss",
    "time (s)",
)


def make_page() -> str:
    """Returns the page: the template with its marks filled."""
    rows = read(RESULTS / "results.csv")
    values = run_values(rows) | exact_values()
    for depth in distinct(rows, "depth"):
        values |= depth_values(select(rows, depth=depth))
        computed = model_zoo.learning_rate(depth, rows[0]["width"], decays=True)
        values[f"{depth}.computed"] = f"{computed:.1g}"
    template = TEMPLATE.read_text(encoding="utf-8")
    return fill_marks(template, values)


def run_values(rows: list[Row]) -> dict[str, str]:
    """Returns how the runs were made."""
    return {
        "steps": f"{rows[0]['steps']:,}",
        "width": str(rows[0]["width"]),
        "batch": str(BATCH),
        "runs": str(len(rows)),
        "minutes": f"{sum(row['seconds'] for row in rows) / 60:.0f}",
        "cpu_minutes": f"{sum(row['cpu_seconds'] for row in rows) / 60:.0f}",
        "machine": "; ".join(str(machine) for machine in distinct(rows, "machine")),
    }


def exact_values() -> dict[str, str]:
    """Returns the size of the maze and the success of the exact critic."""
    (row,) = read(RESULTS / "exact.csv")
    return {
        "rooms": str(ROOMS),
        "side": str(2 * ROOMS + 1),
        "far": str(FAR),
        "points": str(row["points"]),
        "longest": str(row["longest"]),
        "pairs": f"{row['pairs']:,}",
        "discount": str(row["discount"]),
        "exact": percent(row["success"]),
    }


def depth_values(rows: list[Row]) -> dict[str, str]:
    """Returns the text of every mark of one depth: its table, means and ends of intervals."""
    depth, results = rows[0]["depth"], [row for row in rows if row["seed"] != 0]
    names = [name for name in LABELS if select(results, network=name)]
    values = {
        f"{depth}.table": markdown_table(COLUMNS, [line(select(results, network=name)) for name in names])
    }
    for name in names:
        chosen = select(results, network=name)
        found = [row["success"] for row in chosen]
        (tried,) = select(rows, network=name, rate=chosen[0]["rate"], seed=0)
        values |= {
            f"{depth}.{name}.success": percent(float(np.mean(found))),
            f"{depth}.{name}.search": percent(tried["success"]),
            f"{depth}.{name}.low": percent(min(found)),
            f"{depth}.{name}.high": percent(max(found)),
            f"{depth}.{name}.rate": f"{chosen[0]['rate']:g}",
            f"{depth}.{name}.parameters": f"{chosen[0]['parameters']:,}",
            f"{depth}.{name}.seconds": seconds(chosen),
            f"{depth}.{name}.loss": f"{np.mean([row['loss'] for row in chosen]):.2f}",
            f"{depth}.{name}.reached": " and ".join(", ".join(map(percent, found)).rsplit(", ", 1)),
        }
        if others := select(results, network="residual"):
            values[f"{depth}.{name}.ahead"] = ahead(chosen, others)
    return values


def ahead(rows: list[Row], others: list[Row]) -> str:
    """Returns in how many seeds a network reached more goals than another one with the same pairs."""
    reached = {row["seed"]: row["success"] for row in others}
    return str(sum(row["success"] > reached[row["seed"]] for row in rows))


def line(rows: list[Row]) -> list[str]:
    """Returns the cells of one network."""
    found = [row["success"] for row in rows]
    return [
        LABELS[rows[0]["network"]],
        f"{rows[0]['rate']:g}",
        str(len(rows)),
        percent(float(np.mean(found))),
        " to ".join(percent(end) for end in bootstrap(found)),
        f"{percent(min(found))} to {percent(max(found))}",
        f"{np.mean([row['loss'] for row in rows]):.2f}",
        seconds(rows),
    ]


def percent(share: float) -> str:
    """Returns a share in per cent."""
    return f"{100.0 * share:.0f}"


def seconds(rows: list[Row]) -> str:
    """Returns the median processor time of a run."""
    return f"{np.median([row['cpu_seconds'] for row in rows]):.1f}"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(make_page(), encoding="utf-8")
    print(PAGE)
