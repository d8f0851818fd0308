"""The distributions that a kernel's entries may follow, and how a kernel is drawn from each.

To add a distribution, add one entry to `DISTRIBUTIONS`: gain, prediction, simulation, initializers and
commands then take its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["DISTRIBUTIONS", "Distribution", "Structure", "draw_kernel", "resolve_distribution"]

Array: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, int, int], Array]
Structure: TypeAlias = Literal["gaussian", "independent", "orthogonal"]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """All that theory and initializers need to know about a distribution. No field has a default.

    Args:
        name: The name that users write.
        draw: `(generator, rows, columns) -> array` of independent entries of mean 0 and variance 1.
        structure: How the entries of a kernel depend on each other. `"gaussian"`: independent normal
            entries. `"independent"`: independent entries of any other distribution. `"orthogonal"`: a
            uniformly random isometry, made of the normal entries that `draw` gives. The simulation has a
            formula without matrices for the first and the last, and draws matrices for the second.
        excess_kurtosis: Fourth standardized moment less 3 of the entries that `draw` gives.
    """

    name: str
    draw: Draw
    structure: Structure
    excess_kurtosis: float

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
    return np.asarray(special.ndtri(probability) / np.sqrt(_CUT_VARIANCE))


DISTRIBUTIONS: dict[str, Distribution] = {
    law.name: law
    for law in (
        Distribution(name="normal", draw=_normal, structure="gaussian", excess_kurtosis=0.0),
        Distribution(
            name="truncated_normal",
            draw=_truncated_normal,
            structure="independent",
            excess_kurtosis=_CUT_EXCESS_KURTOSIS,
        ),
        Distribution(name="uniform", draw=_uniform, structure="independent", excess_kurtosis=-1.2),
        Distribution(name="orthogonal", draw=_normal, structure="orthogonal", excess_kurtosis=0.0),
    )
}
"""Every distribution by its name."""


def resolve_distribution(name: str) -> Distribution:
    """Returns the distribution called `name`; ValueError lists the names."""
    law = DISTRIBUTIONS.get(name) if isinstance(name, str) else None
    if law is None:
        raise ValueError(f"`distribution` must be one of {', '.join(DISTRIBUTIONS)}. Received: {name!r}")
    return law


def draw_kernel(law: Distribution, rng: np.random.Generator, fan_in: int, fan_out: int) -> Array:
    """Draws a kernel of shape (fan_in, fan_out), entries of mean 0 and variance `1 / fan_in`.

    An orthogonal kernel has orthonormal columns if `fan_out <= fan_in`, so that it keeps the length of
    the gradient, and otherwise orthogonal rows of length `sqrt(fan_out / fan_in)`, so that it keeps the
    root mean square of the activations. Square ones are uniformly (Haar) distributed.
    """
    if not law.orthogonal:
        return law.draw(rng, fan_in, fan_out) / np.sqrt(fan_in)
    tall = law.draw(rng, max(fan_in, fan_out), min(fan_in, fan_out))
    q, r = np.linalg.qr(tall)
    # QR determines the columns only up to sign. A positive diagonal of R makes Q uniform (Mezzadri,
    # arXiv:math-ph/0609050).
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return q if fan_out <= fan_in else q.T * np.sqrt(fan_out / fan_in)
