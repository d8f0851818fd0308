"""The report of `initialize`: the kernels it drew, the weights it left, the drift before and after."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keras_rwinit._summary import Summarized

from ._factors import DEGREE_TWO
from ._initialized_kernel import InitializedKernel

__all__ = ["BiasCount", "InitializationReport"]

_DEGREE_TWO_ADVICE = (
    "No scale holds both signal and gradient through a product of degree two, such as SwiGLU, GEGLU or a "
    "bilinear gate: a deviation of ln RMS doubles at each one, and where the signal is held, the gradient "
    "grows by ln(2) / 2 nats towards the input. Put a normalization before the product, which holds the "
    "signal, and a shortcut around it, which holds the gradient.\n"
)


class BiasCount(NamedTuple):
    """Trainable biases of a model.

    Args:
        total: Number of bias weights.
        nonzero: Number of those that have an entry other than zero.
    """

    total: int
    nonzero: int


@dataclasses.dataclass(frozen=True)
class InitializationReport(Summarized):
    """What `initialize` did; `print` it for a table.

    Args:
        kernels: The kernels that were drawn, in the order in which the model applies them.
        skipped: Path of every other weight, and why it was left as it was.
        drift: Mean step of `ln|delta|` towards the input over the links between kernels that follow each
            other directly, in nats per layer, minus the step that a kernel's share of a sum requires;
            measured after the calibration. None without data, or where there is no such link.
        drift_before: The same before the calibration.
        biases: The model's trainable biases, which were left as they were.

    Example:
        >>> from keras_rwinit import initialize, model_zoo
        >>> model = model_zoo.deep_mlp(depth=1, width=8, input_shape=(4,))
        >>> report = initialize(model, seed=0)
        >>> len(report.kernels), report.skipped[0], report.drift
        (2, ('hidden_1/bias', 'a bias'), None)
        >>> print(report.summary().splitlines()[0])
        2 kernels drawn, 2 other weights left as they were
    """

    kernels: tuple[InitializedKernel, ...]
    skipped: tuple[tuple[str, str], ...]
    drift: float | None = None
    drift_before: float | None = None
    biases: BiasCount = dataclasses.field(default_factory=lambda: BiasCount(0, 0))

    def to_dict(self) -> dict[str, object]:
        """Returns the report as dictionaries, tuples, strings and numbers."""
        return dataclasses.asdict(self)

    def summary(self) -> str:
        """Returns a table of the drawn kernels, the number of other weights by reason, and the drift.

        Kernels that follow each other and differ in nothing but their names are one row, with the first
        name, the last one and their number.
        """
        table = Table()
        for column in ("weight", "shape", "fed by", "distribution", "gain", "why"):
            table.add_column(column, justify="right" if column == "gain" else "left")
        for texts, run in itertools.groupby(self.kernels, _texts):
            table.add_row(escape(_name_run(list(run))), *map(escape, texts))
        text = io.StringIO()
        # In Jupyter rich would show the table instead of writing it.
        Console(file=text, width=120, force_jupyter=False).print(table)
        drawn = sum(kernel.count for kernel in self.kernels)
        lines = [
            f"{drawn:,} kernels drawn, {len(self.skipped):,} other weights left as they were",
            text.getvalue(),
        ]
        reasons = Counter(why for _, why in self.skipped)
        lines += [f"{count:,} left: {why}\n" for why, count in reasons.items()]
        if any(DEGREE_TWO in kernel.why for kernel in self.kernels):
            lines.append(_DEGREE_TWO_ADVICE)
        if self.biases.nonzero:
            lines.append(
                f"{self.biases.nonzero:,} of {self.biases.total:,} biases are not zero, as of a trained "
                "model; set them to zero for a new start\n"
            )
        if self.drift is not None:
            lines.append(f"drift {self.drift_before:+.4f}, calibrated {self.drift:+.4f} nats per layer\n")
        return "\n".join(lines)


def _texts(kernel: InitializedKernel) -> tuple[str, ...]:
    """Returns what the table says of a kernel besides its name."""
    shape = " x ".join(map(str, kernel.shape))
    return shape, kernel.activation, kernel.distribution, f"{kernel.gain:.4f}", kernel.why


def _name_run(kernels: Sequence[InitializedKernel]) -> str:
    """Returns the names of the first and the last of several kernels, and their number."""
    first, last = kernels[0].path, kernels[-1].path
    if len(kernels) == 1:
        return first
    return f"{first} ... {last} ({sum(kernel.count for kernel in kernels):,})"
