"""One call from data to the table of a search around the analytic optimum."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from keras_rwinit._checks import check_count
from keras_rwinit.data import Dataset

from ._processes.role import process_role
from ._results import SearchResult
from .hypermodel import DeepMLPHyperModel
from .search_job import SearchJob

__all__ = ["search"]


def search(
    data: str | Dataset = "digits",
    hypermodel: DeepMLPHyperModel | None = None,
    *,
    folder: str | Path | None = None,
    data_dir: str | Path | None = None,
    objective: str = "val_loss",
    trials: int = 20,
    epochs: int = 2,
    batch_size: int = 32,
    executions_per_trial: int = 1,
    seeds: int = 3,
    seed: int = 0,
    workers: int = 1,
    resume: bool = False,
    console: Console | None = None,
) -> SearchResult:
    """Searches gain and width, from the analytic optimum outwards.

    The first trial is the analytic optimum. Before a trial trains, `predict_walk` decides whether its
    gradient and its activations can stay within the dtype in use; a hopeless one is closed at once as
    failed, with the reason. So is one that diverges. At the end the best point and the analytic one are
    trained again under the same fresh seeds, which tells whether they differ by more than noise.

    With keras-tuner's environment variables set (`KERASTUNER_TUNER_ID`, `KERASTUNER_ORACLE_IP`,
    `KERASTUNER_ORACLE_PORT`) the same call is the chief, or a worker, of a search over several machines that
    share `folder`.

    Args:
        data: Name for `keras_rwinit.data.load`, or a `Dataset`. A fifth of its training examples is held
            out for validation; its test set is not touched.
        hypermodel: The space. `None`: `DeepMLPHyperModel` with its defaults, for the data.
        folder: New folder for the search: `settings.json`, a folder a trial, `trials.csv` and `trials.json`.
            `None`: a temporary one, deleted at the end.
        data_dir: See `keras_rwinit.data.load`.
        objective: `"val_loss"`, `"loss"`, `"val_accuracy"` or `"accuracy"`, after the last epoch.
        trials: Number of trials, failed ones included.
        epochs: Passes over the training examples a trial.
        batch_size: Examples a step.
        executions_per_trial: Networks trained a trial; its score is their mean.
        seeds: Runs of the best and of the analytic point at the end; 0 for none.
        seed: Of everything that is drawn. In one process the same seed gives the same table.
        workers: More than 1: that many worker processes and a chief, on this machine.
        resume: Go on with the search in `folder`, which must have the same settings.
        console: Where to show the progress. `None`: nowhere.

    Returns:
        The table.

    Raises:
        ValueError: An argument is wrong, the space is a single point, the folder holds another search, or
            a port or chief of a search over several processes is not there.
        ChildProcessError: (an OSError) The chief, or every worker, has died.

    Example:
        >>> from keras_rwinit import tuning
        >>> space = tuning.DeepMLPHyperModel((64,), depth=5, width=(8, 16), activation="tanh")
        >>> result = tuning.search("digits", space, trials=2, epochs=1, seeds=0)
        >>> [(row.gain_ratio == 1.0, row.width == 16) for row in result]
        [(True, True), (False, False)]
    """
    workers = check_count("workers", workers)
    if folder is None and (resume or process_role() is not None):
        raise ValueError("Name the search's folder: a search that is resumed or shared has one.")
    job = SearchJob(
        data,
        hypermodel,
        data_dir,
        console,
        objective=objective,
        trials=trials,
        epochs=epochs,
        batch_size=batch_size,
        executions_per_trial=executions_per_trial,
        seeds=seeds,
        seed=seed,
    )
    if folder is not None:
        return job.start(Path(folder), workers, resume)
    with tempfile.TemporaryDirectory() as temporary:
        return job.start(Path(temporary), workers)
