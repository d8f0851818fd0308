"""The search that starts from the analytic optimum against plain random search over the same box.

Both run the same number of trials, with the same data, seeds of the weights and training. Counted is how
many trials the search takes until its best loss is at most the best of all of random search's trials; one
that never gets there counts as needing more than it had. Two boxes: gain ratio and width, and gain ratio
alone, where the start has no width to be right about.

    python benchmarks/search_against_random.py [--quick] [--output FILE.json]
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np
from keras_rwinit.tuning._settings import SearchSettings, load_data, run_seed, training_set
from keras_rwinit.tuning._tuner import train_and_score
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FailedTrialError
from rich.console import Console
from rich.table import Table

from keras_rwinit import data, tuning
from keras_rwinit._files import write_json

BOXES: dict[str, Any] = {"gain ratio and width": (16, 64), "gain ratio alone": 64}
OBJECTIVE = "val_loss"


class Plain(keras_tuner.RandomSearch):
    """keras-tuner's own random search; a trial trains as one of `tuning.search` does."""

    def run_trial(self, trial: Trial, settings: SearchSettings, examples: Any) -> float:
        try:
            seed = run_seed(settings.seed, 0)
            return train_and_score(self.hypermodel, trial.hyperparameters, examples, settings, seed)
        except FailedTrialError:
            return float("inf")


def random_scores(space: tuning.DeepMLPHyperModel, trials: int, epochs: int, seed: int) -> list[float]:
    """Scores of plain random search, in the order of its trials."""
    dataset, source = load_data("digits")
    settings = SearchSettings(
        source, space.get_config(), OBJECTIVE, trials, epochs, 32, 1, 0, seed, keras.backend.backend()
    )
    with tempfile.TemporaryDirectory() as folder:
        tuner = Plain(
            space,
            keras_tuner.Objective(OBJECTIVE, "min"),
            max_trials=trials,
            seed=seed + 1,  # keras-tuner takes 0 for none
            directory=folder,
        )
        tuner.oracle.verbose = 0
        tuner.search(settings, training_set(dataset, seed))
        ordered = sorted(tuner.oracle.trials.values(), key=lambda trial: trial.trial_id)
        return [float(trial.score) for trial in ordered]


def search_scores(space: tuning.DeepMLPHyperModel, trials: int, epochs: int, seed: int) -> list[float]:
    """Scores of `tuning.search`, in the order of its trials."""
    result = tuning.search(
        "digits", space, objective=OBJECTIVE, trials=trials, epochs=epochs, seeds=0, seed=seed
    )
    return [float("inf") if row.score is None else row.score for row in result]


def trials_to_reach(scores: list[float], target: float) -> float:
    """Number of trials until the best score is at most `target`; infinite if it never is."""
    return next((float(count) for count, score in enumerate(scores, start=1) if score <= target), np.inf)


def compare(width: Any, depth: int, trials: int, epochs: int, seeds: int) -> list[dict[str, Any]]:
    """Both searches under each seed."""
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


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and quartiles of what the runs of a box say."""

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
    """Prints the table and, with --output, writes it with every score as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="depth 20, three trials, two seeds")
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--box", choices=list(BOXES), help="this box alone")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    if options.quick:
        options.depth, options.trials, options.epochs, options.seeds = 20, 3, 1, 2
    start = time.perf_counter()
    runs = {
        name: compare(width, options.depth, options.trials, options.epochs, options.seeds)
        for name, width in BOXES.items()
        if options.box in (None, name)
    }
    summaries = {name: summary(of_box) for name, of_box in runs.items()}
    columns = {
        "trials to random search's best": ("trials_to_random_best", "{:.0f}"),
        "random's trials to the search's best": ("random_trials_to_search_best", "{:.0f}"),
        "loss at the start": ("analytic_loss", "{:.3f}"),
        "best loss": ("search_best_loss", "{:.3f}"),
        "random's best loss": ("random_best_loss", "{:.3f}"),
    }
    table = Table(
        title=f"depth {options.depth}, {options.trials} trials of {options.epochs} epochs, {options.seeds} "
        f"seeds: median (quartiles); the target is a median of {options.trials / 3:.2g} trials"
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
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "seconds": time.perf_counter() - start,
        "summaries": summaries,
        "runs": runs,
    }
    if options.output:
        write_json(options.output, result)
    return result


if __name__ == "__main__":
    main()
