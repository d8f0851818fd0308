"""The Free Spoken Digit Dataset: ten spoken digits, five speakers, 8 kHz."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from ._frames import LabeledFrames, frame_features, windows
from ._log_mel import SAMPLE_RATE, log_mel
from ._source import Arrays
from ._tfds import open_builder, read_examples

__all__ = ["load_spoken_digit", "load_spoken_digit_frames"]

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
    examples = _read(data_dir, download)
    x = np.stack([log_mel(example["audio"]) for example in examples])
    y = np.array([example["label"] for example in examples], dtype=np.int32)
    test = np.array([_is_test(example["audio/filename"].decode()) for example in examples])
    return Arrays(x[~test], y[~test], x[test], y[test])


def load_spoken_digit_frames(data_dir: str | os.PathLike[str] | None, download: bool) -> Arrays:
    """Returns every 10 ms frame of the recordings in its context, with the digit spoken as label.

    The inputs have the form of TIMIT's: 40 log-mel bands (0 to 4 kHz here), deltas and the deltas
    of those, of the frame and five on either side, 1320 features; see `frame_features`. Training
    and test set are split by recording, as `load_spoken_digit` does: no recording has frames in
    both. A digit is the label of all of its frames, the silent ones and sounds that digits share
    among them, so no classifier of single windows is right on all of them.
    """
    parts: tuple[list[LabeledFrames], list[LabeledFrames]] = ([], [])
    for example in _read(data_dir, download):
        features = frame_features(example["audio"], SAMPLE_RATE)
        labels = np.full(len(features), example["label"], np.int32)
        parts[_is_test(example["audio/filename"].decode())].append(LabeledFrames(features, labels))
    return Arrays(*windows(parts[0]), *windows(parts[1]))


def _read(data_dir: str | os.PathLike[str] | None, download: bool) -> list[dict[str, Any]]:
    builder = open_builder("spoken_digit", data_dir, download, preparation_needs="pydub")
    return read_examples(builder, "train")


def _is_test(filename: str) -> bool:
    match = _FILENAME.fullmatch(filename)
    if match is None:
        raise ValueError(
            "A recording must be named {digit}_{speaker}_{index}.wav, since its index decides "
            f"between training and test set. Received: {filename!r}; use spoken_digit 1.0.9."
        )
    return int(match["index"]) in _TEST_INDICES
