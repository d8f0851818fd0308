"""The data that a search trains on: where they are from, what is held out, and a copy for its workers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_rwinit import data
from keras_rwinit._files import write_atomically
from keras_rwinit.data import Dataset

__all__ = ["DataSource", "TrainingSet", "load_data", "load_saved_data", "save_data", "split_training_set"]

_HELD_OUT = 0.2
_SPLIT_STREAM = 2  # differs from the streams of `run_seed`
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class DataSource:
    """What the settings record of a search's data.

    Args:
        dataset: Name of the data set.
        load: Whether `keras_rwinit.data.load` knows it by that name.
        data_dir: Directory to load it from. `None`: the default one.
        sha256: Hash of the training examples and labels.
    """

    dataset: str
    load: bool
    data_dir: str | None
    sha256: str


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The training examples of a data set, a part of them held out for validation."""

    x: NDArray[np.float32]
    y: NDArray[np.int32]
    x_validation: NDArray[np.float32]
    y_validation: NDArray[np.int32]


def split_training_set(dataset: Dataset, seed: int) -> TrainingSet:
    """Holds out a fifth of the training examples; the test set is not used."""
    order = np.random.default_rng([seed, _SPLIT_STREAM]).permutation(len(dataset.x_train))
    held_out = max(int(len(order) * _HELD_OUT), 1)
    if held_out >= len(order):
        raise ValueError(f"A search needs at least two training examples. Received: {len(order)}")
    rest, out = order[held_out:], order[:held_out]
    return TrainingSet(
        dataset.x_train[rest], dataset.y_train[rest], dataset.x_train[out], dataset.y_train[out]
    )


def load_data(source: str | Dataset, data_dir: str | Path | None = None) -> tuple[Dataset, DataSource]:
    """Returns the data and what the settings record of them."""
    dataset = source if isinstance(source, Dataset) else data.load(source, data_dir)
    # The test set is not part of the hash, because a search does not use it.
    digest = hashlib.sha256()
    for array in (dataset.x_train, dataset.y_train):
        digest.update(np.ascontiguousarray(array).tobytes())
    by_name = not isinstance(source, Dataset)
    resolved = str(Path(data_dir).resolve()) if by_name and data_dir is not None else None
    return dataset, DataSource(dataset.name, by_name, resolved, digest.hexdigest())


def save_data(dataset: Dataset, source: DataSource, directory: Path) -> None:
    """Writes data that `keras_rwinit.data.load` does not have to the search's directory, for its workers."""
    path = directory / "data.npz"
    if source.load or path.exists():
        return
    arrays = {name: getattr(dataset, name) for name in _ARRAYS}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, classes=np.array(dataset.classes), **arrays)

    write_atomically(path, write)


def load_saved_data(source: DataSource, directory: Path) -> Dataset:
    """Returns the data of the search in `directory`."""
    if source.load:
        return data.load(source.dataset, source.data_dir)
    with np.load(directory / "data.npz") as arrays:
        parts = {name: arrays[name] for name in _ARRAYS}
        return Dataset(source.dataset, classes=int(arrays["classes"]), **parts)
