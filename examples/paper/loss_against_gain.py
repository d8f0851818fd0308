"""Training loss against the gain, 100 to 500 layers, tanh and ReLU, on MNIST.

python examples/paper/loss_against_gain.py [--quick] [--output DIRECTORY] [--data-dir DIRECTORY]

tanh networks have orthogonal kernels and width 64, ReLU networks normal kernels and width 128. They are
trained for one epoch by Adam at 0.03 / depth. The gain of all kernels except the last is varied around the
computed gain.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from _experiment import Experiment, Row, mean_and_deviation, parse_options, select
from _networks import BASELINES, RANDOM_WALKS, build_network, train_classifier

from keras_rwinit import gain
from keras_rwinit.plots import new_figure

WIDTHS = {"tanh": 64, "relu": 128}
WALKS = {"tanh": "random_walk_orthogonal", "relu": "random_walk"}
BATCH = 128
RATIOS = (0.8, 0.9, 0.97, 1.0, 1.03, 1.1, 1.25)
GUESSING = np.log(10.0)  # loss of a network that gives every class the same probability
TOP = 3.0  # upper end of the picture's scale, in nats


def runs(quick: bool) -> list[Row]:
    """Returns the settings of every network to train, ordered by seed."""
    depths = {"tanh": (30,), "relu": (30,)} if quick else {"tanh": (100, 200, 500), "relu": (100, 200)}
    ratios, baselines = ((1.0, 1.25), BASELINES[:1]) if quick else (RATIOS, BASELINES)
    networks = {
        activation: [(walk, ratio) for ratio in ratios] + [(name, "") for name in baselines]
        for activation, walk in WALKS.items()
    }
    return [
        {
            "activation": activation,
            "depth": depth,
            "initializer": name,
            "gain_ratio": ratio,
            "seed": seed,
            "width": WIDTHS[activation],
            "epochs": 2 if quick else 1,
            "batch_size": 32 if quick else BATCH,
            "rate": 0.03 / depth,
        }
        for seed, activation in itertools.product((0,), WIDTHS)
        for depth, (name, ratio) in itertools.product(depths[activation], networks[activation])
    ]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Trains the networks missing in the table, draws, and returns all rows."""
    experiment = parse_options("loss_against_gain", __doc__, arguments)
    examples = experiment.load_images()

    def work(run: Row) -> dict[str, Any]:
        kernels = RANDOM_WALKS[WALKS[run["activation"]]]
        computed = gain(run["activation"], run["width"], run["depth"], distribution=kernels)
        factor = run["gain_ratio"]
        own = {"gain": factor * computed} if factor else {}
        sizes = (run[key] for key in ("initializer", "depth", "width", "activation"))
        model = build_network(*sizes, examples, run["seed"], **own)
        settings = {key: run[key] for key in ("rate", "epochs", "batch_size", "seed")}
        return {"gain": own.get("gain", ""), **train_classifier(model, examples, **settings)}

    rows = experiment.run(runs(experiment.quick), work)
    draw(experiment, rows)
    return rows


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Returns the rows of each activation and depth."""
    cells = dict.fromkeys((row["activation"], row["depth"]) for row in rows)
    return [select(rows, activation=activation, depth=depth) for activation, depth in cells]


def baselines_in(rows: Sequence[Row]) -> list[str]:
    """Returns the initializers other than the random walk."""
    return [name for name in dict.fromkeys(row["initializer"] for row in rows) if name in BASELINES]


def draw(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws loss against gain / computed gain, a line for each depth; baselines at the margin."""
    activations = list(dict.fromkeys(row["activation"] for row in rows))
    figure, axes = new_figure(columns=len(activations), width=5.0 * len(activations), height=4.4)
    axes = np.atleast_1d(axes)
    for ax, activation in zip(axes, activations, strict=True):
        drawn = [group for group in groups(rows) if group[0]["activation"] == activation]
        for color, group in enumerate(drawn):
            walks = select(group, initializer=WALKS[activation])
            ratios = sorted({row["gain_ratio"] for row in walks})
            points = [mean_and_deviation(select(walks, gain_ratio=ratio), "loss") for ratio in ratios]
            means, deviations = np.array(points).T
            shown = np.where(np.isfinite(means), np.minimum(means, TOP), TOP)
            label = f"{group[0]['depth']} layers"
            ax.errorbar(
                ratios, shown, np.nan_to_num(deviations), color=f"C{color}", marker="o", ms=4, label=label
            )
            for name, marker in zip(baselines_in(rows), "v^sD", strict=False):
                loss, _ = mean_and_deviation(select(group, initializer=name), "loss")
                height = min(loss, TOP) if np.isfinite(loss) else TOP
                ax.plot(
                    1.03 + 0.03 * color,  # of the axes' width
                    height,
                    marker,
                    color=f"C{color}",
                    ms=6,
                    fillstyle="none",  # one that covers another shows it
                    clip_on=False,
                    transform=ax.get_yaxis_transform(),
                )
        ax.axvline(1.0, color="0.3", linestyle="--", linewidth=1, label="computed gain")
        ax.axhline(GUESSING, color="0.6", linestyle=":", linewidth=1, label="guessing, ln 10")
        ax.set_xlim(0.77, 1.28)
        ax.set_ylim(0.0, 1.03 * TOP)
        ax.set_title(activation)
        ax.set_xlabel("gain / computed gain")
    marks = zip(baselines_in(rows), "v^sD", strict=False)
    shown_marks = [
        axes[0].plot([], [], mark, color="0.4", ms=6, fillstyle="none", label=f"{name} (at the margin)")[0]
        for name, mark in marks
    ]
    named = {
        name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    lines = [handle for handle in named.values() if handle not in shown_marks]
    axes[0].set_ylabel(f"training loss (nats, clipped at {TOP:g})")
    figure.legend(
        handles=[*lines, *shown_marks], fontsize="small", frameon=False, loc="outside lower center", ncols=5
    )
    experiment.save_picture(figure)


if __name__ == "__main__":
    main()
