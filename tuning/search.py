"""`search`: one call from data to the table of a search around the analytic optimum."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ._data import SearchData
from ._results import SearchResult
from .hypermodel import DeepMLPHyperModel
from .search_job import SearchJob
from .settings import SearchOptions

__all__ = ["search"]


def search(
    data: SearchData = "digits",
    hypermodel: DeepMLPHyperModel | None = None,
    *,
    directory: str | Path | None = None,
    data_dir: str | Path | None = None,
    objective: str = SearchOptions.objective,
    trials: int = SearchOptions.trials,
    epochs: int = SearchOptions.epochs,
    batch_size: int = SearchOptions.batch_size,
    executions_per_trial: int = SearchOptions.executions_per_trial,
    seeds: int = SearchOptions.seeds,
    seed: int = SearchOptions.seed,
    workers: int = 1,
    resume: bool = False,
    verbose: int = 0,
) -> SearchResult:
    """Searches gain and width, starting at the analytic optimum.

    The first trial is the analytic optimum. Before a trial trains, `predict_walk` tells whether its gradient
    and its activations stay within the range of the dtype; a trial for which they do not is marked failed
    without training, with the reason. A trial that diverges is marked failed too. At the end the best point
    and the analytic one are trained again under the same fresh seeds, which tells whether they differ by
    more than noise.

    Networks of the same depth, width, activation and optimizer are compiled once. A trial that differs only
    in gains, distribution, learning rate or seed gets new kernels and a new optimizer state in the model of
    an earlier trial, and the scores are those of new models. On JAX, eight steps of a small network
    are made between two callbacks. For a subclass of `DeepMLPHyperModel`, every trial builds and compiles
    its own model, with Keras's own options.

    With keras-tuner's environment variables set (`KERASTUNER_TUNER_ID`, `KERASTUNER_ORACLE_IP`,
    `KERASTUNER_ORACLE_PORT`) the same call is the chief, or a worker, of a search over several machines that
    share `directory`.

    Args:
        data: Name for `keras_rwinit.data.load`, a `Dataset`, or a pair of arrays (x, y). The inputs x have
            the shape (examples, ...). The targets y are integer labels or, if the space has a `loss`, real
            numbers of shape (examples,) or (examples, outputs). A fifth of the training examples is held out
            for validation; the test set of a `Dataset` is not used.
        hypermodel: The space. `None`: `DeepMLPHyperModel` with its defaults, for the data.
        directory: New directory for the search: `settings.json`, a directory per trial, `trials.csv` and
            `trials.json`. `None`: a temporary one, deleted at the end.
        data_dir: See `keras_rwinit.data.load`.
        objective: `"val_loss"`, `"loss"`, `"val_accuracy"` or `"accuracy"`, after the last epoch. If the
            space has a `loss`, a metric of a regression in place of the accuracy: the Keras name of a loss,
            such as `"val_mae"`, or `"val_root_mean_squared_error"` or `"val_r2_score"`.
        trials: Number of trials, failed ones included.
        epochs: Passes over the training examples in a trial.
        batch_size: Examples per step.
        executions_per_trial: Networks trained in a trial; the score is their mean.
        seeds: Runs of the best and of the analytic point at the end; 0 for none.
        seed: Random seed. In one process the same seed gives the same table.
        workers: Number of worker processes on this machine; more than 1 need a chief process as well, which
            is started too.
        resume: Resume the search in `directory`, which must have the same settings and data.
        verbose: 0: silent. 1: prints a line for every trial, and a progress bar on a terminal.

    Returns:
        The table.

    Raises:
        ValueError: An argument is wrong, the space is a single point, the directory holds another search,
            or a port or chief of a search over several processes is not available.
        ChildProcessError: (an OSError) The chief was killed or crashed, or all workers were.

    Example:
        >>> from keras_rwinit import tuning
        >>> space = tuning.DeepMLPHyperModel((64,), depth=5, width=(8, 16), activation="tanh")
        >>> result = tuning.search("digits", space, trials=2, epochs=1, seeds=0)
        >>> [(row.gain_ratio == 1.0, row.width == 16) for row in result]
        [(True, True), (False, False)]

        On arrays, with real targets:

        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(64, 3))
        >>> space = tuning.DeepMLPHyperModel((3,), 1, depth=2, width=8, loss="mse")
        >>> result = tuning.search(
        ...     (x, x.sum(axis=1)), space, objective="val_mae", trials=1, epochs=1, seeds=0
        ... )
        >>> result.best.gain_ratio
        1.0
    """
    if directory is None and resume:
        raise ValueError("Pass `directory`: it holds the search to resume.")
    options = SearchOptions(
        objective=objective,
        trials=trials,
        epochs=epochs,
        batch_size=batch_size,
        executions_per_trial=executions_per_trial,
        seeds=seeds,
        seed=seed,
    )
    job = SearchJob(data, hypermodel, options, data_dir=data_dir, workers=workers, verbose=verbose)
    if directory is not None:
        try:
            return job.run(Path(directory), resume)
        except KeyboardInterrupt as interrupt:
            again = f"search(..., directory={str(directory)!r}, resume=True)"
            raise KeyboardInterrupt(f"continue with `{again}`") from interrupt
    if job.role is not None:
        raise ValueError("Pass `directory`: the machines of a search share it.")
    with tempfile.TemporaryDirectory() as temporary:
        return job.run(Path(temporary))
