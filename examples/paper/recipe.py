"""Effect of the input gain, the output gain and the learning-rate schedule, one changed at a time.

python examples/paper/recipe.py [--quick] [--output DIRECTORY] [--data-dir DIRECTORY]

The recipe is the computed gain in every kernel except the last, the gain of a linear layer in the last, and
Adam with cosine decay from 0.03 / depth without warm-up. The gains of the first and of the last layer are the
two other knobs of the paper's initialization; one variant changes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from _experiment import Experiment, Row, mean_and_deviation, parse_options, select
from _networks import BASELINES, build_network, train_classifier

from keras_rwinit import gain
from keras_rwinit.plots import new_figure

BATCH = 128
NETWORKS: dict[str, dict[str, Any]] = {
    "tanh": {"initializer": "random_walk_orthogonal", "depth": 200, "width": 64},
    "relu": {"initializer": "random_walk", "depth": 100, "width": 128},
}
RECIPE: Row = {"input_gain": 1.0, "output_gain": 1.0, "schedule": "cosine", "warmup": 0.0, "rate": 1.0}
CHANGES: dict[str, tuple[Any, ...]] = {
    "input_gain": (0.1, 0.3, 3.0),
    "output_gain": (0.1, 0.3, 3.0, 10.0),
    "schedule": ("constant",),
    "warmup": (0.1,),
    "rate": (1 / 3, 3.0),
}
TOGETHER: Row = {"input_gain": 0.1, "output_gain": 3.0}


def runs(quick: bool) -> list[Row]:
    """Returns the settings of every network to train, ordered by seed."""
    changes = [{}] + [{knob: value} for knob, values in CHANGES.items() for value in values] + [TOGETHER]
    if quick:
        changes = [{}, {"output_gain": 10.0}]
    return [
        {
            "activation": activation,
            **own,
            **({"depth": 30} if quick else {}),
            "seed": seed,
            "epochs": 2,
            "batch_size": 32 if quick else BATCH,
            **RECIPE,
            **change,
        }
        for activation, settings in NETWORKS.items()
        for seed in ((0,) if quick else (0, 1))
        for own, change in [
            *((settings, change) for change in changes),
            *(({**settings, "initializer": name}, {}) for name in BASELINES[: 1 if quick else None]),
        ]
    ]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Trains the networks missing in the table, draws the picture and returns all rows."""
    experiment = parse_options("recipe", __doc__, arguments)
    examples = experiment.load_images()

    def work(run: Row) -> dict[str, Any]:
        distribution = {"random_walk": "normal", "random_walk_orthogonal": "orthogonal"}
        own = {}
        if run["initializer"] in distribution:
            kernels = distribution[run["initializer"]]
            computed = gain(run["activation"], run["width"], run["depth"], distribution=kernels)
            linear = gain("linear", run["width"], distribution=kernels)
            own = {
                "gain": computed,
                "input_gain": run["input_gain"] * computed,
                "output_gain": run["output_gain"] * linear,
            }
        sizes = (run[key] for key in ("initializer", "depth", "width", "activation"))
        model = build_network(*sizes, examples, run["seed"], **own)
        return train_classifier(
            model,
            examples,
            rate=run["rate"] * 0.03 / run["depth"],
            kind=run["schedule"],
            **{key: run[key] for key in ("warmup", "epochs", "batch_size", "seed")},
        )

    rows = experiment.run(runs(experiment.quick), work)
    draw(experiment, rows)
    return rows


def variants(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Returns the rows of each variant of the recipe and of each other initializer, by name."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        differing = [
            ("warm-up of a tenth" if knob == "warmup" else f"{knob.replace('_', ' ')} {multiple(row[knob])}")
            for knob in RECIPE
            if row[knob] != RECIPE[knob]
        ]
        own = NETWORKS[row["activation"]]["initializer"] == row["initializer"]
        name = (", ".join(differing) or "the recipe") if own else row["initializer"]
        found.setdefault(name, []).append(row)
    return found


def multiple(value: str | float) -> str:
    """Returns a multiple of the recipe's value as text; a name stays as it is."""
    return value if isinstance(value, str) else f"x {value:.2g}"


def draw(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws the training loss of each variant, with its seeds as points, and that of the recipe."""
    activations = list(dict.fromkeys(row["activation"] for row in rows))
    figure, axes = new_figure(columns=len(activations), width=5.5 * len(activations), height=5.2)
    for ax, activation in zip(np.atleast_1d(axes), activations, strict=True):
        groups = variants(select(rows, activation=activation))
        for height, (name, group) in enumerate(groups.items()):
            losses = np.array([row["loss"] for row in group], float)
            color = "C0" if name == "the recipe" else "C1" if name not in BASELINES else "0.5"
            ax.plot(losses, np.full(len(losses), height), "o", color=color, ms=4, alpha=0.6)
            ax.plot(mean_and_deviation(group, "loss")[0], height, "|", color=color, ms=14, mew=2)
        ax.axvline(mean_and_deviation(groups["the recipe"], "loss")[0], color="C0", lw=0.8, ls="--")
        ax.set_yticks(range(len(groups)), list(groups))
        ax.invert_yaxis()
        ax.set_xscale("log")
        ax.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
        ax.minorticks_off()
        ax.set_xlabel("training loss after training (nats)")
        first = select(rows, activation=activation)[0]
        ax.set_title(f"{first['depth']} {activation} layers of width {first['width']}")
    experiment.save_picture(figure)


if __name__ == "__main__":
    main()
