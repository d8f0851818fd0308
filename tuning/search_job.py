"""A search from its arguments to its files: by this process alone, by several, or this one's part of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from keras_rwinit._checks import check_count
from keras_rwinit._console import make_console
from keras_rwinit._files import has_settings, locked, new_directory

from ._data import Examples, SearchData, load_data, save_data, split_training_set
from ._fresh_runs import compare_best
from ._oracle import check_trials_exist
from ._processes.channel import make_token
from ._processes.chief import check_port_free, serve
from ._processes.heartbeat import check_chief
from ._processes.launch import run_local
from ._processes.role import ProcessRole, process_role
from ._processes.worker import run_worker
from ._progress import SearchProgress
from ._results import SearchResult
from ._trainer import NetworkTrainer
from ._trial_files import read_result
from ._tuner import make_tuner
from .hypermodel import DeepMLPHyperModel
from .settings import SearchOptions, SearchSettings

__all__ = ["SearchJob"]


class SearchJob:
    """A search whose arguments are checked and whose data are loaded. Nothing is written yet.

    Args:
        data: Name for `keras_rwinit.data.load`, a `Dataset`, or a pair of arrays (x, y).
        hypermodel: The space. `None`: `DeepMLPHyperModel` with its defaults, for the data.
        options: What the search does.
        data_dir: See `keras_rwinit.data.load`.
        workers: Number of worker processes on this machine; 1: this process alone.
        verbose: 1 prints the progress, 0 nothing.

    Attributes:
        role: Role of this process in a search over several machines; None if it is not part of one.
        settings: What the search's directory records.
        trainer: Trains the networks of the search.

    Raises:
        ValueError: An argument is wrong, the space is a single point or is for other data.
    """

    def __init__(
        self,
        data: SearchData,
        hypermodel: DeepMLPHyperModel | None,
        options: SearchOptions,
        *,
        data_dir: str | Path | None = None,
        workers: int = 1,
        verbose: int = 0,
    ) -> None:
        self.workers = check_count("workers", workers)
        if verbose not in (0, 1):
            raise ValueError(f"`verbose` must be 0, for silence, or 1, for progress. Received: {verbose!r}")
        self.console = make_console(quiet=not verbose)
        _check_hypermodel(hypermodel)
        self.examples, source = load_data(data, hypermodel, data_dir)
        if hypermodel is None:
            hypermodel = DeepMLPHyperModel(self.examples.x.shape[1:], self.examples.outputs)
        self.hypermodel = hypermodel
        _check_fits_data(hypermodel, self.examples, source.dataset)
        self.role = _check_role(hypermodel, workers)
        self.settings = SearchSettings.from_options(options, source, hypermodel)
        self.trainer = NetworkTrainer(
            hypermodel, self.settings, split_training_set(self.examples, self.settings.seed)
        )

    @classmethod
    def from_directory(cls, directory: Path, *, workers: int = 1, verbose: int = 0) -> SearchJob:
        """Returns the search that began in `directory`.

        Raises:
            ValueError: There is none, or its data cannot be loaded by name.
        """
        settings = SearchSettings.load(directory)
        if not settings.data.load:
            raise ValueError(
                f"The search in {directory} uses your own arrays, which the command line cannot load: "
                "resume it with keras_rwinit.tuning.search(data, ..., resume=True)."
            )
        return cls(
            settings.data.dataset,
            settings.make_hypermodel(),
            settings,
            data_dir=settings.data.data_dir,
            workers=workers,
            verbose=verbose,
        )

    def run(self, directory: Path, resume: bool = False) -> SearchResult:
        """Runs the search, or this process's part of it.

        Args:
            directory: Directory of the search; new or empty unless `resume` is set.
            resume: Resume the search in `directory`, which must have the same settings.

        Raises:
            ValueError: The directory holds another search, another process is at work in it, a trial is
                damaged or missing, or a port or chief of a search over several processes is not available.
            ChildProcessError: (an OSError) The chief is lost, or all workers are.
        """
        _check_path(directory)
        if self.role is not None and self.role.kind == "worker":
            check_chief(self.role.address)  # the chief writes the settings before it answers
            self.settings.check_same(directory)
            run_worker(self.trainer, directory, self.role)
            return self._read(directory)
        if self.role is not None:
            # A taken port ends the search before its directory exists.
            check_port_free(self.role.address)
        if resume:
            self.settings.check_same(directory)
        else:
            new_directory(directory, Path(), "", name="directory (--output)", resume="resume=True (--resume)")
        with locked(directory):
            if not resume:
                if has_settings(directory):  # another process was faster
                    raise ValueError(
                        f"{directory} is not empty: it holds another search. Choose another directory."
                    )
                self.settings.save(directory)
            return self._run_locked(directory)

    def _run_locked(self, directory: Path) -> SearchResult:
        self._run_trials(directory)
        comparison = compare_best(self.trainer, self._read(directory), directory, self.console)
        result = dataclasses.replace(self._read(directory), comparison=comparison)
        result.to_csv(directory / "trials.csv", overwrite=True)  # a resumed search has written them before
        result.to_json(directory / "trials.json", overwrite=True)
        return result

    def _run_trials(self, directory: Path) -> None:
        settings = self.settings
        # Made also where other processes search, because it checks the trials' files.
        tuner = make_tuner(settings, directory, self.hypermodel)
        with SearchProgress(
            self.console, settings.trials, directory, lambda: self._read(directory)
        ) as progress:
            progress.refresh()
            if self.role is not None:
                serve(tuner.oracle, self.role.address, make_token(directory), progress.refresh)
            elif self.workers == 1:
                tuner.on_trial = lambda trial: progress.refresh()
                tuner.search(self.trainer)
            elif progress.ended_before < settings.trials:
                save_data(self.examples, settings.data, directory)
                run_local(directory, self.workers, progress.refresh)
            progress.refresh()
        # A table of the trials that are left of a deleted directory would be a false one.
        check_trials_exist(tuner.oracle)

    def _read(self, directory: Path) -> SearchResult:
        return read_result(self.settings, directory, self.hypermodel)


def _check_path(directory: Path) -> None:
    try:
        str(directory).encode()
    except UnicodeEncodeError as error:  # before anything is made there
        raise ValueError(
            f"keras-tuner takes no directory whose name is not UTF-8. Received: {str(directory)!r}"
        ) from error


def _check_role(hypermodel: DeepMLPHyperModel, workers: int) -> ProcessRole | None:
    """Returns the role of this process in a search over several machines; None if it is not part of one."""
    role = process_role()
    if role is not None and workers > 1:
        raise ValueError(
            "A chief or worker of a search over several machines cannot start workers itself: leave "
            f"`workers` out, or unset KERASTUNER_TUNER_ID. Received: workers={workers}"
        )
    if type(hypermodel) is not DeepMLPHyperModel and (workers > 1 or role is not None):
        raise ValueError(
            "The processes of a search make its space from settings: use DeepMLPHyperModel itself, or one "
            f"worker. Received: a {type(hypermodel).__name__}"
        )
    return role


def _check_hypermodel(hypermodel: object) -> None:
    if hypermodel is None or isinstance(hypermodel, DeepMLPHyperModel):
        return
    if isinstance(hypermodel, np.ndarray):  # search(x, y), as in keras-tuner
        raise ValueError(
            "`data` takes inputs and targets as a pair: search((x, y), hypermodel). "
            f"Received: an array of shape {hypermodel.shape} as `hypermodel`"
        )
    raise ValueError(
        "`hypermodel` must be a `DeepMLPHyperModel`; for another, use one of keras-tuner's own tuners. "
        f"Received: {hypermodel!r}"
    )


def _check_fits_data(hypermodel: DeepMLPHyperModel, examples: Examples, name: str) -> None:
    shape = examples.x.shape[1:]
    if (hypermodel.input_shape, hypermodel.classes) != (shape, examples.outputs):
        outputs = "classes" if hypermodel.loss is None else "outputs"
        raise ValueError(
            f"The space is for inputs of shape {hypermodel.input_shape} and {hypermodel.classes} {outputs}, "
            f"the data ({name}) have shape {shape} and {examples.outputs} {outputs}: pass "
            f"input_shape={shape}, classes={examples.outputs} to DeepMLPHyperModel."
        )
    if not hypermodel.tuned or not hypermodel.tunable:
        raise ValueError(
            "The space is a single point: every hyperparameter is fixed. Give a range (low, high) or a list "
            "of choices for at least one, such as the gain ratios from 0.8 to 1.25."
        )
