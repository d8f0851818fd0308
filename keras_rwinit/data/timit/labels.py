"""Reads .PHN files, with one phone in each line: `first-sample sample-after-the-last phone`."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .damage import DamagedFileError
from .phones import PHONES

__all__ = ["Segment", "phones_of_frames", "read_labels"]

_KNOWN = frozenset(PHONES)
# Samples (10 ms) by which the label of the last phone may end after the recording.
_TOLERANCE = 160


class Segment(NamedTuple):
    """One phone: its samples are those from `start` up to, not including, `stop`."""

    start: int
    stop: int
    phone: str


def read_labels(content: bytes, samples: int, path: str) -> list[Segment]:
    """Returns the phones of a recording in order.

    Gaps, and samples before the first or after the last phone, are allowed: they have no label.

    Args:
        content: The whole .PHN file.
        samples: Length of the recording.
        path: The file's name, for messages.

    Returns:
        At least one `Segment`.

    Raises:
        DamagedFileError: If a line is not two whole numbers and one of `PHONES`, if a phone
            ends before it begins, begins before the previous one ends, or ends after the recording.

    Example:
        >>> from keras_rwinit.data.timit.labels import read_labels
        >>> read_labels(b"0 2400 h#\\n2400 3000 sh\\n", samples=3000, path="SI1.PHN")[1]
        Segment(start=2400, stop=3000, phone='sh')
        >>> read_labels(b"0 2400 h#\\n2300 3000 sh\\n", samples=3000, path="SI1.PHN")
        Traceback (most recent call last):
            ...
        keras_rwinit.data.timit.damage.DamagedFileError: SI1.PHN, line 2: a phone must not begin \
before the last has ended, at 2400. Received: '2300 3000 sh'
    """
    segments: list[Segment] = []
    for number, line in enumerate(content.decode("latin-1").splitlines(), 1):
        if not line.strip():
            continue
        rule = _broken_rule(line.split(), segments, samples)
        if rule:
            raise DamagedFileError(f"{path}, line {number}: {rule}. Received: {line.strip()!r}")
        start, stop, phone = line.split()
        segments.append(Segment(int(start), int(stop), phone.lower()))
    if not segments:
        raise DamagedFileError(f"{path}: it must hold at least one phone. Received: an empty file")
    return segments


def _broken_rule(fields: list[str], before: list[Segment], samples: int) -> str | None:
    """Returns the rule that a line breaks, or None."""
    if len(fields) != 3 or not all(re.fullmatch("[0-9]{1,18}", field) for field in fields[:2]):
        return "a line must be two whole numbers, first sample and the one after the last, and a phone"
    start, stop = int(fields[0]), int(fields[1])
    if fields[2].lower() not in _KNOWN:
        return "a phone must be one of TIMIT's 61 (keras_rwinit.data.timit.PHONES)"
    if stop <= start:
        return "a phone must end after it has begun"
    if before and start < before[-1].stop:
        return f"a phone must not begin before the last has ended, at {before[-1].stop}"
    if stop > samples + _TOLERANCE:
        return f"a phone must not end more than 10 ms past the recording, which has {samples} samples"
    return None


def phones_of_frames(
    starts: NDArray[np.integer],
    stops: NDArray[np.integer],
    phones: NDArray[np.integer],
    centers: NDArray[np.integer],
) -> NDArray[np.int32]:
    """Returns the phone at the center of every frame, -1 where there is none.

    Args:
        starts: First sample of every phone, rising.
        stops: The sample after its last.
        phones: Index of every phone.
        centers: The sample in the middle of each frame.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data.timit.labels import phones_of_frames
        >>> starts, stops, phones = np.array([0, 400]), np.array([400, 800]), np.array([7, 8])
        >>> phones_of_frames(starts, stops, phones, np.array([200, 360, 520, 840])).tolist()
        [7, 7, 8, -1]
    """
    at = np.searchsorted(starts, centers, side="right") - 1
    # Frames before the first phone, in a gap or after the last have no label.
    inside = (at >= 0) & (centers < stops[at])
    return np.where(inside, phones[at], -1).astype(np.int32)
