"""A search from its arguments to its files: by this process, by several, or this one's part of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FatalError
from rich.console import Console

from keras_rwinit._files import locked, new_folder, write_json
from keras_rwinit.data import Dataset

from ._processes.chief import check_port_free, serve
from ._processes.heartbeat import check_chief
from ._processes.launch import run_local
from ._processes.role import WORKER, ProcessRole, process_role
from ._processes.worker import work
from ._progress import SearchProgress
from ._results import Comparison, SearchResult
from ._settings import SearchSettings, load_data, run_seed, save_data, training_set
from ._trial_files import read_result, values_of
from ._tuner import TRIALS, make_tuner, train_and_score
from .hypermodel import DeepMLPHyperModel

__all__ = ["SearchJob"]


class SearchJob:
    """A search, its arguments checked, its data loaded, nothing written.

    Args:
        data: Name for `keras_rwinit.data.load`, or a `Dataset`.
        hypermodel: The space. `None`: `DeepMLPHyperModel` with its defaults, for the data.
        data_dir: See `keras_rwinit.data.load`.
        console: Where to show the progress. `None`: nowhere.
        **options: The other fields of `SearchSettings`.

    Raises:
        ValueError: An argument is wrong, the space is a single point or is for other data.
    """

    def __init__(
        self,
        data: str | Dataset,
        hypermodel: DeepMLPHyperModel | None,
        data_dir: str | Path | None,
        console: Console | None,
        **options: Any,
    ) -> None:
        self.dataset, source = load_data(data, data_dir)
        self.hypermodel = (
            DeepMLPHyperModel((self.dataset.features,), self.dataset.classes)
            if hypermodel is None
            else hypermodel
        )
        _check_fits_data(self.hypermodel, self.dataset)
        self.settings = SearchSettings(
            data=source,
            space=self.hypermodel.get_config(),
            backend=keras.backend.backend(),
            dtype_policy=keras.config.dtype_policy().name,
            **options,
        )
        self.examples = training_set(self.dataset, self.settings.seed)
        self.console = console or Console(quiet=True)

    def start(self, folder: Path, workers: int = 1, resume: bool = False) -> SearchResult:
        """Runs the search, or this process's part of it, in a new folder, or the one it began in.

        Raises:
            ValueError: The folder holds another search, another process is at work in it, or a port or chief
                of a search over several processes is not there.
            ChildProcessError: (an OSError) The chief, or every worker, has died.
        """
        role = self.role(workers)
        if role is not None and role.role == WORKER:
            check_chief(role.address)  # which has written the settings by now
            self.settings.check_same(folder)
            work(self.settings, folder, role, self.examples)
            return read_result(self.settings, folder, self.hypermodel)
        if role is not None:
            check_port_free(role.address)
        if resume:
            self.settings.check_same(folder)
        else:
            new_folder(folder, Path(), "")
        with locked(folder):
            if not resume:
                if (folder / "settings.json").exists():
                    raise ValueError(
                        f"{folder} is not empty: another search began in it. Choose another folder."
                    )
                self.settings.save(folder)
            return self._run(folder, role, workers)

    def role(self, workers: int) -> ProcessRole | None:
        """The part of this process in a search over several machines; None if it works alone."""
        found = process_role()
        if found is not None and workers > 1:
            raise ValueError(
                "A chief or worker of a search over several machines starts no workers of its own: leave "
                f"`workers` out, or unset KERASTUNER_TUNER_ID. Received: workers={workers}"
            )
        if type(self.hypermodel) is not DeepMLPHyperModel and (workers > 1 or found is not None):
            raise ValueError(
                "Processes of a search rebuild its space from settings: use DeepMLPHyperModel itself, or one "
                f"worker. Received: a {type(self.hypermodel).__name__}"
            )
        return found

    def _run(self, folder: Path, role: ProcessRole | None, workers: int) -> SearchResult:
        settings, hypermodel = self.settings, self.hypermodel
        before = read_result(settings, folder, hypermodel)
        done = sum(row.status in ("COMPLETED", "FAILED") for row in before)
        with SearchProgress(self.console, settings.trials, done) as progress:
            progress.update(before)
            show = self._shown_by(progress, folder)
            if role is not None:
                serve(make_tuner(settings, folder, hypermodel).oracle, role.address, show)
            elif workers > 1 and done < settings.trials:
                save_data(self.dataset, settings, folder)
                run_local(folder, workers, show)
            else:

                def on_trial(trial: Trial) -> None:
                    show()

                make_tuner(settings, folder, hypermodel, on_trial).search(self.examples)
            show()
        result = read_result(settings, folder, hypermodel, self._compared(folder))
        result.to_csv(folder / "trials.csv")
        result.to_json(folder / "trials.json")
        return result

    def _shown_by(self, progress: SearchProgress, folder: Path) -> Callable[[], None]:
        """Shows the trials if one of their files has changed."""
        latest: list[int] = [0]

        def show() -> None:
            times = [path.stat().st_mtime_ns for path in (folder / TRIALS).glob("trial_*/trial.json")]
            if sum(times) != latest[0]:
                latest[0] = sum(times)
                progress.update(read_result(self.settings, folder, self.hypermodel))

        return show

    def _compared(self, folder: Path) -> Comparison | None:
        """The best and the analytic point under fresh seeds; each run is kept, and made once."""
        result = read_result(self.settings, folder, self.hypermodel)
        best = result.best
        if not self.settings.seeds or best is None or best.trial == result[0].trial:
            return None
        path = folder / "seeds.json"
        kept: dict[str, dict[str, float | None]] = {}
        if path.exists():
            kept = _kept_runs(path)
        scores: list[list[float | None]] = []
        for trial in (best.trial, result[0].trial):
            hp = values_of(folder, trial)
            runs = kept.setdefault(str(trial), {})
            for index in range(self.settings.seeds):
                if str(index) not in runs:
                    self.console.print(
                        f"  trial {trial} again, fresh seed {index + 1}/{self.settings.seeds}",
                        highlight=False,
                    )
                    runs[str(index)] = self._again(hp, index)
                    write_json(path, kept)
            scores.append([runs[str(index)] for index in range(self.settings.seeds)])
        return Comparison(tuple(scores[0]), tuple(scores[1]))

    def _again(self, hp: keras_tuner.HyperParameters, index: int) -> float | None:
        seed = run_seed(self.settings.seed, index, again=True)
        try:
            return train_and_score(self.hypermodel, hp, self.examples, self.settings, seed)
        except FatalError:
            raise
        except Exception as error:  # a run that diverges or runs out of memory says something of its point
            self.console.print(f"  failed: {type(error).__name__}: {error}", highlight=False, markup=False)
            return None


def _kept_runs(path: Path) -> dict[str, dict[str, float | None]]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {str(trial): dict(runs) for trial, runs in kept.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged. Delete it to train those networks again.") from error


def _check_fits_data(hypermodel: DeepMLPHyperModel, dataset: Dataset) -> None:
    if not isinstance(hypermodel, DeepMLPHyperModel):
        raise ValueError(
            "`hypermodel` must be a `DeepMLPHyperModel`; for another, use a tuner of keras-tuner's itself. "
            f"Received: {hypermodel!r}"
        )
    if (hypermodel.input_shape, hypermodel.classes) != ((dataset.features,), dataset.classes):
        raise ValueError(
            f"The space is for inputs of shape {hypermodel.input_shape} and {hypermodel.classes} classes, "
            f"{dataset.name} has {dataset.features} and {dataset.classes}: pass "
            f"input_shape=({dataset.features},), classes={dataset.classes} to DeepMLPHyperModel."
        )
    if not hypermodel.tuned or not hypermodel.tunable:
        raise ValueError(
            "The space is a single point: every hyperparameter is fixed. Give a range (low, high) or a list "
            "of choices for at least one, as in gain_ratio=(0.8, 1.25)."
        )
