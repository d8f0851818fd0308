"""The data that a search trains on: where they are from, what is held out, and a copy for its workers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_rwinit import data
from keras_rwinit._checks import check_real
from keras_rwinit._files import write_atomically
from keras_rwinit.data import Dataset, validate

from .hypermodel import DeepMLPHyperModel

__all__ = [
    "DataSource",
    "Examples",
    "SearchData",
    "TrainingSet",
    "load_data",
    "load_saved_data",
    "save_data",
    "split_training_set",
]

Array: TypeAlias = NDArray[np.generic]

SearchData: TypeAlias = str | Dataset | tuple[ArrayLike, ArrayLike]
"""What a user searches on: the name of a data set, a `Dataset`, or inputs and targets."""

_HELD_OUT = 0.2
_SPLIT_STREAM = 2  # differs from the streams of `run_seed`


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
class Examples:
    """Examples to train with.

    Args:
        x: Inputs, float32, shape (examples, ...).
        y: Labels, int32, shape (examples,), or real targets, float32, shape (examples, outputs).
        outputs: Number of classes, or of targets of an example.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int32] | NDArray[np.float32]
    outputs: int


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Examples to train with, a part of them held out for validation."""

    x: NDArray[np.float32]
    y: NDArray[np.int32] | NDArray[np.float32]
    x_validation: NDArray[np.float32]
    y_validation: NDArray[np.int32] | NDArray[np.float32]


def split_training_set(examples: Examples, seed: int) -> TrainingSet:
    """Holds out a fifth of the examples."""
    order = np.random.default_rng([seed, _SPLIT_STREAM]).permutation(len(examples.x))
    held_out = max(int(len(order) * _HELD_OUT), 1)
    if held_out >= len(order):
        raise ValueError(f"A search needs at least two training examples. Received: {len(order)}")
    rest, out = order[held_out:], order[:held_out]
    return TrainingSet(examples.x[rest], examples.y[rest], examples.x[out], examples.y[out])


def load_data(
    source: SearchData, hypermodel: DeepMLPHyperModel | None = None, data_dir: str | Path | None = None
) -> tuple[Examples, DataSource]:
    """Returns the training examples and what the settings record of them.

    Args:
        source: What the user gave.
        hypermodel: The space, which says whether the targets are labels or real.
        data_dir: See `keras_rwinit.data.load`.

    Raises:
        ValueError: The data cannot train the networks of the space.
    """
    by_name, name = isinstance(source, str), "arrays"
    if isinstance(source, str | Dataset):
        dataset = data.load(source, data_dir) if isinstance(source, str) else source
        if hypermodel is not None and hypermodel.loss is not None:
            raise ValueError(
                f"{dataset.name} has labels: leave `loss` out, or pass a pair of arrays (x, y). "
                f"Received: loss={hypermodel.loss!r}"
            )
        # The test set is left to the user.
        examples, name = Examples(dataset.x_train, dataset.y_train, dataset.classes), dataset.name
    elif isinstance(source, tuple | list) and len(source) == 2:
        examples = _check_arrays(*source, hypermodel)
    else:
        raise ValueError(
            "`data` must be the name of a data set, a `keras_rwinit.data.Dataset` or a pair of arrays (x, y)."
            f" Received: {type(source).__name__}"
        )
    digest = hashlib.sha256()
    for array in (examples.x, examples.y):
        digest.update(np.ascontiguousarray(array).tobytes())
    resolved = str(Path(data_dir).resolve()) if by_name and data_dir is not None else None
    return examples, DataSource(name, by_name, resolved, digest.hexdigest())


def _check_arrays(x: ArrayLike, y: ArrayLike, hypermodel: DeepMLPHyperModel | None) -> Examples:
    """Returns a user's arrays as examples of labels or, if the space has a `loss`, of real targets."""
    targets = check_real("y", y)
    if hypermodel is None and targets.dtype.kind == "f":
        raise ValueError(
            f"`y` holds real numbers, of dtype {targets.dtype}. For regression, pass a space with a loss: "
            'DeepMLPHyperModel(input_shape, outputs, loss="mse"). For labels, pass `y.astype("int32")`.'
        )
    if hypermodel is None or hypermodel.loss is None:
        classes = hypermodel.classes if hypermodel is not None else max(int(targets.max()), 0) + 1
        validate(x, targets, classes)
        return Examples(_as_float32("x", np.asarray(x)), targets.astype(np.int32), classes)
    targets = targets[:, None] if targets.ndim == 1 else targets
    if targets.ndim != 2:
        raise ValueError(
            f"`y` must have the shape (examples,) or (examples, outputs). Received: shape {targets.shape}"
        )
    # All that is asked of the inputs is asked of those of a classifier too.
    validate(x, np.zeros(len(targets), np.int32), 1)
    return Examples(_as_float32("x", np.asarray(x)), _as_float32("y", targets), targets.shape[1])


def _as_float32(name: str, array: Array) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        raise ValueError(
            f"`{name}` must hold numbers in the range of float32, up to 3.4e38. Received: values up to "
            f"{np.abs(array).max():.2g}; scale them."
        )
    return converted


def save_data(examples: Examples, source: DataSource, directory: Path) -> None:
    """Writes data that `keras_rwinit.data.load` does not have to the search's directory, for its workers."""
    path = directory / "data.npz"
    if source.load or path.exists():
        return

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, x_train=examples.x, y_train=examples.y, classes=np.array(examples.outputs))

    write_atomically(path, write)


def load_saved_data(source: DataSource, directory: Path) -> Examples:
    """Returns the examples of the search in `directory`."""
    if source.load:
        return load_data(source.dataset, data_dir=source.data_dir)[0]
    with np.load(directory / "data.npz") as arrays:
        return Examples(arrays["x_train"], arrays["y_train"], int(arrays["classes"]))
