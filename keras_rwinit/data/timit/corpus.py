"""Finds the corpus in a directory and its sentences in the corpus, in upper or lower case."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .audio import read_audio
from .damage import DamagedFileError
from .labels import Segment, read_labels

__all__ = ["HOW_TO_OBTAIN", "Sentence", "find_corpus", "read_sentence", "sentences"]

HOW_TO_OBTAIN = (
    "TIMIT is licensed and cannot be downloaded for you. Obtain it from the Linguistic Data Consortium, "
    "catalog number LDC93S1 (https://catalog.ldc.upenn.edu/LDC93S1), and put its directory TIMIT, or a link "
    "to it, into manual_dir, so that there is manual_dir/TIMIT/TRAIN/DR1/FCJF0/SI1027.WAV, with "
    "SI1027.PHN beside it. Lower-case names and RIFF audio instead of SPHERE are accepted too."
)

_PARTS = ("train", "test")
_REGION = re.compile(r"dr([1-8])")
_SPEAKER = re.compile(r"[fm][a-z]{3}\d")
# .wav.wav: a RIFF copy beside the SPHERE original.
_FILE = re.compile(r"(?P<name>s[ix]\d+)\.(?P<kind>phn|wav|wav\.wav)")
# The corpus unpacks at most to LDC93S1/data/TIMIT.
_DEPTH = 3

# TFDS passes an etils.epath.Path, which has the same methods and also reaches directories not on a disk.
CorpusPath: TypeAlias = pathlib.Path


class Sentence(NamedTuple):
    """One sentence of one speaker, all names in lower case; `None` for a file that is missing."""

    part: str
    region: int
    speaker: str
    name: str
    audio: CorpusPath | None
    labels: CorpusPath | None
    directory: CorpusPath


def find_corpus(manual_dir: CorpusPath) -> CorpusPath | None:
    """Returns the directory that holds TRAIN and TEST, `manual_dir` or one up to three levels below it.

    Args:
        manual_dir: Directory to search, e.g. a `pathlib.Path`; it need not exist.
    """
    level = [manual_dir] if manual_dir.is_dir() else []
    for _ in range(_DEPTH + 1):
        for directory in level:
            parts = [child for name, child in _children(directory) if name in _PARTS]
            if any(_REGION.fullmatch(name) for part in parts for name, _ in _children(part)):
                return directory
        level = [child for directory in level for _, child in _children(directory)]
    return None


def sentences(corpus: CorpusPath) -> Iterator[Sentence]:
    """Yields the sentences in a fixed order, without the two SA sentences that every speaker reads.

    Args:
        corpus: Directory that `find_corpus` returned.
    """
    for part, part_directory in _children(corpus):
        for region, region_directory in _children(part_directory) if part in _PARTS else ():
            number = _REGION.fullmatch(region)
            for speaker, directory in _children(region_directory) if number else ():
                if number and _SPEAKER.fullmatch(speaker):
                    yield from _sentences_of_speaker(part, int(number[1]), speaker, directory)


def read_sentence(sentence: Sentence) -> tuple[NDArray[np.int16], list[Segment]]:
    """Returns the samples, int16, and the phones of a sentence.

    Raises:
        DamagedFileError: If one of its files is missing, cannot be read or is damaged.
    """
    audio = _required(sentence, sentence.audio, "audio (.WAV)")
    labels = _required(sentence, sentence.labels, "labels (.PHN)")
    samples = read_audio(_content(audio), str(audio))
    return samples, read_labels(_content(labels), len(samples), str(labels))


def _required(sentence: Sentence, path: CorpusPath | None, content: str) -> CorpusPath:
    """Returns the path of one of the sentence's files; DamagedFileError if the file is missing."""
    if path is None:
        raise DamagedFileError(
            f"{sentence.directory}: the sentence {sentence.name} has no {content}; copy it from the corpus."
        )
    return path


def _sentences_of_speaker(part: str, region: int, speaker: str, directory: CorpusPath) -> Iterator[Sentence]:
    """Pairs the audio and the label files of one speaker."""
    found: dict[str, dict[str, CorpusPath]] = {}
    for name, path in _children(directory, directories_only=False):
        matched = _FILE.fullmatch(name)
        if matched:
            found.setdefault(matched["name"], {})[matched["kind"]] = path
    for name, files in found.items():
        # The original comes before its RIFF copy.
        audio = files.get("wav", files.get("wav.wav"))
        yield Sentence(part, region, speaker, name, audio, files.get("phn"), directory)


def _children(directory: CorpusPath, directories_only: bool = True) -> list[tuple[str, CorpusPath]]:
    """Returns lower-case name and path of everything in a directory, sorted by that name."""
    entries = [(path.name.lower(), path) for path in directory.iterdir()]
    return sorted(
        ((name, path) for name, path in entries if not directories_only or path.is_dir()),
        key=lambda entry: entry[0],
    )


def _content(path: CorpusPath) -> bytes:
    """Returns the bytes of a file, or raises a DamagedFileError that names it."""
    try:
        content: bytes = path.read_bytes()
    except Exception as error:  # epath raises the errors of whatever file system it is on
        raise DamagedFileError(
            f"{path}: it cannot be read ({type(error).__name__}); copy it from the corpus again."
        ) from error
    return content
