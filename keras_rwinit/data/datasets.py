"""The one table of data sets: the loader of each, its numbers of features and classes, and its description.

To add a data set, add one entry to `DATASETS`: `load`, its docstring, the presets and the commands then take
its name. Its loader is a function `(data_dir, download) -> Arrays` in a file of its own. `load_images` shows
how to read a set of tensorflow-datasets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from ._digits import load_digits
from ._images import load_images
from ._source import Arrays, StrPath
from ._spoken_digit import load_spoken_digit, load_spoken_digit_frames
from ._timit import timit_arrays
from .timit.phones import FOLDED_PHONES

__all__ = ["DATASETS", "DatasetEntry"]


class DatasetEntry(NamedTuple):
    """What is known of a data set before it is loaded.

    Args:
        load: Loader, called with `data_dir` and `download`.
        features: Number of input dimensions.
        sizes: Numbers of training and test examples, for the table in `load`'s docstring.
        content: The examples in a phrase, for the same table.
        classes: Number of classes.
    """

    load: Callable[[StrPath | None, bool], Arrays]
    features: int
    sizes: str
    content: str
    classes: int = 10


DATASETS = {
    "digits": DatasetEntry(
        load_digits,
        features=64,
        sizes="1438 / 359",
        content="8 x 8 handwritten digits of scikit-learn, no download",
    ),
    "mnist": DatasetEntry(
        functools.partial(load_images, "mnist"),
        features=784,
        sizes="60,000 / 10,000",
        content="28 x 28 handwritten digits",
    ),
    "fashion_mnist": DatasetEntry(
        functools.partial(load_images, "fashion_mnist"),
        features=784,
        sizes="60,000 / 10,000",
        content="28 x 28 articles of clothing",
    ),
    "kmnist": DatasetEntry(
        functools.partial(load_images, "kmnist"),
        features=784,
        sizes="60,000 / 10,000",
        content="28 x 28 classical Japanese characters",
    ),
    "spoken_digit": DatasetEntry(
        load_spoken_digit,
        features=1024,
        sizes="2,250 / 250",
        content="log-mel spectrograms, 32 frames x 32 bands",
    ),
    "spoken_digit_frames": DatasetEntry(
        load_spoken_digit_frames,
        features=1320,
        sizes="90,124 / 9,875",
        content="frames of the same recordings, 11 x 120 features in context",
    ),
    "timit": DatasetEntry(
        timit_arrays,
        features=1320,
        sizes="about 281,000 / 57,000",
        content="frames of read sentences, 39 phones; see `load_timit`",
        classes=len(FOLDED_PHONES),
    ),
}
