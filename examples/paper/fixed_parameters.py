"""MNIST at a fixed number of parameters, from 2 layers to 1000: does depth alone lower the training error?

python examples/paper/fixed_parameters.py [--quick] [--output DIRECTORY] [--data-dir DIRECTORY]

Every network has at most half a million parameters, as many as its depth allows. It is trained for two
epochs by Adam with cosine decay from 0.03 / depth, at most 0.001.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from _experiment import Experiment, Row, mean_and_deviation, parse_options, select
from _networks import BASELINES, RANDOM_WALKS, build_network, train_classifier

from keras_rwinit import data, model_zoo
from keras_rwinit.plots import new_figure

PARAMETERS, BATCH = 500_000, 128
DEPTHS = (2, 8, 32, 128, 512, 1000)


def largest_width(depth: int, parameters: int, examples: data.Dataset) -> int:
    """Returns the largest width of a network with at most this many parameters."""
    width = 1
    while model_zoo.count_parameters(depth, width + 1, examples.features, examples.classes) <= parameters:
        width += 1
    return width


def runs(quick: bool, examples: data.Dataset) -> list[Row]:
    """Returns the settings of every network to train, ordered by seed."""
    depths, seeds = ((2, 30), (0,)) if quick else (DEPTHS, (0, 1))
    parameters = 50_000 if quick else PARAMETERS
    names = ("random_walk_orthogonal", "he_normal") if quick else (*RANDOM_WALKS, *BASELINES)
    return [
        {
            "activation": activation,
            "depth": depth,
            "initializer": name,
            "seed": seed,
            "width": largest_width(depth, parameters, examples),
            "parameters": parameters,
            "epochs": 2,
            "batch_size": 32 if quick else BATCH,
            "rate": min(0.03 / depth, 1e-3),
        }
        for activation, seed, depth, name in itertools.product(("tanh",), seeds, depths, names)
    ]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Trains the networks missing in the table, draws the picture and returns all rows."""
    experiment = parse_options("fixed_parameters", __doc__, arguments)
    examples = experiment.load_images()

    def work(run: Row) -> dict[str, Any]:
        model = build_network(
            run["initializer"], run["depth"], run["width"], run["activation"], examples, run["seed"]
        )
        settings = {key: run[key] for key in ("rate", "epochs", "batch_size", "seed")}
        return train_classifier(model, examples, **settings)

    rows = experiment.run(runs(experiment.quick, examples), work)
    draw(experiment, rows)
    return rows


def draw(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws training and test error against depth, one line for each initializer."""
    activations = list(dict.fromkeys(row["activation"] for row in rows))
    figure, axes = new_figure(columns=2 * len(activations), width=5.0 * len(activations) + 3.0)
    panels = itertools.product(activations, ("training_error", "test_error"))
    for ax, (activation, error) in zip(axes, panels, strict=True):
        drawn = select(rows, activation=activation)
        for color, name in enumerate(dict.fromkeys(row["initializer"] for row in drawn)):
            of_name = select(drawn, initializer=name)
            depths = list(dict.fromkeys(row["depth"] for row in of_name))
            cells = [mean_and_deviation(select(of_name, depth=depth), error) for depth in depths]
            means, deviations = 100.0 * np.array(cells).T
            # The axis is logarithmic, so that an error bar must end above zero.
            deviations = np.minimum(np.nan_to_num(deviations), 0.95 * means)
            ax.errorbar(depths, means, deviations, color=f"C{color}", marker="o", ms=4, lw=1.3, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(depths, [str(depth) for depth in depths])
        ax.minorticks_off()
        ax.set_yticks([1, 2, 5, 10, 20, 50, 90], ["1", "2", "5", "10", "20", "50", "90"])
        ax.set_xlabel("hidden layers")
        ax.set_title(f"{activation}, {error.split('_')[0]} error (%)")
    axes[0].legend(fontsize="small", frameon=False)
    experiment.save_picture(figure)


if __name__ == "__main__":
    main()
