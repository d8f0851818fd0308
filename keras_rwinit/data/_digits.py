"""The 8 x 8 handwritten digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._source import Arrays, StrPath

__all__ = ["load_digits"]

_SPLIT_SEED = 1797
_TEST_FRACTION = 0.2


def load_digits(data_dir: StrPath | None = None, download: bool = True) -> Arrays:
    """Returns the 1797 digits, pixels in [0, 1], split 80/20 within every class.

    The split is fixed. `numpy.random.RandomState(1797)`, a stream that NumPy keeps unchanged
    between versions, permutes the examples of each class, in order from 0 to 9; the first fifth,
    rounded, is the test set. Both sets keep the order of the corpus.

    Args:
        data_dir, download: Not used; every loader takes them.

    References:
        E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
        Learning Repository, 1998. https://doi.org/10.24432/C50P49
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            'The "digits" data set comes with scikit-learn: `pip install scikit-learn`.'
        ) from error
    pixels, labels = datasets.load_digits(return_X_y=True)
    test = _stratified_test_mask(labels)
    x = (pixels / 16.0).astype(np.float32)
    y = labels.astype(np.int32)
    return Arrays(x[~test], y[~test], x[test], y[test])


def _stratified_test_mask(labels: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Returns True for the examples of the test set."""
    random = np.random.RandomState(_SPLIT_SEED)
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = round(_TEST_FRACTION * len(members))
        test[random.permutation(members)[:count]] = True
    return test
