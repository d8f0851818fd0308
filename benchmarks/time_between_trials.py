"""Measures the part of a search's trials that is not training: building, compiling, data, files.

    python benchmarks/time_between_trials.py --output benchmarks/results/time_between_trials.csv
    python benchmarks/time_between_trials.py --quick

`tuning.search` tries gain ratios of one network on the 8x8 digits, 100 relu layers of width 64 by default.
It does so in two ways by turns: with the models of earlier trials ("kept"), and with a new model for each
trial ("new"), as for a user's own subclass of `DeepMLPHyperModel`. Both give the same scores, or the
benchmark fails.

Of each time the smallest is taken, over all rounds: that of a first trial, which compiles in both ways, of a
later one, and of the passes over the data: the same epochs and validation in a model that has made them
before. "between" is a later trial without the passes, with its share of what the search does besides its
trials.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
from _output import new_file, write_csv

from keras_rwinit import data, tuning
from keras_rwinit.training.loop import steps_per_execution

COLUMNS = (
    "backend",
    "models",
    "depth",
    "width",
    "epochs",
    "trials",
    "first_trial_s",
    "later_trial_s",
    "passes_s",
    "between_s",
)
BACKENDS = ("tensorflow", "jax")
BATCH = 32
HELD_OUT = 287  # a fifth of the digits' training set


class Sizes(NamedTuple):
    """What is searched, and how often."""

    depth: int
    width: int
    epochs: int
    trials: int
    rounds: int


class NewModels(tuning.DeepMLPHyperModel):
    """A space for which `search` builds and compiles a network in every trial."""


SPACES = {"new": NewModels, "kept": tuning.DeepMLPHyperModel}


class SearchTimes(NamedTuple):
    """The scores of a search, and its times in seconds; `outside` is per trial."""

    scores: list[float | None]
    first: float
    later: float
    outside: float


def make_space(name: str, sizes: Sizes) -> tuning.DeepMLPHyperModel:
    """Returns a space of gain ratios of one network."""
    return SPACES[name]((64,), 10, depth=sizes.depth, width=sizes.width, gain_ratio=(0.9, 1.1))


def time_search(name: str, sizes: Sizes) -> SearchTimes:
    """Runs a search."""
    start = time.perf_counter()
    result = tuning.search(
        "digits",
        make_space(name, sizes),
        trials=sizes.trials,
        epochs=sizes.epochs,
        batch_size=BATCH,
        seeds=0,
    )
    total = time.perf_counter() - start
    seconds = [float(row.seconds or 0.0) for row in result]
    outside = (total - sum(seconds)) / len(seconds)
    return SearchTimes([row.score for row in result], seconds[0], min(seconds[1:]), outside)


def time_passes(name: str, sizes: Sizes, repeats: int = 3) -> float:
    """Returns the seconds of a trial's epochs and validation in a model that has made them before."""
    digits, hp, space = data.load("digits"), keras_tuner.HyperParameters(), make_space(name, sizes)
    x, y = digits.x_train, digits.y_train
    model = space.build(hp, seed=0)
    if name == "kept" and keras.backend.backend() == "jax":  # as in a search
        steps = -(-(len(x) - HELD_OUT) // BATCH)
        at_once = steps_per_execution(model, BATCH, steps)
        model.compile(model.optimizer, model.loss, metrics=["accuracy"], steps_per_execution=at_once)
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        for epoch in range(sizes.epochs):
            last = epoch + 1 == sizes.epochs
            space.fit(
                hp,
                model,
                x[HELD_OUT:],
                y[HELD_OUT:],
                batch_size=BATCH,
                shuffle=False,
                verbose=0,
                validation_data=(x[:HELD_OUT], y[:HELD_OUT]) if last else None,
                validation_batch_size=BATCH,
            )
        times.append(time.perf_counter() - start)
    return min(times[1:])


def measure(sizes: Sizes) -> list[dict[str, object]]:
    """Returns the lines of the back end of this process."""
    searches: dict[str, list[SearchTimes]] = {name: [] for name in SPACES}
    passes: dict[str, list[float]] = {name: [] for name in SPACES}
    for _ in range(sizes.rounds):
        for name in SPACES:
            passes[name].append(time_passes(name, sizes))
            searches[name].append(time_search(name, sizes))
    scores = [search.scores for found in searches.values() for search in found]
    if any(other != scores[0] for other in scores):
        raise RuntimeError(f"The searches give different scores: {scores}")
    rows = []
    for name, found in searches.items():
        later, rest = min(search.later for search in found), min(search.outside for search in found)
        seconds = (min(search.first for search in found), later, min(passes[name]))
        between = later - min(passes[name]) + rest
        values = (keras.backend.backend(), name, *sizes[:4], *(f"{s:.3f}" for s in (*seconds, between)))
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def measure_on(backend: str, sizes: Sizes) -> list[dict[str, object]]:
    """Returns the lines of a back end, from a process of its own."""
    command = [sys.executable, __file__, "--measure", *(str(size) for size in sizes)]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    rows: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def main(arguments: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Runs the searches, prints a line for each back end and way and, with --output, writes them as CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", nargs="+", default=BACKENDS, help="Keras back ends to measure")
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--trials", type=int, default=5, help="trials of each search, at least 2")
    parser.add_argument("--rounds", type=int, default=3, help="searches of each way")
    parser.add_argument(
        "--quick", action="store_true", help="10 layers of width 16, one epoch and two trials, here"
    )
    parser.add_argument("--output", type=new_file, help="new CSV file for the results")
    parser.add_argument("--measure", nargs=5, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(Sizes(*options.measure))))
        return []
    sizes = Sizes(options.depth, options.width, options.epochs, options.trials, options.rounds)
    rows: list[dict[str, object]] = []
    for backend in [None] if options.quick else options.backends:
        found = measure(Sizes(10, 16, 1, 2, 1)) if backend is None else measure_on(backend, sizes)
        for row in found:
            rows.append(row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    if options.output:
        command = " ".join(["python benchmarks/time_between_trials.py", *(arguments or sys.argv[1:])])
        write_csv(options.output, command, COLUMNS, rows)
    return rows


if __name__ == "__main__":
    main()
