"""The MNIST presets of 1000 layers and of 200 ReLU layers, compared with other initializers.

python examples/paper/deep_mnist.py [--quick] [--output DIRECTORY] [--data-dir DIRECTORY]

Networks and recipes are those of `model_zoo.presets`; the first row of each preset is the same run as
`keras-rwinit train --preset NAME --data-dir DIRECTORY`. A stopped run continues after its last epoch. A
network that still guesses after three epochs is not trained further.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from _experiment import Experiment, Row, parse_options, read, select, write
from _networks import BASELINES, initializer_arguments

from keras_rwinit import model_zoo
from keras_rwinit.plots import new_figure
from keras_rwinit.training.loop import compile_classifier, train_classifier
from keras_rwinit.training.strategies.select import make_strategy

PRESETS = ("mnist_leaky_relu_1000", "mnist_relu_200")
# A network whose accuracy is below CHANCE after PATIENCE epochs is not trained further.
PATIENCE, CHANCE = 3, 0.15
# The preset's random walk without its random biases.
ZERO_BIASES = "random_walk_zero_biases"
# Arguments of the preset that only its random walk uses.
WALK = ("distribution", "input_gain", "output_gain")
SETTINGS = ("activation", "depth", "width", *WALK, "bias_stddev")


def runs(quick: bool) -> list[Row]:
    """Returns the settings of every network to train, the preset itself first."""
    depths = {"depth": 30} if quick else {}
    return [
        {
            "preset": preset,
            "initializer": name,
            "seed": 0,
            **settings(preset, name),
            **depths,
            "epochs": 3 if quick else model_zoo.presets[preset].recipe.epochs,
            "batch_size": model_zoo.presets[preset].recipe.batch_size,
            "rate": model_zoo.presets[preset].recipe.learning_rate,
        }
        for preset in PRESETS
        for name in (
            "random_walk",
            *((ZERO_BIASES,) if "bias_stddev" in model_zoo.presets[preset].config else ()),
            *(BASELINES[:1] if quick else BASELINES),
        )
    ]


def settings(preset: str, name: str) -> Row:
    """Returns the preset's arguments for an initializer's network; empty for those that it does not use."""
    taken = {key: model_zoo.presets[preset].config.get(key, "") for key in SETTINGS}
    if name == ZERO_BIASES:
        return {**taken, "bias_stddev": ""}
    return taken if name == "random_walk" else {**taken, **dict.fromkeys(WALK, "")}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Trains the networks missing in the table, draws, and returns one row for each network."""
    experiment = parse_options("deep_mnist", __doc__, arguments)
    examples = experiment.load_images()

    def work(run: Row) -> dict[str, Any]:
        preset = model_zoo.presets[run["preset"]]
        own = {key: run[key] or None for key in ("input_gain", "output_gain", "bias_stddev")}
        if run["distribution"]:
            own["distribution"] = run["distribution"]
        else:
            own |= {**initializer_arguments(run["initializer"], run["depth"]), "distribution": "normal"}
        model = model_zoo.from_preset(
            run["preset"],
            **own,
            depth=run["depth"],
            input_shape=(examples.features,),
            seed=run["seed"],
        )
        steps = -(-len(examples.x_train) // run["batch_size"]) * run["epochs"]
        compile_classifier(
            model,
            preset.recipe.optimizer,
            run["rate"],
            steps if preset.recipe.cosine_decay else None,
            batch_size=run["batch_size"],
            steps=steps,
        )
        checkpoint = experiment.directory / f"checkpoint-{zlib.crc32(repr(run).encode()):08x}.npz"

        def train_to(epochs: int) -> list[dict[str, float]]:
            return train_classifier(
                model,
                examples,
                epochs=epochs,
                batch_size=run["batch_size"],
                seed=run["seed"],
                checkpoint=checkpoint,
                strategy=make_strategy("none", run["width"]),
                on_step=lambda: None,
                on_epoch=lambda row: print(f"  {run['preset']} {run['initializer']} {row}", flush=True),
            )

        epochs = train_to(min(PATIENCE, run["epochs"]))
        if epochs[-1]["accuracy"] > CHANCE:
            epochs = train_to(run["epochs"])
        history = experiment.directory / "history.csv"
        own = {key: run[key] for key in ("preset", "initializer", "seed")}
        others = [row for row in read(history) if any(row[key] != value for key, value in own.items())]
        write(history, [*others, *({**own, **epoch} for epoch in epochs)])
        loss, accuracy = model.evaluate(examples.x_train, examples.y_train, run["batch_size"], verbose=0)
        result = {"loss": loss, "training_error": 1.0 - accuracy}
        return {**result, "test_error": 1.0 - epochs[-1]["test_accuracy"], "epochs_run": len(epochs)}

    rows = experiment.run(runs(experiment.quick), work)
    for checkpoint in experiment.directory.glob("checkpoint-*.npz"):
        checkpoint.unlink()
    draw(experiment, rows)
    return rows


def draw(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws test error against the epoch, one panel for each preset and one line for each initializer."""
    history = read(experiment.directory / "history.csv")
    presets = list(dict.fromkeys(row["preset"] for row in rows))
    names = list(dict.fromkeys(row["initializer"] for row in rows))
    figure, axes = new_figure(columns=len(presets), width=5.0 * len(presets))
    axes = np.atleast_1d(axes)
    for ax, preset in zip(axes, presets, strict=True):
        for row in select(rows, preset=preset):
            epochs = select(history, preset=preset, initializer=row["initializer"], seed=row["seed"])
            errors = 100.0 * (1.0 - np.array([epoch["test_accuracy"] for epoch in epochs], float))
            numbers = [epoch["epoch"] for epoch in epochs]
            color = f"C{names.index(row['initializer'])}"
            ax.plot(numbers, errors, color=color, marker="o", ms=3)
        first = select(rows, preset=preset)[0]
        ax.set_title(f"{first['depth']} {first['activation']} layers of width {first['width']}")
        ax.set_yscale("log")
        ax.set_yticks([1, 2, 5, 10, 20, 50, 90], ["1", "2", "5", "10", "20", "50", "90"])
        ax.minorticks_off()
        ax.set_ylim(1.0, 100.0)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("epoch")
    axes[0].set_ylabel("test error (%)")
    marks = [axes[0].plot([], [], color=f"C{k}", marker="o", ms=3, label=n)[0] for k, n in enumerate(names)]
    figure.legend(
        handles=marks, fontsize="small", frameon=False, loc="outside lower center", ncols=len(names)
    )
    experiment.save_picture(figure)


if __name__ == "__main__":
    main()
