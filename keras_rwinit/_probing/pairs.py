"""Reads off a batch's signals how alike different examples are: mean correlation and effective rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .norms import Array, Floats

__all__ = ["MOST_RANKED", "centered_ranks", "gram_matrices", "mean_correlations"]

MOST_RANKED = 32
"""Examples of which the effective rank is taken, whose cost grows with their cube."""

_ROUNDING = 1e-13  # of a sum of squares: that of float32, whose numbers are off by 6e-8, and some
_COLUMNS = 2**16  # of a batch that are converted to float64 at a time


def mean_correlations(vectors: Floats, log_norms: Array) -> Array:
    """Returns the mean cosine of the angle between two different rows of each layer; nan for fewer than two.

    With unit vectors u_i of n rows, it is `(|sum_i u_i|^2 - n) / (n (n - 1))`, without a matrix of pairs.

    Args:
        vectors: A row for each example, shape (layers, examples, numbers).
        log_norms: ln of the norms of the rows, shape (layers, examples). Rows without a finite one are left
            out.
    """
    kept, alive = _without_dead(vectors, log_norms)
    count = alive.sum(axis=1, dtype=np.float64)
    # Norms may lie beyond the ends of float64, and fewer than two rows have no pair.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        weights = np.where(alive, np.exp(-log_norms), 0.0)
        total = np.einsum("li,lij->lj", weights, kept, dtype=np.float64)
        mean = (np.einsum("lj,lj->l", total, total) - count) / (count * (count - 1.0))
    return np.where(count < 2.0, np.nan, np.clip(mean, -1.0, 1.0))


def gram_matrices(vectors: Floats, log_norms: Array) -> Array:
    """Returns the inner products of at most `MOST_RANKED` rows, in units of the longest row's square.

    Of more rows they are those of as many, spread evenly over the batch.
    Rows without a finite norm have products of zero.

    Args:
        vectors: A row for each example, shape (layers, examples, numbers).
        log_norms: ln of the norms of the rows, shape (layers, examples).
    """
    if vectors.shape[1] > MOST_RANKED:
        spread = np.linspace(0, vectors.shape[1] - 1, MOST_RANKED).round().astype(int)
        vectors, log_norms = vectors[:, spread], log_norms[:, spread]
    kept, alive = _without_dead(vectors, log_norms)
    longest = np.where(alive, log_norms, -np.inf).max(axis=1)
    # Twice, so that it stays within float64
    scale = np.exp(np.where(np.isfinite(longest), longest, 0.0) / -2.0)[:, None, None]
    wide = kept.dtype == np.float64  # products of float32 numbers stay within float64
    gram = np.zeros((len(vectors), *[vectors.shape[1]] * 2))
    for start in range(0, kept.shape[2], _COLUMNS):
        part = kept[:, :, start : start + _COLUMNS].astype(np.float64)
        if wide:
            part = part * scale * scale
        gram += part @ part.transpose(0, 2, 1)
    return gram if wide else gram * scale**2 * scale**2


def _without_dead(vectors: Floats, log_norms: Array) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns the vectors with zeros in place of rows without a finite norm, and which rows have one."""
    alive = np.isfinite(log_norms)
    return vectors if alive.all() else np.where(alive[..., None], vectors, vectors.dtype.type(0.0)), alive


def centered_ranks(grams: Array) -> Array:
    """Returns the effective rank of batches less their means, by their Gram matrices.

    The eigenvalues of a Gram matrix are the squares of the batch's singular values, of which
    `theory.ranks.effective_rank` takes the entropy. Rows that the Gram matrix has as zero are left out. The
    result is nan where the rows do not differ by more than float32 tells.

    Args:
        grams: Shape (layers, examples, examples).
    """
    lengths = np.einsum("lii->li", grams)
    alive = (lengths > 0.0).astype(np.float64)
    count = np.maximum(alive.sum(axis=1), 1.0)
    # J G J with J = 1 - (mean over the rows that are alive)
    row_means = (grams @ alive[:, :, None])[:, :, 0] / count[:, None]
    mean = (row_means * alive).sum(axis=1) / count
    centered = grams - row_means[:, :, None] - row_means[:, None, :] + mean[:, None, None]
    centered *= alive[:, :, None] * alive[:, None, :]
    left = np.einsum("lii->l", centered)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(grams).all(axis=(1, 2)) & (left > _ROUNDING * lengths.sum(axis=1))
    ranks = np.full(len(grams), np.nan)
    if known.any():
        values = np.sqrt(np.maximum(np.linalg.eigvalsh(centered[known]), 0.0))
        share = values / values.sum(axis=1, keepdims=True)
        terms = share * np.log(np.where(share > 0.0, share, 1.0))
        ranks[known] = np.exp(-terms.sum(axis=1))
    return ranks
