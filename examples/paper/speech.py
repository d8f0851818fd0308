"""Frames of speech classified by plain networks of 20 and 100 layers.

python examples/paper/speech.py [--dataset timit] [--quick] [--output DIRECTORY] [--data-dir DIRECTORY]

The networks recognize the spoken digit from eleven frames of log-mel bands and their deltas, 1320 inputs;
the data set can be downloaded by anyone. With `--dataset timit` they recognize the phone in the licensed
corpus. `--quick` uses the few synthetic sentences in TIMIT's layout that come with the package.
"""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import Experiment, Row, mean_and_deviation, parse_options, select
from _networks import BASELINES, RANDOM_WALKS, build_network, train_classifier

from keras_rwinit import data
from keras_rwinit.plots import new_figure

WIDTH, BATCH = 64, 256


def load_frames(experiment: Experiment) -> data.Dataset:
    """Loads the frames."""
    if not experiment.quick:
        return data.load(experiment.dataset, experiment.data_dir)
    synthetic = Path(data.timit.__file__).parent / "dummy_data"
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The TIMIT in"
        )  # it warns that the five sentences are not the whole corpus
        return data.load_timit(Path(directory), manual_dir=synthetic, every=1, skip_damaged=True)


def runs(quick: bool, examples: data.Dataset) -> list[Row]:
    """Returns the settings of every network to train, ordered by seed."""
    depths, seeds = ((10,), (0,)) if quick else ((20, 100), (0, 1))
    names = ("random_walk", "he_normal") if quick else (*RANDOM_WALKS, *BASELINES)
    return [
        {
            "dataset": examples.name,
            "activation": "tanh",
            "depth": depth,
            "initializer": name,
            "seed": seed,
            "width": WIDTH,
            "epochs": 20 if quick else 2,
            "batch_size": 8 if quick else BATCH,
            "rate": min(0.03 / depth, 1e-3),
        }
        for seed, depth, name in itertools.product(seeds, depths, names)
    ]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Trains the networks missing in the table, draws the picture and returns all rows."""
    experiment = parse_options("speech", __doc__, arguments, datasets=("spoken_digit_frames", "timit"))
    examples = load_frames(experiment)

    def work(run: Row) -> dict[str, Any]:
        sizes = (run[key] for key in ("initializer", "depth", "width", "activation"))
        model = build_network(*sizes, examples, run["seed"])
        return train_classifier(
            model, examples, **{key: run[key] for key in ("rate", "epochs", "batch_size", "seed")}
        )

    rows = experiment.run(runs(experiment.quick, examples), work)
    draw(experiment, rows)
    return rows


def draw(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws the test error, one bar for each initializer and depth, with its deviation over seeds."""
    figure, ax = new_figure()
    names = list(dict.fromkeys(row["initializer"] for row in rows))
    depths = list(dict.fromkeys(row["depth"] for row in rows))
    for index, depth in enumerate(depths):
        cells = [
            mean_and_deviation(select(rows, initializer=name, depth=depth), "test_error") for name in names
        ]
        means, deviations = 100.0 * np.array(cells).T
        left = np.arange(len(names)) + (index - (len(depths) - 1) / 2) * 0.4
        ax.bar(left, means, 0.36, yerr=np.nan_to_num(deviations), capsize=3, label=f"{depth} layers")
    ax.set_xticks(range(len(names)), [name.replace("_", "\n", 1) for name in names])
    ax.set_ylabel("test frames wrongly classified (%)")
    ax.set_title(f"{rows[0]['dataset']}, tanh layers of width {WIDTH}")
    ax.legend(frameon=False)
    experiment.save_picture(figure)


if __name__ == "__main__":
    main()
