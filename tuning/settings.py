"""Everything that determines a search: its options, and the settings saved in its directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_rwinit._checks import check_count
from keras_rwinit._files import read_settings, write_settings

from ._data import DataSource
from ._losses import check_objective, direction
from .hypermodel import DeepMLPHyperModel

__all__ = ["SearchOptions", "SearchSettings", "run_seed"]

# Independent streams of seeds: the networks of trials, and those that compare two trials at the end.
_TRIAL_STREAM, _COMPARISON_STREAM = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What a search does with its data and its space; `tuning.search` describes each option.

    Raises:
        ValueError: An option is out of its range.
    """

    objective: str = "val_loss"
    trials: int = 20
    epochs: int = 2
    batch_size: int = 32
    executions_per_trial: int = 1
    seeds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("trials", "epochs", "batch_size", "executions_per_trial"):
            check_count(name, getattr(self, name))
        check_count("seed", self.seed, minimum=0)
        if check_count("seeds", self.seeds, minimum=0) == 1:
            raise ValueError("`seeds` must be 0 or at least 2: one run does not show the noise. Received: 1")

    @property
    def direction(self) -> Literal["min", "max"]:
        """Whether the objective is minimized or maximized."""
        return direction(self.objective)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings(SearchOptions):
    """Everything that determines a search's trials and table; saved as `settings.json`."""

    data: DataSource
    space: dict[str, Any]
    backend: str
    dtype_policy: str
    # Files of earlier releases lack it: all their trials train at the learning rate of width 64.
    rate_width: int | None = 64

    @classmethod
    def from_options(
        cls, options: SearchOptions, data: DataSource, hypermodel: DeepMLPHyperModel
    ) -> SearchSettings:
        """Returns the settings of a search on this back end and under this dtype policy.

        Raises:
            ValueError: The networks of the space cannot be compared by the objective.
        """
        check_objective(options.objective, hypermodel.loss)
        values = {field.name: getattr(options, field.name) for field in dataclasses.fields(SearchOptions)}
        return cls(
            **values,
            data=data,
            space=hypermodel.get_config(),
            backend=keras.backend.backend(),
            dtype_policy=keras.config.dtype_policy().name,
            rate_width=hypermodel.rate_width,
        )

    def make_hypermodel(self) -> DeepMLPHyperModel:
        """Returns the saved space."""
        hypermodel = DeepMLPHyperModel(**self.space)
        if self.rate_width is not None:
            hypermodel.rate_width = check_count("rate_width", self.rate_width)
        return hypermodel

    def save(self, directory: Path) -> None:
        """Writes `settings.json`."""
        write_settings(directory, dataclasses.asdict(self))

    @classmethod
    def load(cls, directory: Path) -> SearchSettings:
        """Returns the settings of the search in `directory`; ValueError if there is none."""
        return read_settings(directory, "search", cls._from_content)

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> SearchSettings:
        settings = cls(**{**content, "data": DataSource(**content["data"])})
        hypermodel = settings.make_hypermodel()  # checks the space's arguments
        check_objective(settings.objective, hypermodel.loss)
        return settings

    def check_same(self, directory: Path) -> None:
        """Raises ValueError unless the search in `directory` has these settings."""
        saved, given = self.load(directory)._flatten(), self._flatten()
        changed = [
            f"{name} {saved.get(name)!r}, not {given.get(name)!r}"
            for name in sorted(saved.keys() | given.keys())
            if saved.get(name) != given.get(name)
        ]
        if changed:
            raise ValueError(
                f"The search in {directory} has other settings: {'; '.join(changed)}. Resume with those, or "
                "choose another directory."
            )

    def _flatten(self) -> dict[str, object]:
        """Returns all settings by name; the search's own seed hides that of the space, which it replaces."""
        content = dataclasses.asdict(self)
        return {**content.pop("space"), **content.pop("data"), **content}


def run_seed(seed: int, index: int, *, comparison: bool = False) -> int:
    """Returns the seed of execution `index` of every trial, or of run `index` of the comparison."""
    stream = _COMPARISON_STREAM if comparison else _TRIAL_STREAM
    return int(np.random.SeedSequence([seed, stream, index]).generate_state(1)[0]) % 2**31
