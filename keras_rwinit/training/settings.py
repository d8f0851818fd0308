"""`Settings`: everything that determines a training run, as saved in its directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_type_hints

from keras_rwinit._checks import check_count, check_positive
from keras_rwinit._files import read_settings, write_settings

__all__ = ["Settings"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that determines a run; saved in its directory as `settings.json`."""

    dataset: str
    data_dir: str | None
    depth: int
    width: int
    activation: str
    distribution: str
    initializer: str
    compare: str | None
    optimizer: str
    learning_rate: float
    cosine_decay: bool
    batch_size: int
    epochs: int
    seed: int
    backend: str
    # Files of earlier releases lack the fields below.
    strategy: str = "none"
    input_gain: float | None = None
    output_gain: float | None = None
    bias_stddev: float | None = None

    def __post_init__(self) -> None:
        # Settings also come from files, which hold anything.
        for name, kind in get_type_hints(type(self)).items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"`{name}` must be {kind}. Received: {name}={getattr(self, name)!r}")
        for name in ("depth", "width", "batch_size", "epochs"):
            check_count(name, getattr(self, name))
        check_count("seed", self.seed, minimum=0)
        check_positive("learning_rate", self.learning_rate)
        for name in ("input_gain", "output_gain", "bias_stddev"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))

    @property
    def networks(self) -> list[str]:
        """Initializers of the networks to train, the run's own first."""
        return [self.initializer, *([self.compare] if self.compare else [])]

    @classmethod
    def load(cls, directory: Path) -> Settings:
        """Returns the settings of the run in `directory`; ValueError if there is none."""
        return read_settings(directory, "run", lambda content: cls(**content))

    def save(self, directory: Path) -> None:
        """Writes the settings to a run's directory."""
        write_settings(directory, dataclasses.asdict(self))
