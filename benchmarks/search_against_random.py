"""Compares the search that starts at the analytic optimum with random search over the same box.

Both run the same number of trials with the same data, the same seeds of the weights and the same training.
The result is the number of trials until the best loss of the search is at most the best loss of all random
trials; it is infinite if that never happens. There are two boxes: gain ratio and width, and gain ratio alone,
where the start has no advantage from its width.

    python benchmarks/search_against_random.py [--quick] [--output FILE.json]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np
from _output import describe_machine, new_file, write_json
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FailedTrialError
from rich.console import Console
from rich.table import Table

from keras_rwinit import data, tuning
from keras_rwinit.tuning.search_job import SearchJob
from keras_rwinit.tuning.settings import SearchOptions

BOXES: dict[str, int | tuple[int, int]] = {"gain ratio and width": (16, 64), "gain ratio alone": 64}
OBJECTIVE = "val_loss"


class RandomSearch(keras_tuner.RandomSearch):
    """keras-tuner's random search, whose trials train like those of `tuning.search`."""

    def run_trial(self, trial: Trial, job: SearchJob) -> float:
        try:
            return job.trainer.score(trial.hyperparameters)
        except FailedTrialError:
            return float("inf")


def random_scores(space: tuning.DeepMLPHyperModel, trials: int, epochs: int, seed: int) -> list[float]:
    """Returns the scores of random search in the order of its trials."""
    options = SearchOptions(objective=OBJECTIVE, trials=trials, epochs=epochs, seeds=0, seed=seed)
    job = SearchJob("digits", space, options)
    with tempfile.TemporaryDirectory() as directory:
        tuner = RandomSearch(
            space,
            keras_tuner.Objective(OBJECTIVE, "min"),
            max_trials=trials,
            seed=seed + 1,  # keras-tuner treats the seed 0 as no seed
            directory=directory,
        )
        tuner.oracle.verbose = 0
        tuner.search(job)
        ordered = sorted(tuner.oracle.trials.values(), key=lambda trial: trial.trial_id)
        return [float(trial.score) for trial in ordered]


def search_scores(space: tuning.DeepMLPHyperModel, trials: int, epochs: int, seed: int) -> list[float]:
    """Returns the scores of `tuning.search` in the order of its trials."""
    result = tuning.search(
        "digits", space, objective=OBJECTIVE, trials=trials, epochs=epochs, seeds=0, seed=seed
    )
    return [float("inf") if row.score is None else row.score for row in result]


def trials_to_reach(scores: list[float], target: float) -> float:
    """Returns the number of trials until the best score is at most `target`; infinite if it never is."""
    return next((float(count) for count, score in enumerate(scores, start=1) if score <= target), np.inf)


def compare(
    width: int | tuple[int, int], depth: int, trials: int, epochs: int, seeds: int
) -> list[dict[str, Any]]:
    """Runs both searches with each seed."""
    dataset = data.load("digits")
    space = tuning.DeepMLPHyperModel(
        (dataset.features,),
        dataset.classes,
        width=width,
        depth=depth,
        activation="tanh",
        distribution="orthogonal",
    )
    runs = []
    for seed in range(seeds):
        ours, plain = (run(space, trials, epochs, seed) for run in (search_scores, random_scores))
        runs.append(
            {
                "seed": seed,
                "search": ours,
                "random": plain,
                "trials_to_random_best": trials_to_reach(ours, min(plain)),
                "random_trials_to_search_best": trials_to_reach(plain, min(ours)),
            }
        )
        print(f"  width {width}, seed {seed}: best {min(ours):.4f} and {min(plain):.4f} (random)", flush=True)
    return runs


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns quartiles of trials and losses over the runs of a box."""

    def quartiles(values: list[float]) -> list[float]:
        return [float(value) for value in np.quantile(values, [0.25, 0.5, 0.75], method="higher")]

    return {
        "trials_to_random_best": quartiles([run["trials_to_random_best"] for run in runs]),
        "random_trials_to_search_best": quartiles([run["random_trials_to_search_best"] for run in runs]),
        "analytic_loss": quartiles([run["search"][0] for run in runs]),
        "search_best_loss": quartiles([min(run["search"]) for run in runs]),
        "random_best_loss": quartiles([min(run["random"]) for run in runs]),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Prints the table and, with --output, writes it and all scores as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="depth 20, three trials of one epoch and two seeds"
    )
    parser.add_argument("--depth", type=int, default=100, help="hidden layers")
    parser.add_argument("--trials", type=int, default=8, help="trials of each search")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each trial")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument("--box", choices=list(BOXES), help="run only this box")
    parser.add_argument("--output", type=new_file, help="new JSON file for the results")
    options = parser.parse_args(arguments)
    if options.quick:
        options.depth, options.trials, options.epochs, options.seeds = 20, 3, 1, 2
    start = time.perf_counter()
    runs = {
        name: compare(width, options.depth, options.trials, options.epochs, options.seeds)
        for name, width in BOXES.items()
        if options.box in (None, name)
    }
    summaries = {name: summarize(of_box) for name, of_box in runs.items()}
    columns = {
        "trials to random search's best": ("trials_to_random_best", "{:.0f}"),
        "random search's trials to the search's best": ("random_trials_to_search_best", "{:.0f}"),
        "loss at the start": ("analytic_loss", "{:.3f}"),
        "best loss": ("search_best_loss", "{:.3f}"),
        "random search's best loss": ("random_best_loss", "{:.3f}"),
    }
    table = Table(
        title=f"depth {options.depth}, {options.trials} trials of {options.epochs} epochs, {options.seeds} "
        f"seeds: median (quartiles); target: a median of at most {options.trials / 3:.2g} trials"
    )
    table.add_column("box")
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in summaries.items():
        cells = []
        for key, form in columns.values():
            low, middle, high = (form.format(value) for value in values[key])
            cells.append(f"{middle} ({low} to {high})")
        table.add_row(name, *cells)
    Console(width=150).print(table)
    result = {
        **{key: value for key, value in vars(options).items() if key != "output"},
        "objective": OBJECTIVE,
        "backend": keras.backend.backend(),
        "machine": describe_machine(),
        "seconds": time.perf_counter() - start,
        "summaries": summaries,
        "runs": runs,
    }
    if options.output:
        write_json(options.output, result)
    return result


if __name__ == "__main__":
    main()
