"""The Free Spoken Digit Dataset: ten spoken digits, five speakers, 8 kHz."""

from __future__ import annotations

import re

import numpy as np

from ._frames import LabeledFrames, frame_features, make_windows
from ._log_mel import SAMPLE_RATE, log_mel
from ._source import Arrays, StrPath
from ._tfds import Example, open_builder, read_examples

__all__ = ["load_spoken_digit", "load_spoken_digit_frames"]

_TEST_INDICES = range(5)
_FILENAME = re.compile(r"\d_[a-z]+_(?P<index>\d+)\.wav")


def load_spoken_digit(data_dir: StrPath | None, download: bool) -> Arrays:
    """Returns log-mel features (see `log_mel`) of 2250 training and 250 test recordings.

    TFDS has one split, which is divided by the rule of the corpus: a file is named
    `{digit}_{speaker}_{index}.wav`, and indices 0 to 4 are the test set. Both sets have every
    speaker and every digit, five recordings of each in the test set and 45 in the training set.

    References:
        Z. Jackson et al., "Free Spoken Digit Dataset", version 1.0.9.
        https://github.com/Jakobovski/free-spoken-digit-dataset
    """
    examples = _read(data_dir, download)
    x = np.stack([log_mel(example["audio"]) for example in examples])
    y = np.array([example["label"] for example in examples], dtype=np.int32)
    test = np.array([_is_test(example["audio/filename"].decode()) for example in examples])
    return Arrays(x[~test], y[~test], x[test], y[test])


def load_spoken_digit_frames(data_dir: StrPath | None, download: bool) -> Arrays:
    """Returns every 10 ms frame of the recordings in its context, labeled with the spoken digit.

    The inputs have the form of TIMIT's: 40 log-mel bands (here 0 to 4 kHz), their deltas and the
    deltas of those, of the frame and of five frames on either side, 1320 features; see
    `frame_features`. The sets are split by recording, as in `load_spoken_digit`: no recording has
    frames in both. All frames of a recording have the same label, also silent ones and sounds that
    several digits share, so that no classifier of single windows can be right on all of them.
    """
    parts: tuple[list[LabeledFrames], list[LabeledFrames]] = ([], [])
    for example in _read(data_dir, download):
        features = frame_features(example["audio"], SAMPLE_RATE)
        labels = np.full(len(features), example["label"], np.int32)
        parts[_is_test(example["audio/filename"].decode())].append(LabeledFrames(features, labels))
    return Arrays(*make_windows(parts[0]), *make_windows(parts[1]))


def _read(data_dir: StrPath | None, download: bool) -> list[Example]:
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
