"""`load` and the table of what it can load."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from ._dataset import Dataset
from ._digits import load_digits
from ._images import load_images
from ._source import Arrays
from ._spoken_digit import load_spoken_digit, load_spoken_digit_frames
from ._standardize import standardize as _standardize
from ._timit import timit_arrays
from .timit.phones import FOLDED_PHONES

__all__ = ["available", "load"]

_Loader = Callable[[str | os.PathLike[str] | None, bool], Arrays]

_LOADERS: dict[str, _Loader] = {
    "digits": lambda data_dir, download: load_digits(),
    "mnist": functools.partial(load_images, "mnist"),
    "fashion_mnist": functools.partial(load_images, "fashion_mnist"),
    "kmnist": functools.partial(load_images, "kmnist"),
    "spoken_digit": load_spoken_digit,
    "spoken_digit_frames": load_spoken_digit_frames,
    "timit": timit_arrays,
}

_DIGITS_OR_KINDS = 10
_CLASSES = dict.fromkeys(_LOADERS, _DIGITS_OR_KINDS) | {"timit": len(FOLDED_PHONES)}


def available() -> tuple[str, ...]:
    """Returns the names that `load` knows.

    Example:
        >>> from keras_rwinit.data import available
        >>> available()
        ('digits', 'mnist', 'fashion_mnist', 'kmnist', 'spoken_digit', 'spoken_digit_frames', 'timit')
    """
    return tuple(_LOADERS)


def load(
    name: str = "digits",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    standardize: bool = True,
) -> Dataset:
    """Loads a data set as flat arrays, by default standardized.

    | name | features | training / test | content |
    |---|---|---|---|
    | digits | 64 | 1438 / 359 | 8 x 8 handwritten digits out of scikit-learn, no network |
    | mnist | 784 | 60,000 / 10,000 | 28 x 28 handwritten digits |
    | fashion_mnist | 784 | 60,000 / 10,000 | 28 x 28 articles of clothing |
    | kmnist | 784 | 60,000 / 10,000 | 28 x 28 classical Japanese characters |
    | spoken_digit | 1024 | 2,250 / 250 | log-mel spectrograms, 32 frames x 32 bands |
    | spoken_digit_frames | 1320 | 90,124 / 9,875 | their frames, 11 x 120 features in context |
    | timit | 1320 | 281,000 / 57,000, about | the same of read sentences, 39 phones; see `load_timit` |

    `timit` has 39 classes, every other set ten. All but `digits` come through tensorflow-datasets,
    which prepares a set once, in `data_dir`, and reads it from there ever after; the corpus of
    `timit` has to be obtained and put there by hand. Order and split are the same at every call.

    Args:
        name: One of `available()`.
        data_dir: Folder of prepared TFDS sets. `None`: the environment variable TFDS_DATA_DIR, or
            where that is unset `~/tensorflow_datasets`. `digits` ignores it.
        download: Whether to download a set that is not prepared there.
        standardize: Whether to give every dimension zero mean and unit variance by the training
            set's statistics (see `standardize`). `False`: pixels in [0, 1], log-mel power in nats.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If `name` is not one of `available()`.
        DatasetNotFoundError: (a ValueError) If the set is not in `data_dir`, or not whole, and is
            not or cannot be downloaded.
        DamagedFileError: (a ValueError) If files of the TIMIT corpus are damaged; it names them.
        ImportError: If a package that the set needs is missing.

    Example:
        >>> from keras_rwinit.data import load
        >>> digits = load("digits")
        >>> digits
        Dataset(name='digits', classes=10)
        >>> digits.x_train.shape, digits.y_test.shape
        ((1438, 64), (359,))
        >>> bool(abs(digits.x_train.mean()) < 1e-6)
        True
    """
    if not isinstance(name, str) or name not in _LOADERS:
        raise ValueError(
            f"`name` must be one of {', '.join(_LOADERS)}. Received: name={name!r}; for arrays of "
            "your own see `keras_rwinit.data.Dataset`."
        )
    arrays = _LOADERS[name](data_dir, download)
    x_train, x_test = arrays.x_train, arrays.x_test
    if standardize:
        x_train, x_test = _standardize(x_train, x_test)
    return Dataset(name, x_train, arrays.y_train, x_test, arrays.y_test, _CLASSES[name])
