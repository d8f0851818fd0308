"""Finding the corpus in a folder, and its sentences in the corpus, however it is spelt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .audio import read_audio
from .damage import DamagedFileError
from .labels import Segment, read_labels

__all__ = ["HOW_TO_OBTAIN", "Sentence", "find_corpus", "read_sentence", "sentences"]

HOW_TO_OBTAIN = (
    "TIMIT is licensed and cannot be downloaded for you. Obtain it from the Linguistic Data Consortium, "
    "catalog number LDC93S1 (https://catalog.ldc.upenn.edu/LDC93S1), and put its folder TIMIT, or a link "
    "to it, into manual_dir, so that there is manual_dir/TIMIT/TRAIN/DR1/FCJF0/SI1027.WAV, with "
    "SI1027.PHN beside it. Lower-case names and RIFF instead of SPHERE audio will do as well."
)

_PARTS = ("train", "test")
_REGION = re.compile(r"dr([1-8])")
_SPEAKER = re.compile(r"[fm][a-z]{3}\d")
# .wav.wav: a RIFF copy beside the SPHERE original.
_FILE = re.compile(r"(?P<name>s[ix]\d+)\.(?P<kind>phn|wav|wav\.wav)")
# TIMIT stands at most at LDC93S1/data/TIMIT in what is unpacked.
_DEPTH = 3

# pathlib.Path, or etils.epath.Path for folders that are not on a disk.
Folder = Any


class Sentence(NamedTuple):
    """One sentence of one speaker, all names in lower case; a file that is not there is None."""

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
        manual_dir: Folder to search, a `pathlib.Path` or the like; it need not exist.
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
    """Yields the sentences in a fixed order, without the two SA ones that every speaker reads.

    Args:
        corpus: What `find_corpus` returned.
    """
    for part, part_folder in _children(corpus):
        for region, region_folder in _children(part_folder) if part in _PARTS else ():
            number = _REGION.fullmatch(region)
            for speaker, folder in _children(region_folder) if number else ():
                if number and _SPEAKER.fullmatch(speaker):
                    yield from _of_speaker(part, int(number[1]), speaker, folder)


def read_sentence(sentence: Sentence) -> tuple[Any, list[Segment]]:
    """Returns the samples, int16, and the phones of a sentence.

    Raises:
        DamagedFileError: If one of its files is missing, cannot be read or is damaged.
    """
    for path, what in ((sentence.audio, "audio (.WAV)"), (sentence.labels, "labels (.PHN)")):
        if path is None:
            raise DamagedFileError(
                f"{sentence.folder}: the sentence {sentence.name} has no {what}; copy it from the corpus."
            )
    samples = read_audio(_content(sentence.audio), str(sentence.audio))
    return samples, read_labels(_content(sentence.labels), len(samples), str(sentence.labels))


def _of_speaker(part: str, region: int, speaker: str, folder: Folder) -> Iterator[Sentence]:
    found: dict[str, dict[str, Folder]] = {}
    for name, path in _children(folder, folders=False):
        matched = _FILE.fullmatch(name)
        if matched:
            found.setdefault(matched["name"], {})[matched["kind"]] = path
    for name, files in found.items():
        audio = files.get("wav", files.get("wav.wav"))
        yield Sentence(part, region, speaker, name, audio, files.get("phn"), folder)


def _children(folder: Folder, folders: bool = True) -> list[tuple[str, Folder]]:
    """Returns what is in a folder, by lower-case name, in the order of these names."""
    entries = [(path.name.lower(), path) for path in folder.iterdir()]
    return sorted(
        ((name, path) for name, path in entries if not folders or path.is_dir()), key=lambda entry: entry[0]
    )


def _content(path: Folder) -> bytes:
    try:
        content: bytes = path.read_bytes()
    except Exception as error:  # epath raises the errors of whatever file system it is on
        raise DamagedFileError(
            f"{path}: it cannot be read ({type(error).__name__}); copy it from the corpus again."
        ) from error
    return content
