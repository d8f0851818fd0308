"""TIMIT as frames to classify: the phone at the center of a window of speech."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count

from ._dataset import Dataset
from ._frames import LabeledFrames, frame_features, windows
from ._log_mel import hop_samples, window_samples
from ._source import Arrays
from ._standardize import standardize as _standardize
from ._tfds import DatasetNotFoundError, find_builder, import_tfds, iterate_examples, no_progress, quiet
from .timit.audio import SAMPLE_RATE
from .timit.corpus import HOW_TO_OBTAIN, find_corpus
from .timit.labels import phones_of_frames
from .timit.phones import FOLDED_PHONES, PHONES, fold
from .timit.speakers import SENTENCES

__all__ = ["load_timit", "timit_arrays"]

Path = str | os.PathLike[str]

_TEST_SPLITS = {
    "core_test": ("core_test",),
    "validation": ("validation",),
    "complete_test": ("validation", "core_test", "other_test"),
}
_EVERY = 4


def load_timit(
    data_dir: Path | None = None,
    *,
    manual_dir: Path | None = None,
    phones: int = len(FOLDED_PHONES),
    every: int = _EVERY,
    test: str = "core_test",
    by_speaker: bool = False,
    skip_damaged: bool = False,
    download: bool = True,
    standardize: bool = True,
) -> Dataset:
    """Loads the frames of TIMIT, each with its phone; `load("timit")` is this with its defaults.

    An input is 40 log-mel bands from 0 to 8 kHz, their deltas and the deltas of those (25 ms
    frames, one every 10 ms) of the frame and of five on either side, 11 x 120 = 1320 features; its
    label is the phone at the frame's center. The training set is the corpus's 3696 sentences of 462
    speakers, the test set the core test set's 192 sentences of 24 others, both without SA.

    With 39 classes, frames of the glottal stop (q), which the folding removes, are no examples; nor
    are frames at which nothing is labeled. Both stay in the context of their neighbors.

    TIMIT has about 1.1 million training frames; each in its context is 5.3 kB, all of them 5.9 GB.
    By default every fourth training frame is an example, 1.5 GB: loading it, which holds it twice
    while it is standardized, peaks at 5.2 GB of memory, `keras-rwinit train` at 7.5 GB (measured on
    a synthetic corpus of TIMIT's size). Neighboring windows share ten frames of eleven. `every=1`
    takes all of them: 15 GB to load, more to train. The test set always has all its frames, 0.3 GB
    of the core test set.

    The corpus is licensed: who has it puts it into `manual_dir`, where it is read once and prepared
    in `data_dir` (0.5 GB), and read from there ever after.

    Args:
        data_dir: Folder of prepared TFDS sets. `None`: the environment variable TFDS_DATA_DIR, or
            where that is unset `~/tensorflow_datasets`.
        manual_dir: Folder of the corpus, TRAIN and TEST in it or at most three levels below.
            `None`: `downloads/manual` in `data_dir`, as everywhere in TFDS.
        phones: 39, the classes of Lee and Hon's folding (`timit.FOLDED_PHONES`), or 61, all phones
            (`timit.PHONES`).
        every: Which training frames are examples: 1, all; 4, the first of every four.
        test: What the test set is: "core_test"; "validation", Halberstadt's 400 sentences of 50
            other speakers, to choose settings on; "complete_test", all 1344 sentences.
        by_speaker: Whether to give the features zero mean and unit variance over each speaker's
            frames first, by themselves: no label is used.
        skip_damaged: Whether to leave damaged sentences out, and do with what there is of an
            incomplete corpus. A warning counts what is missing and names what is damaged.
        download: Whether to prepare the set from `manual_dir` if it is not prepared.
        standardize: See `load`. `False`: nats, and nats a frame.

    Returns:
        A `Dataset` named "timit".

    Raises:
        DatasetNotFoundError: (a ValueError) If the set is not in `data_dir` and the corpus not in
            `manual_dir`; it says how to obtain it and where to put it. If sentences are missing.
        DamagedFileError: (a ValueError) If files of the corpus are damaged; it names them.
        ValueError: If another argument is wrong.
        ImportError: If tensorflow-datasets is missing.

    Example:
        >>> from keras_rwinit.data import load_timit
        >>> load_timit("/no/corpus/there")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        keras_rwinit.data._tfds.DatasetNotFoundError: ...Obtain it from the Linguistic Data ...

    References:
        J. S. Garofolo et al., "TIMIT Acoustic-Phonetic Continuous Speech Corpus", Linguistic Data
        Consortium, LDC93S1, 1993.
        K.-F. Lee and H.-W. Hon, "Speaker-independent phone recognition using hidden Markov models",
        IEEE Transactions on Acoustics, Speech and Signal Processing 37, 1989.
    """
    arrays = timit_arrays(
        data_dir,
        download,
        manual_dir=manual_dir,
        phones=phones,
        every=every,
        test=test,
        by_speaker=by_speaker,
        skip_damaged=skip_damaged,
    )
    x_train, x_test = arrays.x_train, arrays.x_test
    if standardize:
        x_train, x_test = _standardize(x_train, x_test)
    return Dataset("timit", x_train, arrays.y_train, x_test, arrays.y_test, phones)


def timit_arrays(
    data_dir: Path | None,
    download: bool,
    *,
    manual_dir: Path | None = None,
    phones: int = len(FOLDED_PHONES),
    every: int = _EVERY,
    test: str = "core_test",
    by_speaker: bool = False,
    skip_damaged: bool = False,
) -> Arrays:
    """Returns what `load_timit` standardizes; the arguments are those."""
    if not isinstance(phones, int) or phones not in (len(FOLDED_PHONES), len(PHONES)):
        raise ValueError(f"`phones` must be 39, the folded ones, or 61, all. Received: phones={phones!r}.")
    if not isinstance(test, str) or test not in _TEST_SPLITS:
        raise ValueError(f"`test` must be one of {', '.join(_TEST_SPLITS)}. Received: test={test!r}.")
    every = check_count("every", every)
    builder = _prepared(data_dir, manual_dir, download, skip_damaged)
    _check_whole(builder, ("train", *_TEST_SPLITS[test]), skip_damaged)
    folded = phones == len(FOLDED_PHONES)
    x_train, y_train = windows(_recordings(builder, ("train",), folded, by_speaker), every)
    x_test, y_test = windows(_recordings(builder, _TEST_SPLITS[test], folded, by_speaker))
    return Arrays(x_train, y_train, x_test, y_test)


def _prepared(data_dir: Path | None, manual_dir: Path | None, download: bool, skip_damaged: bool) -> Any:
    tfds = import_tfds()
    from .timit.builder import Timit

    config = "skip_damaged" if skip_damaged else "undamaged"
    builder = find_builder("timit", data_dir, lambda folder: Timit(data_dir=folder, config=config))
    if builder.is_prepared():
        return builder
    where = f"TIMIT is not prepared in {builder.data_dir_root} (looked for {builder.data_dir})"
    if not download:
        raise DatasetNotFoundError(f"{where}, and download=False forbids preparing it. {HOW_TO_OBTAIN}")
    root = pathlib.Path(builder.data_dir_root).expanduser()
    manual = pathlib.Path(manual_dir or root / "downloads" / "manual").expanduser()
    try:
        if find_corpus(manual) is None:
            raise DatasetNotFoundError(
                f"{where}, and its corpus is not in manual_dir, {manual}. {HOW_TO_OBTAIN} Another manual_dir "
                "is passed as `keras_rwinit.data.load_timit(manual_dir=FOLDER)`."
            )
        with quiet(), no_progress():
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    except OSError as error:
        raise DatasetNotFoundError(
            f"{where}, and preparing it failed with {type(error).__name__}: {error}. Check the space "
            f"in that folder, and the permissions there and in {manual}."
        ) from error
    return builder


def _check_whole(builder: Any, splits: tuple[str, ...], skip_damaged: bool) -> None:
    """Refuses a corpus of which a part is missing, or tells what is left out where that is wanted."""
    infos = builder.info.splits
    found = {name: infos[name].num_examples if name in infos else 0 for name in splits}
    short = [name for name in splits if found[name] != SENTENCES[name]]
    if not short:
        return
    counts = ", ".join(f"{found[name]} of {SENTENCES[name]} sentences of {name}" for name in short)
    folder = builder.data_dir
    if not skip_damaged:
        raise DatasetNotFoundError(
            f"The TIMIT in {folder} was prepared from an incomplete corpus. Received: {counts}. Complete the "
            "corpus, delete that folder and load it again, or take what there is: "
            "`keras_rwinit.data.load_timit(skip_damaged=True)`."
        )
    empty = [name for name in short if not found[name]]
    if empty:
        raise DatasetNotFoundError(f"No sentence of {', '.join(empty)} is in {folder}.")
    damaged = builder.info.metadata["skipped"]
    named = "\n".join([f" {len(damaged)} damaged:", *damaged]) if damaged else ""
    warnings.warn(
        f"The TIMIT in {folder} has {counts}. To have the others, mend or complete the corpus and delete "
        f"that folder.{named}",
        stacklevel=4,
    )


def _recordings(builder: Any, splits: tuple[str, ...], folded: bool, by_speaker: bool) -> list[LabeledFrames]:
    recordings: list[LabeledFrames] = []
    of_speaker: dict[bytes, list[NDArray[np.float32]]] = {}
    for split in splits:
        for example in iterate_examples(builder, split):
            features = frame_features(example["audio"], SAMPLE_RATE)
            said = example["phones"]
            centers = np.arange(len(features)) * hop_samples(SAMPLE_RATE) + window_samples(SAMPLE_RATE) // 2
            labels = phones_of_frames(said["start"], said["stop"], said["label"], centers)
            recordings.append(LabeledFrames(features, fold(labels) if folded else labels))
            of_speaker.setdefault(example["speaker"], []).append(features)
    if by_speaker:
        for own in of_speaker.values():
            _normalize(own)
    return recordings


def _normalize(recordings: list[NDArray[np.float32]]) -> None:
    """Gives every feature zero mean and unit variance over all frames of a speaker, in place."""
    (standard,) = _standardize(np.concatenate(recordings))
    start = 0
    for features in recordings:
        features[:] = standard[start : start + len(features)]
        start += len(features)
