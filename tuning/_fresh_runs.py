"""Training of the best point and of the analytic one again, under fresh seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import keras_tuner
from keras_tuner.errors import FatalError
from rich.console import Console

from keras_rwinit._files import DAMAGE, read_json, write_json

from ._comparison import Comparison
from ._results import SearchResult
from ._trainer import NetworkTrainer
from ._trial_files import read_hyperparameters
from .settings import run_seed

__all__ = ["compare_best"]

Scores: TypeAlias = dict[str, float | None]
"""Score of each run of a trial, by the index of its seed; None if the run failed."""


def compare_best(
    trainer: NetworkTrainer, result: SearchResult, directory: Path, console: Console
) -> Comparison | None:
    """Trains the best and the analytic point under fresh seeds.

    Each score is kept in `seeds.json`, so that a resumed search trains no network twice.

    Returns:
        The comparison; None if the analytic point is the best, or the settings ask for no seeds.
    """
    best, seeds = result.best, trainer.settings.seeds
    if not seeds or best is None or best.trial == result[0].trial:
        return None
    path = directory / "seeds.json"
    kept = _read_scores(path) if path.exists() else {}
    scores: list[tuple[float | None, ...]] = []
    for trial in (best.trial, result[0].trial):
        hp = read_hyperparameters(directory, trial)
        runs = kept.setdefault(str(trial), {})
        for index in range(seeds):
            if str(index) not in runs:
                console.print(f"  trial {trial} again, fresh seed {index + 1}/{seeds}")
                runs[str(index)] = _train_again(trainer, hp, index, console)
                # After every run, since each takes as long as a trial.
                write_json(path, kept)
        scores.append(tuple(runs[str(index)] for index in range(seeds)))
    return Comparison(*scores)


def _read_scores(path: Path) -> dict[str, Scores]:
    try:
        return {
            str(trial): {index: None if score is None else float(score) for index, score in runs.items()}
            for trial, runs in read_json(path).items()
        }
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged. Delete it to train those networks again.") from error


def _train_again(
    trainer: NetworkTrainer, hp: keras_tuner.HyperParameters, index: int, console: Console
) -> float | None:
    try:
        return trainer.train(hp, run_seed(trainer.settings.seed, index, comparison=True))
    except FatalError:
        raise
    except Exception as error:  # such as divergence or MemoryError, which is a result for this point
        console.print(f"  failed: {type(error).__name__}: {error}")
        return None
