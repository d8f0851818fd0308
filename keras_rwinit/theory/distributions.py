"""The distributions that a kernel's entries may follow, and how a kernel is drawn from each.

To add a distribution, add one entry to `DISTRIBUTIONS`: gain, prediction, simulation, initializers and
commands then take its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special

from keras_rwinit._checks import did_you_mean

from ._isometries import draw_entries, draw_isometries

__all__ = [
    "DISTRIBUTIONS",
    "Distribution",
    "MirroredSide",
    "Pairs",
    "Structure",
    "check_mirrored_side",
    "draw_kernel",
    "draw_kernels",
    "draw_pairs",
    "halves",
    "resolve_distribution",
]

Array: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, int, int], Array]
Structure: TypeAlias = Literal["gaussian", "independent", "orthogonal", "mirrored"]

MirroredSide: TypeAlias = Literal["both", "inputs", "outputs"]
"""Which units of a mirrored kernel come in pairs: neither the data nor the network's outputs do."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """All that theory and initializers need to know about a distribution.

    Args:
        name: The name that users write.
        draw: `(generator, rows, columns) -> array` of independent entries of mean 0 and variance 1.
        structure: How the entries of a kernel depend on each other. `"gaussian"`: independent normal
            entries. `"independent"`: independent entries of any other distribution. `"orthogonal"`: a
            uniformly random isometry, made of the normal entries that `draw` gives. `"mirrored"`: blocks
            `[[M, -M], [-M, M]]` of one such isometry. The simulation draws matrices for the second, and has
            a formula without matrices for each of the others.
        excess_kurtosis: Fourth standardized moment less 3 of the entries that `draw` gives.
        centered: Whether the kernel of a convolution is zero everywhere but at its center, where it is a
            matrix of this structure from channels to channels. The fan-in is then the number of channels.
    """

    name: str
    draw: Draw
    structure: Structure
    excess_kurtosis: float
    centered: bool = False

    def __post_init__(self) -> None:
        if self.structure not in get_args(Structure):
            raise ValueError(
                f"`structure` must be one of {', '.join(get_args(Structure))}. Received: {self.structure!r}"
            )
        if self.structure != "independent" and self.excess_kurtosis != 0.0:
            raise ValueError(
                f"A distribution of structure {self.structure!r} has normal entries, of excess kurtosis 0; "
                "use 'independent' for all others. "
                f"Received: excess_kurtosis={self.excess_kurtosis!r}"
            )

    @property
    def orthogonal(self) -> bool:
        """Whether kernels are isometries, whose entries depend on each other."""
        return self.structure == "orthogonal"

    @property
    def mirrored(self) -> bool:
        """Whether units come in pairs with opposite pre-activations."""
        return self.structure == "mirrored"


def _normal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    return rng.standard_normal((rows, columns))


def _uniform(rng: np.random.Generator, rows: int, columns: int) -> Array:
    return rng.uniform(-np.sqrt(3.0), np.sqrt(3.0), (rows, columns))


_CUT = 2.0  # standard deviations of the parent normal, as in Keras


def _truncated_normal_moments(cut: float) -> tuple[float, float]:
    """Returns variance and excess kurtosis of a standard normal variable given that it is within +-cut.

    Integration by parts gives `E x^2 = 1 - cut r` and `E x^4 = 3 - (cut^3 + 3 cut) r`, with
    `r = 2 pdf(cut) / P(|x| < cut)`. scipy.stats has the same numbers, and takes a second to import.
    """
    ratio = 2.0 * np.exp(-cut * cut / 2.0) / np.sqrt(2.0 * np.pi) / special.erf(cut / np.sqrt(2.0))
    variance = 1.0 - cut * ratio
    fourth = 3.0 - (cut**3 + 3.0 * cut) * ratio
    return float(variance), float(fourth / variance**2 - 3.0)


_CUT_VARIANCE, _CUT_EXCESS_KURTOSIS = _truncated_normal_moments(_CUT)


def _truncated_normal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    probability = rng.uniform(special.ndtr(-_CUT), special.ndtr(_CUT), (rows, columns))
    special.ndtri(probability, out=probability)
    probability /= np.sqrt(_CUT_VARIANCE)
    return probability


DISTRIBUTIONS: dict[str, Distribution] = {
    distribution.name: distribution
    for distribution in (
        Distribution(name="normal", draw=_normal, structure="gaussian", excess_kurtosis=0.0),
        Distribution(
            name="truncated_normal",
            draw=_truncated_normal,
            structure="independent",
            excess_kurtosis=_CUT_EXCESS_KURTOSIS,
        ),
        Distribution(name="uniform", draw=_uniform, structure="independent", excess_kurtosis=-1.2),
        Distribution(name="orthogonal", draw=_normal, structure="orthogonal", excess_kurtosis=0.0),
        Distribution(
            name="delta_orthogonal", draw=_normal, structure="orthogonal", excess_kurtosis=0.0, centered=True
        ),
        Distribution(
            name="looks_linear", draw=_normal, structure="mirrored", excess_kurtosis=0.0, centered=True
        ),
    )
}
"""Every distribution by its name."""


def resolve_distribution(name: str) -> Distribution:
    """Returns the distribution called `name`; ValueError lists the names."""
    distribution = DISTRIBUTIONS.get(name) if isinstance(name, str) else None
    if distribution is None:
        raise ValueError(
            f"`distribution` must be one of {', '.join(DISTRIBUTIONS)}. Received: {name!r}"
            f"{did_you_mean(name, DISTRIBUTIONS)}"
        )
    return distribution


def check_mirrored_side(side: MirroredSide, distribution: Distribution) -> MirroredSide:
    """Returns `side`; ValueError unless it is a side, and "both" where a distribution mirrors nothing."""
    if side not in get_args(MirroredSide):
        raise ValueError(f"`mirrored` must be one of {', '.join(get_args(MirroredSide))}. Received: {side!r}")
    if side != "both" and not distribution.mirrored:
        raise ValueError(
            "`mirrored` is for distributions of mirrored kernels, such as 'looks_linear'. "
            f"Received: mirrored={side!r} with distribution={distribution.name!r}"
        )
    return side


def draw_kernel(
    distribution: Distribution,
    rng: np.random.Generator,
    fan_in: int,
    fan_out: int,
    *,
    mirrored: MirroredSide = "both",
) -> Array:
    """Draws a kernel of shape (fan_in, fan_out), entries of mean 0 and variance `1 / fan_in`.

    An orthogonal kernel has orthonormal columns if `fan_out <= fan_in`, so that it keeps the length of
    the gradient, and otherwise orthogonal rows of length `sqrt(fan_out / fan_in)`, so that it keeps the
    root mean square of the activations. Square ones are uniformly (Haar) distributed.

    A mirrored kernel is made of such a matrix M for half of the units: `[[M, -M], [-M, M]]`, or `[M, -M]` if
    only its outputs are `mirrored`, or `[M; -M]` if only its inputs are. Scaled by `mirrored_gain`, the first
    is the kernel of equation (mirrored) of the theory page, up to the sign of c.
    """
    return draw_kernels(distribution, [rng], fan_in, fan_out, mirrored=mirrored)[0]


def draw_kernels(
    distribution: Distribution,
    generators: Sequence[np.random.Generator],
    fan_in: int,
    fan_out: int,
    *,
    mirrored: MirroredSide = "both",
) -> Array:
    """Draws the kernel that `draw_kernel` draws from each generator, shape (generators, fan_in, fan_out)."""
    if distribution.mirrored:
        return _draw_mirrored(distribution, generators, fan_in, fan_out, mirrored)
    if distribution.orthogonal:
        return draw_isometries(distribution.draw, generators, fan_in, fan_out)
    return draw_entries(distribution.draw, generators, fan_in, fan_out) / np.sqrt(fan_in)


class Pairs(NamedTuple):
    """Units of a layer in pairs with opposite pre-activations.

    Args:
        plus, minus: Indices of the two units of each pair.
        size: Number of units, those without a partner included.
    """

    plus: NDArray[np.intp]
    minus: NDArray[np.intp]
    size: int

    @property
    def singles(self) -> NDArray[np.intp]:
        """Indices of the units without a partner."""
        single = np.ones(self.size, bool)
        single[self.plus] = single[self.minus] = False
        return np.flatnonzero(single)


def halves(size: int) -> Pairs:
    """Returns pairs of a unit in the first half and its partner in the second; the last may have none."""
    plus = np.arange(size // 2)
    return Pairs(plus, plus + size // 2, size)


def draw_pairs(generators: Sequence[np.random.Generator], rows: int | Pairs, columns: int | Pairs) -> Array:
    """Draws mirrored kernels, whose units come in pairs at the inputs, at the outputs, or at both.

    With M an isometry from pairs to pairs (or from and to units), the units plus and minus of an output pair
    get M and -M, and those of an input pair `1 / sqrt(2)` and `-1 / sqrt(2)` of them. Each generator gives
    one kernel, along the first axis.
    """
    inputs = rows if isinstance(rows, int) else len(rows.plus)
    outputs = columns if isinstance(columns, int) else len(columns.plus)
    kernels = draw_isometries(DISTRIBUTIONS["orthogonal"].draw, generators, inputs, outputs)
    if not isinstance(rows, int):
        kernels = kernels / np.sqrt(2.0)
    if not isinstance(columns, int):
        paired = np.empty((len(kernels), inputs, columns.size))
        paired[..., _as_index(columns.plus)] = kernels
        paired[..., _as_index(columns.minus)] = -kernels
        # A unit without a partner reads what another one reads, and nothing reads it when training starts.
        singles = columns.singles
        paired[..., singles] = kernels[..., np.arange(len(singles)) % outputs]
        kernels = paired
    if not isinstance(rows, int):
        paired = np.zeros((len(kernels), rows.size, kernels.shape[2]))
        paired[:, _as_index(rows.plus)] = kernels
        paired[:, _as_index(rows.minus)] = -kernels
        kernels = paired
    return kernels


def _as_index(units: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Returns units that follow one another as a slice, by which NumPy copies several times as fast."""
    if len(units) and np.array_equal(units, np.arange(units[0], units[0] + len(units))):
        return slice(int(units[0]), int(units[0]) + len(units))
    return units


def _draw_mirrored(
    distribution: Distribution,
    generators: Sequence[np.random.Generator],
    fan_in: int,
    fan_out: int,
    mirrored: MirroredSide,
) -> Array:
    if (fan_in < 2 and mirrored != "outputs") or (fan_out < 2 and mirrored != "inputs"):
        raise ValueError(
            f"distribution {distribution.name!r} pairs units and needs at least two of them. "
            f"Received: a kernel of shape {(fan_in, fan_out)}"
        )
    rows = fan_in if mirrored == "outputs" else halves(fan_in)
    return draw_pairs(generators, rows, fan_out if mirrored == "inputs" else halves(fan_out))
