"""The effective rank of a batch: how many directions its examples take."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_rwinit._checks import check_real

__all__ = ["effective_rank"]


def effective_rank(batch: ArrayLike) -> float:
    r"""Returns the exponential of the entropy of the singular values of a matrix of examples.

    With `p_i = s_i / sum_j s_j` for the singular values s of the matrix, which has one example in a row and
    is not centered,

        effective rank = exp(-sum_i p_i ln p_i).

    This is equation (rank) of the theory page. The effective rank is 1 where all examples are parallel. It is
    at most the smaller one of the numbers of examples and features, where all directions are equally long. It
    does not depend on the scale of the batch.

    Args:
        batch: Examples, of shape (examples, ...); features of several axes are flattened. At least one number
            is not zero.

    Returns:
        A number from 1 to the rank.

    Raises:
        ValueError: The batch is empty, not real, not finite or zero, or has no axis of examples.

    Example:
        >>> round(effective_rank([[1.0, 0.0], [0.0, 1.0]]), 6)
        2.0
        >>> round(effective_rank([[1.0, 2.0], [2.0, 4.0]]), 6)
        1.0

    References:
        Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.
    """
    examples = check_real("batch", batch).astype(np.float64)
    largest = float(np.abs(examples).max())
    if examples.ndim == 0 or largest == 0.0:
        raise ValueError(
            "`batch` must be of shape (examples, ...) with a number that is not zero. Received: shape "
            f"{examples.shape}, largest number {largest:g}"
        )
    # Scaled, so that no square leaves the floats.
    values = np.linalg.svd(examples.reshape(len(examples), -1) / largest, compute_uv=False)
    share = values[values > 0.0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
