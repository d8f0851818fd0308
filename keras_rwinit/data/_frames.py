"""Frames of speech as inputs of a classifier: log-mel bands, deltas and a window of context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._log_mel import log_mel_frames

__all__ = ["CONTEXT", "FEATURES", "LabeledFrames", "add_context", "deltas", "frame_features", "make_windows"]

BANDS = 40
FEATURES = 3 * BANDS
# Number of frames on either side of the classified one.
CONTEXT = 5

_DELTA_REACH = 2

Floats = NDArray[np.float32]


class LabeledFrames(NamedTuple):
    """One recording: features, shape (frames, features), and the class of each frame, -1 for none."""

    features: Floats
    labels: NDArray[np.int32]


def frame_features(audio: NDArray[np.integer], sample_rate: int) -> Floats:
    """Returns 40 log-mel bands, their deltas and the deltas of those, for every frame.

    Frames and bands are those of `log_mel_frames`, in nats: a frame is 25 ms long and starts every
    10 ms, and the end is padded with zeros.

    Args:
        audio: 16-bit samples, shape (samples,), at least one.
        sample_rate: Samples per second: 8000 or 16,000.

    Returns:
        float32, shape (frames, 120).

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data._frames import frame_features
        >>> frame_features(np.zeros(16_000, "int16"), 16_000).shape
        (99, 120)
    """
    spectrogram = log_mel_frames(audio, sample_rate, BANDS)
    first = deltas(spectrogram)
    return np.concatenate([spectrogram, first, deltas(first)], axis=1).astype(np.float32)


def deltas(sequence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the slope in time of every feature, by regression over two frames on either side.

        d[t] = sum_n n (c[t + n] - c[t - n]) / (2 sum_n n^2),    n = 1, 2,

    with the first and the last frame repeated beyond the ends.

    Args:
        sequence: Shape (frames, features), at least one frame.

    Returns:
        float64, same shape; unit of `sequence` per frame.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data._frames import deltas
        >>> deltas(3.0 * np.arange(6.0)[:, None]).ravel().tolist()
        [1.5, 2.4, 3.0, 3.0, 2.4, 1.5]

    References:
        S. Furui, "Speaker-independent isolated word recognition using dynamic features of speech
        spectrum", IEEE Transactions on Acoustics, Speech and Signal Processing 34, 1986.
    """
    count = len(sequence)
    padded = _repeat_ends(sequence, _DELTA_REACH)
    slope = np.zeros(sequence.shape)
    for n in range(1, _DELTA_REACH + 1):
        ahead, behind = _DELTA_REACH + n, _DELTA_REACH - n
        slope += n * (padded[ahead : ahead + count] - padded[behind : behind + count])
    return slope / (2.0 * sum(n * n for n in range(1, _DELTA_REACH + 1)))


def add_context(features: Floats, chosen: NDArray[np.intp], context: int = CONTEXT) -> Floats:
    """Returns the chosen frames, each with `context` frames on either side, earliest first.

    The first and the last frame of the recording are repeated beyond its ends.

    Args:
        features: All frames of one recording, shape (frames, features).
        chosen: Which frames to return, shape (chosen,).
        context: Number of frames on either side, at least 0.

    Returns:
        Shape (chosen, (2 context + 1) features).

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data._frames import add_context
        >>> add_context(np.arange(4.0, dtype="float32")[:, None], np.array([0, 2]), 1).tolist()
        [[0.0, 0.0, 1.0], [1.0, 2.0, 3.0]]
    """
    frames = 2 * context + 1
    around = chosen[:, None] + np.arange(frames)
    return _repeat_ends(features, context)[around].reshape(len(chosen), frames * features.shape[1])


def make_windows(
    recordings: list[LabeledFrames], every: int = 1, context: int = CONTEXT
) -> tuple[Floats, NDArray[np.int32]]:
    """Returns every `every`-th labeled frame with its context frames, and its label.

    Frames without a label (-1) are not examples but stay in the context of their neighbors. The
    result is filled in place, so that at most one recording is held twice.

    Args:
        recordings: All with the same number of features; labeled frames are counted through all.
        every: 1: all labeled frames; 4: the first of every four.
        context: Number of frames on either side of each.

    Returns:
        Inputs, float32, shape (examples, (2 context + 1) features), and labels, int32.
    """
    # First pass: which frames, so that the result is allocated once
    chosen: list[NDArray[np.intp]] = []
    seen = 0
    for recording in recordings:
        labeled = np.flatnonzero(recording.labels >= 0)
        number = seen + np.arange(len(labeled))
        chosen.append(labeled[number % every == 0])
        seen += len(labeled)
    # Second pass: their features and labels
    width = recordings[0].features.shape[1] if recordings else 0
    count = sum(map(len, chosen))
    x = np.empty((count, (2 * context + 1) * width), np.float32)
    y = np.empty(count, np.int32)
    start = 0
    for recording, frames in zip(recordings, chosen, strict=True):
        here = slice(start, start + len(frames))
        x[here] = add_context(recording.features, frames, context)
        y[here] = recording.labels[frames]
        start = here.stop
    return x, y


def _repeat_ends(sequence: NDArray[np.floating], count: int) -> NDArray[np.floating]:
    """Returns the frames with `count` copies of the first one before and of the last one after them."""
    return np.pad(sequence, ((count, count), (0, 0)), mode="edge")
