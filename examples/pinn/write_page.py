"""Writes docs/studies/pinn.md: fills the marks of page.md with the tables and numbers of the results.

python examples/pinn/write_page.py
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from _comparison import WIDTH, Row, distinct, fill_marks, markdown_table, read, select
from _forms import LABELS
from _problems import PROBLEMS as PROBLEMS_BY_NAME

from keras_rwinit import theory

RESULTS = Path(__file__).parent / "results"
TEMPLATE = Path(__file__).parent / "page.md"
PAGE = Path(__file__).parents[2] / "docs" / "studies" / "pinn.md"
PROBLEMS = ("poisson", "burgers", "allen_cahn")
# Mean square of a residual that counts as solved, and of one that does not
SOLVED, UNSOLVED = 0.01, 1.0
COLUMNS = (
    "network",
    "rate",
    "scale",
    "error after Adam",
    "error after L-BFGS",
    "lowest to highest",
    "test loss",
)


def make_page() -> str:
    """Returns the page: the template with its marks filled."""
    values = {name: text for problem in PROBLEMS for name, text in problem_values(problem).items()}
    values |= {name: text for depth in (4, 20, 40) for name, text in theory_values(depth).items()}
    template = TEMPLATE.read_text(encoding="utf-8")
    return fill_marks(template, values)


def problem_values(problem: str) -> dict[str, str]:
    """Returns the text of every mark of a problem: tables, medians, and how it was run."""
    rows = read(RESULTS / problem / "results.csv")
    searched, results = select(rows, seed=0), [row for row in rows if row["seed"] != 0]
    first = results[0]
    values = {
        f"{problem}.points": f"{first['points']:,}",
        f"{problem}.steps": f"{first['steps']:,}",
        f"{problem}.iterations": f"{first['iterations']:,}",
        f"{problem}.search_iterations": f"{searched[0]['iterations']:,}",
        f"{problem}.machine": "; ".join(str(machine) for machine in distinct(rows, "machine")),
        f"{problem}.minutes": f"{sum(row['seconds'] for row in rows) / 60:.0f}",
        f"{problem}.runs": str(len(rows)),
    }
    for depth in distinct(results, "depth"):
        of_depth = select(results, depth=depth)
        names = sorted(distinct(of_depth, "network"), key=functools.partial(_error, of_depth))
        values[f"{problem}.{depth}.table"] = markdown_table(
            COLUMNS, [line(select(of_depth, network=n)) for n in names]
        )
        values[f"{problem}.{depth}.seeds"] = str(len(distinct(of_depth, "seed")))
        values |= {f"{problem}.{depth}.{name}": text for name, text in false_solutions(of_depth).items()}
        for name in names:
            chosen = select(of_depth, network=name)
            values[f"{problem}.{depth}.{name}.seeds"] = str(len(chosen))
            for column in ("adam_error", "error", "loss", "test_loss"):
                values[f"{problem}.{depth}.{name}.{column}"] = short(median(chosen, column))
    return values


def false_solutions(rows: list[Row]) -> dict[str, str]:
    """Returns the number of runs, and number, errors and networks of those solved at the points alone."""
    false = [row for row in rows if row["loss"] < SOLVED and row["test_loss"] > UNSOLVED]
    errors = [row["error"] for row in false]
    return {
        "runs": str(len(rows)),
        "false": str(len(false)),
        "false.lowest": f"{min(errors):.2f}" if false else "",
        "false.highest": f"{max(errors):.2f}" if false else "",
        "false.networks": "; ".join(
            f"{LABELS[name]} ({len(select(false, network=name))})" for name in distinct(false, "network")
        ),
    }


def _error(rows: list[Row], network: object) -> float:
    return median(select(rows, network=network), "error")


def theory_values(depth: int) -> dict[str, str]:
    """Returns the predicted sizes of the derivatives of networks for Poisson's equation."""
    gain = theory.gain("tanh", WIDTH, depth, distribution="orthogonal")
    first = theory.input_gain("tanh", depth, gain, PROBLEMS_BY_NAME["poisson"].frequency)
    plain = [theory.predict_derivatives("tanh", depth, gain, input_gain=1.0, point=(x,)) for x in (0.0, 1.0)]
    sines = theory.predict_derivatives(
        "tanh", depth, gain, input_activation="sin", input_gain=first, input_bias_stddev=np.pi
    )
    return {
        f"theory.{depth}.gain": f"{gain:.3f}",
        f"theory.{depth}.input_gain": f"{first:.2f}",
        f"theory.{depth}.first_at_0": f"{plain[0].first[-1]:.3g}",
        f"theory.{depth}.first_at_1": f"{plain[1].first[-1]:.2g}",
        f"theory.{depth}.sines": (f"{sines.value[-1]:.2f}, {sines.first[-1]:.1f} and {sines.second[-1]:.0f}"),
    }


def line(rows: list[Row]) -> list[str]:
    """Returns the cells of one network."""
    errors = [row["error"] for row in rows]
    return [
        LABELS[rows[0]["network"]],
        f"{rows[0]['rate']:g}",
        f"{rows[0]['input_scale']:g}",
        short(median(rows, "adam_error")),
        short(median(rows, "error")),
        f"{short(min(errors))} to {short(max(errors))}",
        short(median(rows, "test_loss")),
    ]


def median(rows: list[Row], column: str) -> float:
    """Returns the median over the seeds; infinite if most diverged."""
    values = np.array([row[column] for row in rows], float)
    return float(np.median(np.where(np.isfinite(values), values, np.inf)))


def short(value: float) -> str:
    """Returns two digits of a number."""
    return f"{value:.1e}"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(make_page(), encoding="utf-8")
    print(PAGE)
