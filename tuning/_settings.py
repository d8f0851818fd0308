"""What determines a search, saved in its folder, and the data it trains on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_rwinit import data
from keras_rwinit._checks import check_count
from keras_rwinit._files import write_atomically, write_json
from keras_rwinit.data import Dataset

from .hypermodel import DeepMLPHyperModel

__all__ = [
    "OBJECTIVES",
    "SearchSettings",
    "TrainingSet",
    "load_data",
    "run_seed",
    "save_data",
    "training_set",
]

OBJECTIVES = ("val_loss", "loss", "val_accuracy", "accuracy")
_HELD_OUT = 0.2
_TRIALS, _RUNS, _SPLIT = 0, 1, 2  # streams of seeds


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Everything that determines a search's trials and table; saved as `settings.json`."""

    data: dict[str, Any]
    space: dict[str, Any]
    objective: str
    trials: int
    epochs: int
    batch_size: int
    executions_per_trial: int
    seeds: int
    seed: int
    backend: str
    dtype_policy: str

    def __post_init__(self) -> None:
        for name in ("trials", "epochs", "batch_size", "executions_per_trial"):
            check_count(name, getattr(self, name))
        check_count("seed", self.seed, minimum=0)
        if check_count("seeds", self.seeds, minimum=0) == 1:
            raise ValueError(
                "The noise between seeds takes `seeds` of at least 2, or 0 for none. Received: 1"
            )
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"`objective` must be one of {', '.join(OBJECTIVES)}. Received: {self.objective!r}"
            )

    @property
    def direction(self) -> str:
        """Whether the objective is to be minimized, `"min"`, or maximized, `"max"`."""
        return "max" if self.objective.endswith("accuracy") else "min"

    def hypermodel(self) -> DeepMLPHyperModel:
        """The space, as it was saved."""
        return DeepMLPHyperModel(**self.space)

    def save(self, folder: Path) -> None:
        """Writes `settings.json`."""
        write_json(folder / "settings.json", _encoded(dataclasses.asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> SearchSettings:
        """Settings of the search in `folder`; ValueError if there is none."""
        path = folder / "settings.json"
        try:
            settings = cls(**_decoded(json.loads(path.read_text(encoding="utf-8"))))
            settings.hypermodel()
            settings.data["load"], settings.data["dataset"], settings.data["data_dir"]
            return settings
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise ValueError(
                f"There is no search to go on with in {folder}: {path} is missing or damaged."
            ) from error

    def check_same(self, folder: Path) -> None:
        """ValueError unless the search in `folder` has these settings."""
        theirs, own = dataclasses.asdict(self.load(folder)), dataclasses.asdict(self)
        for part in ("space", "data"):  # the space's own seed is not in use here
            theirs, own = {**theirs.pop(part), **theirs}, {**own.pop(part), **own}
        changed = [
            f"{name} {theirs.get(name)!r}, not {own.get(name)!r}"
            for name in sorted(theirs.keys() | own.keys())
            if theirs.get(name) != own.get(name)
        ]
        if changed:
            raise ValueError(
                f"The search in {folder} has other settings: {'; '.join(changed)}. Go on with those, or "
                "choose another folder."
            )


def _encoded(value: Any) -> Any:
    """`value` with its tuples marked: a range is not a list of choices."""
    if isinstance(value, dict):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {"tuple": [_encoded(item) for item in value]}
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"tuple"}:
            return tuple(_decoded(item) for item in value["tuple"])
        return {key: _decoded(item) for key, item in value.items()}
    return value


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSet:
    """The training examples of a data set, a part of them held out for validation."""

    x: NDArray[np.float32]
    y: NDArray[np.int32]
    x_validation: NDArray[np.float32]
    y_validation: NDArray[np.int32]


def training_set(dataset: Dataset, seed: int) -> TrainingSet:
    """Holds a fifth of the training examples out. The test set is left for who has made a choice."""
    order = np.random.default_rng([seed, _SPLIT]).permutation(len(dataset.x_train))
    held_out = max(int(len(order) * _HELD_OUT), 1)
    if held_out >= len(order):
        raise ValueError(f"A search needs at least two training examples. Received: {len(order)}")
    rest, out = order[held_out:], order[:held_out]
    return TrainingSet(
        dataset.x_train[rest], dataset.y_train[rest], dataset.x_train[out], dataset.y_train[out]
    )


def run_seed(seed: int, index: int, again: bool = False) -> int:
    """Seed of the `index`-th execution of every trial, or of the `index`-th run `again` of a few."""
    stream = _RUNS if again else _TRIALS
    return int(np.random.SeedSequence([seed, stream, index]).generate_state(1)[0]) % 2**31


def load_data(source: str | Dataset, data_dir: Any = None) -> tuple[Dataset, dict[str, Any]]:
    """The data and, for the settings, where they are from and what they were."""
    dataset = source if isinstance(source, Dataset) else data.load(source, data_dir)
    digest = hashlib.sha256()
    for array in (dataset.x_train, dataset.y_train):
        digest.update(np.ascontiguousarray(array).tobytes())
    named = not isinstance(source, Dataset)
    return dataset, {
        "dataset": dataset.name,
        "load": named,
        "data_dir": str(Path(data_dir).resolve()) if named and data_dir is not None else None,
        "sha256": digest.hexdigest(),
    }


def save_data(dataset: Dataset, settings: SearchSettings, folder: Path) -> None:
    """Leaves data without a name of `data.load`'s in the folder, for the workers."""
    path = folder / "data.npz"
    if settings.data["load"] or path.exists():
        return
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays: dict[str, Any] = {name: getattr(dataset, name) for name in names}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, classes=np.array(dataset.classes), **arrays)

    write_atomically(path, write)


def load_kept_data(settings: SearchSettings, folder: Path) -> Dataset:
    """The data of the search in `folder`, in a worker."""
    if settings.data["load"]:
        return data.load(settings.data["dataset"], settings.data["data_dir"])
    with np.load(folder / "data.npz") as arrays:
        parts = {name: arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")}
        return Dataset(settings.data["dataset"], classes=int(arrays["classes"]), **parts)
