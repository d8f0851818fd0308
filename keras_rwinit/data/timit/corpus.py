"""Finds the corpus in a folder and its sentences in the corpus, in upper or lower case."""

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
    "catalog number LDC93S1 (https://catalog.ldc.upenn.edu/LDC93S1), and put its folder TIMIT, or a link "
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

# TFDS passes an etils.epath.Path, which has the same methods and also reaches folders not on a disk.
Folder: TypeAlias = pathlib.Path


class Sentence(NamedTuple):
    """One sentence of one speaker, all names in lower case; `None` for a file that is missing."""

    part: str
    region: int
    speaker: str
    name: str
    audio: Folder | None
    labels: Folder | None
    folder: Folder


def find_corpus(manual_dir: Folder) -> Folder | None:
    """Returns the folder that holds TRAIN and TEST, `manual_dir` or one up to three levels below it.

    Args:
        manual_dir: Folder to search, e.g. a `pathlib.Path`; it need not exist.
    """
    level = [manual_dir] if manual_dir.is_dir() else []
    for _ in range(_DEPTH + 1):
        for folder in level:
            parts = [child for name, child in _children(folder) if name in _PARTS]
            if any(_REGION.fullmatch(name) for part in parts for name, _ in _children(part)):
                return folder
        level = [child for folder in level for _, child in _children(folder)]
    return None


def sentences(corpus: Folder) -> Iterator[Sentence]:
    """Yields the sentences in a fixed order, without the two SA sentences that every speaker reads.

    Args:
        corpus: Folder that `find_corpus` returned.
    """
    for part, part_folder in _children(corpus):
        for region, region_folder in _children(part_folder) if part in _PARTS else ():
            number = _REGION.fullmatch(region)
            for speaker, folder in _children(region_folder) if number else ():
                if number and _SPEAKER.fullmatch(speaker):
                    yield from _sentences_of_speaker(part, int(number[1]), speaker, folder)


def read_sentence(sentence: Sentence) -> tuple[NDArray[np.int16], list[Segment]]:
    """Returns the samples, int16, and the phones of a sentence.

    Raises:
        DamagedFileError: If one of its files is missing, cannot be read or is damaged.
    """
    audio = _required(sentence, sentence.audio, "audio (.WAV)")
    labels = _required(sentence, sentence.labels, "labels (.PHN)")
    samples = read_audio(_content(audio), str(audio))
    return samples, read_labels(_content(labels), len(samples), str(labels))


def _required(sentence: Sentence, path: Folder | None, content: str) -> Folder:
    """Returns the path of one of the sentence's files; DamagedFileError if the file is missing."""
    if path is None:
        raise DamagedFileError(
            f"{sentence.folder}: the sentence {sentence.name} has no {content}; copy it from the corpus."
        )
    return path


def _sentences_of_speaker(part: str, region: int, speaker: str, folder: Folder) -> Iterator[Sentence]:
    """Pairs the audio and the label files of one speaker."""
    found: dict[str, dict[str, Folder]] = {}
    for name, path in _children(folder, folders=False):
        matched = _FILE.fullmatch(name)
        if matched:
            found.setdefault(matched["name"], {})[matched["kind"]] = path
    for name, files in found.items():
        # The original comes before its RIFF copy.
        audio = files.get("wav", files.get("wav.wav"))
        yield Sentence(part, region, speaker, name, audio, files.get("phn"), folder)


def _children(folder: Folder, folders: bool = True) -> list[tuple[str, Folder]]:
    """Returns lower-case name and path of everything in a folder, sorted by that name."""
    entries = [(path.name.lower(), path) for path in folder.iterdir()]
    return sorted(
        ((name, path) for name, path in entries if not folders or path.is_dir()), key=lambda entry: entry[0]
    )


def _content(path: Folder) -> bytes:
    """Returns the bytes of a file, or raises a DamagedFileError that names it."""
    try:
        content: bytes = path.read_bytes()
    except Exception as error:  # epath raises the errors of whatever file system it is on
        raise DamagedFileError(
            f"{path}: it cannot be read ({type(error).__name__}); copy it from the corpus again."
        ) from error
    return content
