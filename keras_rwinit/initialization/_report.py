"""The report of `initialize`: the kernels it drew, the weights it left, the drift before and after."""

from __future__ import annotations

import dataclasses
import io

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["InitializationReport", "InitializedKernel"]


@dataclasses.dataclass(frozen=True)
class InitializedKernel:
    """One kernel that `initialize` drew; a `DenseStack`'s stands for all its layers.

    Args:
        path: Path of the weight, as Keras calls it.
        shape: Shape of the weight.
        fan_in: Inputs that an output unit sums over; their mean number in a strided transposed convolution.
        activation: Name of the activation that feeds it.
        gain: Gain of the kernel: its entries have variance `gain**2 / fan_in`.
        correction: Factor of `gain` that the calibration with data put there; 1 without data.
        why: How the gain was found.
    """

    path: str
    shape: tuple[int, ...]
    fan_in: float
    activation: str
    gain: float
    correction: float
    why: str


@dataclasses.dataclass(frozen=True)
class InitializationReport:
    """What `initialize` did; `print` it for a table.

    Args:
        kernels: The kernels that were drawn, in the order in which the model applies them.
        skipped: Path of every other weight of two or more axes, and why it was left as it was.
        drift: Mean step of `ln|delta|` towards the input over the links between kernels that follow each
            other directly, in nats per layer, minus the step that a kernel's share of a sum requires;
            measured after the calibration. None without data, or where there is no such link.
        drift_before: The same before the calibration.
    """

    kernels: tuple[InitializedKernel, ...]
    skipped: tuple[tuple[str, str], ...]
    drift: float | None = None
    drift_before: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Returns the report as dictionaries, tuples, strings and numbers."""
        return dataclasses.asdict(self)

    def summary(self) -> str:
        """Returns a table as text, a row for each weight, and the drift where it was measured."""
        table = Table()
        for column in ("weight", "shape", "fed by", "gain", "why"):
            table.add_column(column, justify="right" if column == "gain" else "left")
        for kernel in self.kernels:
            shape = " x ".join(map(str, kernel.shape))
            table.add_row(escape(kernel.path), shape, kernel.activation, f"{kernel.gain:.4f}", kernel.why)
        for path, why in self.skipped:
            table.add_row(escape(path), "", "", "-", why)
        text = io.StringIO()
        Console(file=text, width=120).print(table)
        lines = [
            f"{len(self.kernels):,} kernels drawn, {len(self.skipped):,} weights skipped",
            text.getvalue(),
        ]
        if self.drift is not None:
            lines.append(f"drift {self.drift_before:+.4f}, calibrated {self.drift:+.4f} nats per layer\n")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()
