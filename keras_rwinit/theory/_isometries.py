"""Draws uniformly random isometries, many at a time, each of the values that it has when drawn alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._blas_threads import SINGLE_BLAS_THREAD

__all__ = ["draw_entries", "draw_isometries"]

Array: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, int, int], Array]


def draw_entries(draw: Draw, generators: Sequence[np.random.Generator], rows: int, columns: int) -> Array:
    """Returns a matrix of independent entries from each generator, shape (generators, rows, columns)."""
    first = np.asarray(draw(generators[0], rows, columns))[None]
    if len(generators) == 1:
        return first  # which may be large: not copied
    entries = np.empty((len(generators), rows, columns), first.dtype)
    entries[0] = first[0]
    for index, generator in enumerate(generators[1:], start=1):
        entries[index] = draw(generator, rows, columns)
    return entries


def draw_isometries(
    draw: Draw, generators: Sequence[np.random.Generator], fan_in: int, fan_out: int
) -> Array:
    """Returns an isometry from the normal entries of each generator, shape (generators, fan_in, fan_out).

    The columns are orthonormal if `fan_out <= fan_in`; otherwise the rows are orthogonal, of length
    `sqrt(fan_out / fan_in)`.
    """
    tall = draw_entries(draw, generators, max(fan_in, fan_out), min(fan_in, fan_out))
    # NumPy factorizes one matrix after the other, and lets other threads run meanwhile.
    with SINGLE_BLAS_THREAD:
        q, r = np.linalg.qr(tall)
    # QR determines the columns only up to sign. A positive diagonal of R makes Q uniform (Mezzadri,
    # arXiv:math-ph/0609050).
    q *= np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)[:, None, :]
    return q if fan_out <= fan_in else q.transpose(0, 2, 1) * np.sqrt(fan_out / fan_in)
