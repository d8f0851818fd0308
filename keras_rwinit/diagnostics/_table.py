"""Prints the layers of a measured walk as a table of text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["LayerRow", "format_table"]

_MOST_ROWS = 24
_LONGEST_NAME = 32
_WIDTH = 132  # holds all columns beside such a name

_LEGEND = """\
ln|δ| rel.  log-norm of the gradient at the pre-activations, relative to the last layer, in nats
predicted   the same in theory, and its standard deviation over networks, in nats
ln|h|       log-norm of the layer's output, in nats
ln|∂W|      log-norm of the gradient of the layer's kernel, in nats
dead        share of the units that are dead or saturated for every example
"""
_PAIRS_LEGEND = """\
cos h       mean cosine of two examples' outputs; 1: they are parallel
cos δ       mean cosine of two examples' gradients
rank        effective rank: the number of directions in which the examples' outputs differ
"""


class LayerRow(NamedTuple):
    """A row of the table: one layer.

    Args:
        name: Name of the layer.
        relative: Mean of `ln(|delta| / |delta_last|)` over the examples, in nats.
        predicted: Predicted mean and standard deviation of the same; None where there is none.
        forward: Mean of `ln|h|`.
        weight_gradient: ln of the norm of the kernel's gradient.
        dead: Share of dead or saturated units.
        correlation: Mean correlation of different examples' outputs; None where it was not measured.
        gradient_correlation: The same of their gradients.
        effective_rank: Effective rank of the outputs.
    """

    name: str
    relative: float
    predicted: tuple[float, float] | None
    forward: float
    weight_gradient: float
    dead: float
    correlation: float | None = None
    gradient_correlation: float | None = None
    effective_rank: float | None = None


def format_table(rows: Sequence[LayerRow], named: Sequence[int] = ()) -> str:
    """Returns a table of two dozen of the layers, and lines that say what it leaves out and means.

    Args:
        rows: A row for each layer.
        named: Layers that are in the table beside those that are evenly spaced, from 0.
    """
    count = len(rows)
    table = Table()
    columns = ["", "layer", "ln|δ| rel.", "predicted", "ln|h|", "ln|∂W|", "dead"]
    has_pairs = any(row.correlation is not None for row in rows)
    if has_pairs:
        columns += ["cos h", "cos δ", "rank"]
    for column in columns:
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
    spaced = np.linspace(0, count - 1, min(count, _MOST_ROWS)).round().astype(int)
    shown = np.unique([*spaced, *named])
    for layer in shown:
        row = rows[layer]
        table.add_row(
            str(layer + 1),
            Text(_shorten(row.name)),  # a name with brackets is no markup
            f"{row.relative:.2f}",
            "-" if row.predicted is None else f"{row.predicted[0]:.2f} ± {row.predicted[1]:.2f}",
            f"{row.forward:.2f}",
            f"{row.weight_gradient:.2f}",
            f"{row.dead:.0%}",
            *(_pairs(row) if has_pairs else ()),
        )
    text = io.StringIO()
    # In Jupyter rich would show the table instead of writing it.
    Console(file=text, width=_WIDTH, force_jupyter=False).print(table)
    if len(shown) < count:
        left_out = count - len(shown)
        text.write(f"{len(shown)} of {count:,} layers shown, evenly spaced; {left_out:,} left out\n")
    text.write(_LEGEND + (_PAIRS_LEGEND if has_pairs else ""))
    return text.getvalue()


def _shorten(name: str) -> str:
    """Returns a name without its middle if it is long: layers of one model differ at the ends."""
    if len(name) <= _LONGEST_NAME:
        return name
    end = 2 * _LONGEST_NAME // 3
    return f"{name[: _LONGEST_NAME - end - 1]}…{name[-end:]}"


def _pairs(row: LayerRow) -> tuple[str, str, str]:
    """Returns the cells of the examples' pairs; "-" where they have no number."""
    numbers = ((row.correlation, ".4f"), (row.gradient_correlation, ".3f"), (row.effective_rank, ".1f"))
    one, two, three = (
        "-" if number is None or np.isnan(number) else format(number, form) for number, form in numbers
    )
    return one, two, three
