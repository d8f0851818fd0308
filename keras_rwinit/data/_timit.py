"""`load_timit`, which reads TIMIT as frames of speech, each labeled with the phone at its center."""

from __future__ import annotations

import pathlib
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count

from ._dataset import Dataset
from ._frames import LabeledFrames, frame_features, make_windows
from ._log_mel import hop_samples, window_samples
from ._source import Arrays, StrPath
from ._standardize import standardize as _standardize
from ._tfds import (
    DatasetNotFoundError,
    find_builder,
    import_tfds,
    iterate_examples,
    no_progress,
    quiet,
    readable,
)
from .timit.audio import SAMPLE_RATE
from .timit.corpus import HOW_TO_OBTAIN, find_corpus
from .timit.labels import phones_of_frames
from .timit.phones import FOLDED_PHONES, PHONES, fold
from .timit.speakers import SENTENCES

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

__all__ = ["load_timit", "timit_arrays"]

_TEST_SPLITS = {
    "core_test": ("core_test",),
    "validation": ("validation",),
    "complete_test": ("validation", "core_test", "other_test"),
}
_EVERY = 4


def load_timit(
    data_dir: StrPath | None = None,
    *,
    manual_dir: StrPath | None = None,
    phones: int = len(FOLDED_PHONES),
    every: int = _EVERY,
    test: str = "core_test",
    by_speaker: bool = False,
    skip_damaged: bool = False,
    download: bool = True,
    standardize: bool = True,
) -> Dataset:
    """Loads the frames of TIMIT, each with its phone; `load("timit")` uses the defaults.

    An input consists of 40 log-mel bands from 0 to 8 kHz, their deltas and the deltas of those, of
    the frame and of five frames on either side, 11 x 120 = 1320 features. Frames are 25 ms long,
    one every 10 ms; the label is the phone at the frame's center. The training set has the
    corpus's 3696 sentences of 462 speakers, the test set the 192 sentences of 24 other speakers
    of the core test set, both without the SA sentences.

    Frames without a label are not examples. With 39 classes, the same holds for frames of the
    glottal stop (q), which the folding removes. Both stay in the context of their neighbors.

    TIMIT has about 1.1 million training frames. With its context a frame takes 5.3 kB, all of them
    5.9 GB. By default every fourth training frame is an example, 1.5 GB; neighboring windows share
    ten frames of eleven. Loading these peaks at 5.2 GB of memory, since standardization holds them
    twice; `keras-rwinit train` peaks at 7.5 GB (measured on a synthetic corpus of TIMIT's size).
    `every=1` takes all frames: 15 GB to load, more to train. The test set always has all of its
    frames, 0.3 GB for the core test set.

    The corpus is licensed. Put your copy into `manual_dir`; it is read once, prepared in
    `data_dir` (0.5 GB), and read from there afterwards.

    Args:
        data_dir: Directory of prepared TFDS sets. `None`: the environment variable TFDS_DATA_DIR, or
            `~/tensorflow_datasets` if that is unset.
        manual_dir: Directory of the corpus, with TRAIN and TEST in it or at most three levels below.
            `None`: `downloads/manual` in `data_dir`, TFDS's own default.
        phones: 39, the classes of Lee and Hon's folding (`timit.FOLDED_PHONES`), or 61, all phones
            (`timit.PHONES`).
        every: Which training frames are examples: 1, all; 4, the first of every four.
        test: The test set: "core_test"; "validation", Halberstadt's 400 sentences of 50 other
            speakers, for choosing settings; or "complete_test", all 1344 sentences.
        by_speaker: Whether to first give the features zero mean and unit variance over the frames
            of each speaker. No label is used for it.
        skip_damaged: Whether to leave out damaged sentences and to accept an incomplete corpus. A
            warning counts the missing sentences and names the damaged files.
        download: Whether to prepare the set from `manual_dir` if it is not prepared.
        standardize: See `load`. `False`: nats, and nats per frame.

    Returns:
        A `Dataset` named "timit".

    Raises:
        DatasetNotFoundError: (a ValueError) If the set is not in `data_dir` and the corpus is not
            in `manual_dir`, or if sentences are missing. The message says how to obtain the corpus
            and where to put it.
        DamagedFileError: (a ValueError) If files of the corpus are damaged; it names them.
        ValueError: If another argument is invalid.
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
    data_dir: StrPath | None,
    download: bool,
    *,
    manual_dir: StrPath | None = None,
    phones: int = len(FOLDED_PHONES),
    every: int = _EVERY,
    test: str = "core_test",
    by_speaker: bool = False,
    skip_damaged: bool = False,
) -> Arrays:
    """Returns the arrays of `load_timit` before standardization; its arguments are explained there."""
    if not isinstance(phones, int) or phones not in (len(FOLDED_PHONES), len(PHONES)):
        raise ValueError(f"`phones` must be 39, the folded ones, or 61, all. Received: phones={phones!r}.")
    if not isinstance(test, str) or test not in _TEST_SPLITS:
        raise ValueError(f"`test` must be one of {', '.join(_TEST_SPLITS)}. Received: test={test!r}.")
    every = check_count("every", every)
    builder = _prepare(data_dir, manual_dir, download, skip_damaged)
    _check_complete(builder, ("train", *_TEST_SPLITS[test]), skip_damaged)
    folded = phones == len(FOLDED_PHONES)
    x_train, y_train = make_windows(_recordings(builder, ("train",), folded, by_speaker), every)
    x_test, y_test = make_windows(_recordings(builder, _TEST_SPLITS[test], folded, by_speaker))
    return Arrays(x_train, y_train, x_test, y_test)


def _prepare(
    data_dir: StrPath | None, manual_dir: StrPath | None, download: bool, skip_damaged: bool
) -> tfds.core.DatasetBuilder:
    """Returns the builder of TIMIT, after preparing it from the corpus if need be."""
    tfds = import_tfds()
    from .timit.builder import Timit

    config = "skip_damaged" if skip_damaged else "undamaged"
    builder = find_builder("timit", data_dir, lambda directory: Timit(data_dir=directory, config=config))
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
                f"{where}, and its corpus is not in manual_dir, {manual}. {HOW_TO_OBTAIN} For another "
                "manual_dir call `keras_rwinit.data.load_timit(manual_dir=DIRECTORY)`."
            )
        with quiet(), no_progress():
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    except OSError as error:
        raise DatasetNotFoundError(
            f"{where}, and preparing it failed with {type(error).__name__}: {error}. Check the space "
            f"in that directory, and the permissions there and in {manual}."
        ) from error
    return builder


def _check_complete(builder: tfds.core.DatasetBuilder, splits: tuple[str, ...], skip_damaged: bool) -> None:
    """Raises an error if sentences are missing, or only warns if `skip_damaged` is set."""
    with readable(builder):
        infos = builder.info.splits
        found = {name: infos[name].num_examples if name in infos else 0 for name in splits}
    short = [name for name in splits if found[name] != SENTENCES[name]]
    if not short:
        return
    counts = ", ".join(f"{found[name]} of {SENTENCES[name]} sentences of {name}" for name in short)
    directory = builder.data_dir
    if not skip_damaged:
        raise DatasetNotFoundError(
            f"The TIMIT in {directory} was prepared from an incomplete corpus. Received: {counts}. Complete "
            "the corpus, delete that directory and load it again, or use the sentences that are there: "
            "`keras_rwinit.data.load_timit(skip_damaged=True)`."
        )
    # `skip_damaged` accepts gaps, but no set without examples.
    empty = [name for name in short if not found[name]]
    if empty:
        raise DatasetNotFoundError(f"No sentence of {', '.join(empty)} is in {directory}.")
    with readable(builder):
        damaged = builder.info.metadata["skipped"]
        named = "\n".join([f" {len(damaged)} damaged:", *damaged]) if damaged else ""
    warnings.warn(
        f"The TIMIT in {directory} has {counts}. To load the others, repair or complete the corpus and "
        f"delete that directory.{named}",
        stacklevel=4,
    )


def _recordings(
    builder: tfds.core.DatasetBuilder, splits: tuple[str, ...], folded: bool, by_speaker: bool
) -> list[LabeledFrames]:
    """Returns features and labels of all sentences of the splits."""
    recordings: list[LabeledFrames] = []
    of_speaker: dict[bytes, list[NDArray[np.float32]]] = {}
    for split in splits:
        for example in iterate_examples(builder, split):
            features = frame_features(example["audio"], SAMPLE_RATE)
            segments = example["phones"]
            centers = np.arange(len(features)) * hop_samples(SAMPLE_RATE) + window_samples(SAMPLE_RATE) // 2
            labels = phones_of_frames(segments["start"], segments["stop"], segments["label"], centers)
            recordings.append(LabeledFrames(features, fold(labels) if folded else labels))
            of_speaker.setdefault(example["speaker"], []).append(features)
    # In place, which changes `recordings` too; a speaker's statistics take all of the speaker's frames.
    if by_speaker:
        for features_of_one in of_speaker.values():
            _normalize_in_place(features_of_one)
    return recordings


def _normalize_in_place(recordings: list[NDArray[np.float32]]) -> None:
    """Gives every feature zero mean and unit variance over all recordings of one speaker."""
    normalized = _standardize(np.concatenate(recordings))
    start = 0
    for features in recordings:
        features[:] = normalized[start : start + len(features)]
        start += len(features)
