"""The gain and the input gain of a sine network, searched by `tuning.search` around the computed ones.

python examples/images/search_gain.py [--quick] [--output DIRECTORY]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import keras_tuner
import numpy as np
from _photographs import Photograph, load
from _sine_networks import WIDTH, sine_gain

from keras_rwinit import theory, tuning
from keras_rwinit.plots import new_figure

# The table of results and the options are those of the paper's experiments.
sys.path.append(str(Path(__file__).parents[1] / "paper"))
from _experiment import Experiment, Row, parse_options, read

__all__ = ["COMPARED", "TRIALS", "PictureSpace", "main"]

TRIALS, COMPARED = "trials.csv", "compared.csv"
DEPTH = 10
RATE = 1e-3


class PictureSpace(tuning.DeepMLPHyperModel):
    """Sine networks whose first layer has normal frequencies and uniform phases.

    Args:
        depth: Number of hidden layers.
        frequency: Root-mean-square angular frequency of the picture, in radians per unit.
    """

    def __init__(self, depth: int, frequency: float) -> None:
        super().__init__(
            (2,),
            1,
            depth=depth,
            width=WIDTH,
            activation="sin",
            distribution="orthogonal",
            gain_ratio=(0.5, 1.25),
            input_gain_ratio=(0.25, 4.0),
            learning_rate=RATE,
            loss="mse",
        )
        self.frequency = frequency

    def build(self, hp: keras_tuner.HyperParameters, seed: int | None = None) -> keras.Model:
        """Returns the compiled network at the values of `hp`, with a multiple of the computed input gain."""
        model, point = super().build(hp, seed), self.point(hp)
        computed = theory.input_gain("sin", point.depth, sine_gain(point.depth), self.frequency, inputs=2)
        rng = np.random.default_rng(seed)
        first = model.get_layer("hidden_1")
        deviation = point.input_gain_ratio * computed / math.sqrt(2.0)
        first.set_weights([deviation * rng.standard_normal((2, WIDTH)), rng.uniform(-np.pi, np.pi, WIDTH)])
        return model


def search(photograph: Photograph, depth: int, trials: int, epochs: int, seeds: int) -> tuning.SearchResult:
    """Searches on the fitted pixels, of which it holds a fifth out."""
    at = photograph.fitted.ravel()
    x, y = photograph.coordinates[at], photograph.pixels.ravel()[at]
    space = PictureSpace(depth, photograph.frequency)
    return tuning.search(
        (x, y), space, trials=trials, epochs=epochs, batch_size=len(x), seeds=seeds, seed=1, verbose=1
    )


def record(experiment: Experiment, run: Row, result: tuning.SearchResult) -> None:
    """Writes a row for each trial, and one for each seed of the comparison at the end."""
    trials = [{**run, **row.as_dict()} for row in result]
    for trial in trials:
        trial["trial_seconds"] = round(trial.pop("seconds") or 0.0, 2)
    experiment.run(trials, lambda row: {}, TRIALS)
    if result.comparison is not None:
        pairs = enumerate(result.comparison.pairs)
        compared = [{**run, "pair": number, "best": best, "computed": own} for number, (best, own) in pairs]
        experiment.run(compared, lambda row: {}, COMPARED)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Searches, unless the table is there, draws the landscape and returns the table's rows."""
    experiment = parse_options("gain", __doc__, arguments)
    if not (experiment.directory / TRIALS).exists():
        size, depth, trials, epochs, seeds = (
            (16, 3, 2, 10, 0) if experiment.quick else (64, DEPTH, 24, 300, 3)
        )
        result = search(load("china", size), depth, trials, epochs, seeds)
        record(experiment, {"photograph": "china", "size": size, "epochs": epochs, "rate": RATE}, result)
    rows = read(experiment.directory / TRIALS)
    draw_landscape(experiment, rows)
    return rows


def draw_landscape(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws the trials over both gains, colored by the PSNR of the pixels that the search held out."""
    figure, ax = new_figure(width=6.5, height=4.4)
    done = [row for row in rows if row["score"] != ""]
    decibels = [10.0 * math.log10(4.0 / row["score"]) for row in done]
    points = ax.scatter(
        [row["gain_ratio"] for row in done],
        [row["input_gain_ratio"] for row in done],
        c=decibels,
        s=60,
        edgecolors="0.2",
        zorder=3,
    )
    figure.colorbar(points, ax=ax, label="PSNR of held-out pixels in dB")
    ax.axvline(1.0, color="0.3", linestyle="--", linewidth=1.2)
    ax.axhline(1.0, color="0.3", linestyle="--", linewidth=1.2)
    ax.set_xscale("log")
    ax.set_yscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("gain / computed gain")
    ax.set_ylabel("input gain / computed input gain")
    experiment.save_picture(figure, "landscape.png")


if __name__ == "__main__":
    main()
