"""The laws a kernel's entries may follow, and how a kernel is drawn from each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

__all__ = ["DISTRIBUTIONS", "Distribution", "draw_kernel", "resolve_distribution"]

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Array]

_CUT = 2.0  # standard deviations of the parent normal, as in Keras
_CUT_NORMAL = stats.truncnorm(-_CUT, _CUT)


@dataclass(frozen=True)
class Distribution:
    """What theory and initializers need to know of a law.

    Args:
        name: The id users write.
        draw: `(generator, rows, columns) -> array` of independent entries of mean 0 and variance 1;
            for the orthogonal law of standard normal ones, which `draw_kernel` orthogonalizes.
        excess_kurtosis: Fourth standardized moment less 3, of one entry (0 for the normal law).
        orthogonal: True: a uniformly random isometry. False: independent entries.
    """

    name: str
    draw: Draw
    excess_kurtosis: float = 0.0
    orthogonal: bool = False


def _normal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    return rng.standard_normal((rows, columns))


def _uniform(rng: np.random.Generator, rows: int, columns: int) -> Array:
    return rng.uniform(-np.sqrt(3.0), np.sqrt(3.0), (rows, columns))


def _truncated_normal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    probability = rng.uniform(special.ndtr(-_CUT), special.ndtr(_CUT), (rows, columns))
    return np.asarray(special.ndtri(probability) / _CUT_NORMAL.std())


DISTRIBUTIONS: dict[str, Distribution] = {
    law.name: law
    for law in (
        Distribution("normal", _normal),
        Distribution("truncated_normal", _truncated_normal, float(_CUT_NORMAL.stats("k"))),
        Distribution("uniform", _uniform, -1.2),
        Distribution("orthogonal", _normal, orthogonal=True),
    )
}


def resolve_distribution(name: str) -> Distribution:
    """Returns the law called `name`; ValueError lists the names."""
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
    # QR fixes the columns only up to sign; taking R's diagonal positive makes Q uniform.
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return q if fan_out <= fan_in else q.T * np.sqrt(fan_out / fan_in)
