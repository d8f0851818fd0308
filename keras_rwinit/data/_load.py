"""`load`, and the table of the data sets that it can load."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from ._dataset import Dataset
from ._digits import load_digits
from ._images import load_images
from ._source import Arrays, StrPath
from ._spoken_digit import load_spoken_digit, load_spoken_digit_frames
from ._standardize import standardize as _standardize
from ._timit import timit_arrays
from .timit.phones import FOLDED_PHONES

__all__ = ["available", "load"]


class _Entry(NamedTuple):
    """One data set: its loader, and its row of the table in `load`'s docstring."""

    load: Callable[[StrPath | None, bool], Arrays]
    features: int
    sizes: str
    content: str
    classes: int = 10


# To add a data set, write a function `(data_dir, download) -> Arrays`, in a file of its own or in one of
# those imported above, and add an entry here. `available`, `load`, its docstring and the command line's
# `--dataset` read this table. `load_images` shows how to read a set of tensorflow-datasets. The loader's
# test goes into tests/data.
_DATASETS = {
    "digits": _Entry(
        load_digits,
        features=64,
        sizes="1438 / 359",
        content="8 x 8 handwritten digits of scikit-learn, no download",
    ),
    "mnist": _Entry(
        functools.partial(load_images, "mnist"),
        features=784,
        sizes="60,000 / 10,000",
        content="28 x 28 handwritten digits",
    ),
    "fashion_mnist": _Entry(
        functools.partial(load_images, "fashion_mnist"),
        features=784,
        sizes="60,000 / 10,000",
        content="28 x 28 articles of clothing",
    ),
    "kmnist": _Entry(
        functools.partial(load_images, "kmnist"),
        features=784,
        sizes="60,000 / 10,000",
        content="28 x 28 classical Japanese characters",
    ),
    "spoken_digit": _Entry(
        load_spoken_digit,
        features=1024,
        sizes="2,250 / 250",
        content="log-mel spectrograms, 32 frames x 32 bands",
    ),
    "spoken_digit_frames": _Entry(
        load_spoken_digit_frames,
        features=1320,
        sizes="90,124 / 9,875",
        content="frames of the same recordings, 11 x 120 features in context",
    ),
    "timit": _Entry(
        timit_arrays,
        features=1320,
        sizes="about 281,000 / 57,000",
        content="frames of read sentences, 39 phones; see `load_timit`",
        classes=len(FOLDED_PHONES),
    ),
}


def available() -> tuple[str, ...]:
    """Returns the names that `load` knows.

    Example:
        >>> from keras_rwinit.data import available
        >>> "mnist" in available()
        True
    """
    return tuple(_DATASETS)


def load(
    name: str = "digits",
    data_dir: StrPath | None = None,
    *,
    download: bool = True,
    standardize: bool = True,
) -> Dataset:
    """Loads a data set as flat arrays, by default standardized.

    {table}

    All but `digits` come through tensorflow-datasets,
    which prepares a set once in `data_dir` and reads it from there afterwards. You have to obtain the
    corpus of `timit` and put it there yourself. Order and split are the same at every call.

    Args:
        name: One of `available()`.
        data_dir: Folder of prepared TFDS sets. `None`: the environment variable TFDS_DATA_DIR, or
            `~/tensorflow_datasets` if that is unset. `digits` ignores it.
        download: Whether to download a set that is not prepared there.
        standardize: Whether to give every dimension zero mean and unit variance by the training
            set's statistics (see `standardize`). `False`: pixels in [0, 1], log-mel power in nats.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If `name` is not one of `available()`.
        DatasetNotFoundError: (a ValueError) If the set is missing or incomplete in `data_dir` and
            is not, or cannot be, downloaded.
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
    if not isinstance(name, str) or name not in _DATASETS:
        raise ValueError(
            f"`name` must be one of {', '.join(_DATASETS)}. Received: name={name!r}; for your own arrays "
            "see `keras_rwinit.data.Dataset`."
        )
    entry = _DATASETS[name]
    arrays = entry.load(data_dir, download)
    x_train, x_test = arrays.x_train, arrays.x_test
    if standardize:
        x_train, x_test = _standardize(x_train, x_test)
    return Dataset(name, x_train, arrays.y_train, x_test, arrays.y_test, entry.classes)


def _markdown_table() -> str:
    """Returns the data sets as rows of `load`'s docstring."""
    rows = ["| name | features | classes | training / test | content |", "|---|---|---|---|---|"]
    rows += [
        f"| {name} | {entry.features} | {entry.classes} | {entry.sizes} | {entry.content} |"
        for name, entry in _DATASETS.items()
    ]
    return "\n    ".join(rows)


if load.__doc__:  # None under `python -OO`
    load.__doc__ = load.__doc__.replace("{table}", _markdown_table())
