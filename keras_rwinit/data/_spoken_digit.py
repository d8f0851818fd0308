"""The Free Spoken Digit Dataset: ten spoken digits, five speakers, 8 kHz."""

from __future__ import annotations

import os
import re

import numpy as np

from keras_rwinit.data._log_mel import log_mel
from keras_rwinit.data._source import Arrays
from keras_rwinit.data._tfds import open_builder, read_examples

__all__ = ["load_spoken_digit"]

_TEST_INDICES = range(5)
_FILENAME = re.compile(r"\d_[a-z]+_(?P<index>\d+)\.wav")


def load_spoken_digit(data_dir: str | os.PathLike[str] | None, download: bool) -> Arrays:
    """Returns log-mel features (see `log_mel`) of 2250 training and 250 test recordings.

    TFDS has one split; the corpus's own rule makes two of it. A file is named
    `{digit}_{speaker}_{index}.wav`, and indices 0 to 4 are the test set: every speaker and every
    digit is in both sets, five recordings of each in the test set and 45 in the training set.

    References:
        Z. Jackson et al., "Free Spoken Digit Dataset", version 1.0.9.
        https://github.com/Jakobovski/free-spoken-digit-dataset
    """
    builder = open_builder("spoken_digit", data_dir, download, preparation_needs="pydub")
    examples = read_examples(builder, "train")
    x = np.stack([log_mel(example["audio"]) for example in examples])
    y = np.array([example["label"] for example in examples], dtype=np.int32)
    test = np.array([_is_test(example["audio/filename"].decode()) for example in examples])
    return Arrays(x[~test], y[~test], x[test], y[test])


def _is_test(filename: str) -> bool:
    match = _FILENAME.fullmatch(filename)
    if match is None:
        raise ValueError(
            "A recording must be named {digit}_{speaker}_{index}.wav, since its index decides "
            f"between training and test set. Received: {filename!r}; use spoken_digit 1.0.9."
        )
    return int(match["index"]) in _TEST_INDICES
