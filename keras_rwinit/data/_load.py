"""`load` and `available`, which read the table of data sets."""

from __future__ import annotations

from keras_rwinit._checks import did_you_mean

from ._dataset import Dataset
from ._source import StrPath
from ._standardize import standardize as _standardize
from .datasets import DATASETS

__all__ = ["available", "load"]


def available() -> tuple[str, ...]:
    """Returns the names that `load` knows.

    Example:
        >>> from keras_rwinit.data import available
        >>> "mnist" in available()
        True
    """
    return tuple(DATASETS)


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
        data_dir: Directory of prepared TFDS sets. `None`: the environment variable TFDS_DATA_DIR, or
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
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(
            f"`name` must be one of {', '.join(DATASETS)}. Received: name={name!r}; for your own arrays "
            f"see `keras_rwinit.data.Dataset`{did_you_mean(name, DATASETS) or '.'}"
        )
    entry = DATASETS[name]
    arrays = entry.load(data_dir, download)
    x_train, x_test = arrays.x_train, arrays.x_test
    # Presets build their networks from this number before the data are loaded.
    assert x_train.shape[1] == entry.features
    if standardize:
        x_train, x_test = _standardize(x_train, x_test)
    return Dataset(name, x_train, arrays.y_train, x_test, arrays.y_test, entry.classes)


def _markdown_table() -> str:
    """Returns the data sets as rows of `load`'s docstring."""
    rows = ["| name | features | classes | training / test | content |", "|---|---|---|---|---|"]
    rows += [
        f"| {name} | {entry.features} | {entry.classes} | {entry.sizes} | {entry.content} |"
        for name, entry in DATASETS.items()
    ]
    return "\n    ".join(rows)


if load.__doc__:  # None under `python -OO`
    load.__doc__ = load.__doc__.replace("{table}", _markdown_table())
