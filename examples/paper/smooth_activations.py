"""Plain GELU and SiLU networks of 200 and 1000 layers on MNIST, with the package's defaults.

KERAS_BACKEND=jax python examples/paper/smooth_activations.py --data-dir DIRECTORY [--quick]

`deep_mlp` draws `looks_linear` kernels for both activations. The optimizer is Adam; its rate rises for a
twentieth of the steps to `model_zoo.learning_rate(depth, width, decays=True)` and falls to zero along half a
cosine. Nothing is tuned. Any back end runs this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np
from _experiment import Experiment, Row, distinct, mean_and_deviation, parse_options, select
from _networks import train_classifier

from keras_rwinit import model_zoo
from keras_rwinit.plots import new_figure

ACTIVATIONS = ("gelu", "silu")
DEPTHS = (200, 1000)
WIDTH, BATCH, EPOCHS, WARMUP = 100, 128, 15, 0.05
SEEDS = (1, 2, 3)


def settings(quick: bool) -> Iterator[Row]:
    """Yields the settings of each run, all networks of one seed before the next seed."""
    for seed in SEEDS[:1] if quick else SEEDS:
        for depth in (3,) if quick else DEPTHS:
            for activation in ACTIVATIONS:
                yield {
                    "depth": depth,
                    "width": WIDTH,
                    "activation": activation,
                    "epochs": 1 if quick else EPOCHS,
                    "rate": model_zoo.learning_rate(depth, WIDTH, decays=True),
                    "seed": seed,
                }


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the table, draws it, and returns its rows."""
    experiment = parse_options("smooth_activations", __doc__, arguments)
    images = experiment.load_images()

    def work(run: Row) -> dict[str, float]:
        keras.utils.clear_session()
        model = model_zoo.deep_mlp(
            run["depth"],
            run["width"],
            run["activation"],
            input_shape=(images.features,),
            classes=images.classes,
            seed=run["seed"],
        )
        return train_classifier(
            model,
            images,
            rate=run["rate"],
            epochs=run["epochs"],
            batch_size=BATCH,
            seed=run["seed"],
            warmup=WARMUP,
        )

    rows = experiment.run(settings(experiment.quick), work)
    draw(experiment, rows)
    return rows


def draw(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws training and test error of each network, with their deviations over the seeds."""
    figure, ax = new_figure()
    for column, label in (("training_error", "training"), ("test_error", "test")):
        for activation, marker in zip(ACTIVATIONS, "os", strict=True):
            of_activation = select(rows, activation=activation)
            depths = distinct(of_activation, "depth")
            cells = [mean_and_deviation(select(of_activation, depth=depth), column) for depth in depths]
            means, deviations = 100.0 * np.array(cells).T
            ax.errorbar(
                depths,
                means,
                np.nan_to_num(deviations),
                marker=marker,
                capsize=3,
                label=f"{activation}, {label}",
            )
    ax.set_xscale("log")
    ax.set_xlabel("hidden layers")
    ax.set_ylabel("error (%)")
    ax.set_ylim(bottom=0.0)
    ax.legend()
    experiment.save_picture(figure)


if __name__ == "__main__":
    main()
