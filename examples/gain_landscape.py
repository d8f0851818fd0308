"""Draws the training loss of two networks of 100 layers against the gain.

python examples/gain_landscape.py [--quick] [--picture landscape.png]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_tuner
import numpy as np

from keras_rwinit import data, tuning
from keras_rwinit.plots import new_figure

DEPTH = 100
TOP = 3.0  # upper end of the scale, in nats
TICKS = [0.8, 0.9, 1.0, 1.1, 1.2, 1.3]
NETWORKS: dict[str, dict[str, Any]] = {
    "tanh": {"width": 64, "learning_rate": 3e-4},
    "relu": {"width": 64, "learning_rate": 5e-4},
}


def measure_losses(
    activation: str, ratios: list[float], epochs: int, seeds: int, digits: data.Dataset
) -> np.ndarray:
    """Returns the training loss in the last epoch, shape (ratios, seeds); infinite if training diverged."""
    space = tuning.DeepMLPHyperModel(
        (digits.features,),
        digits.classes,
        depth=DEPTH,
        activation=activation,
        distribution="orthogonal",
        gain_ratio=sorted({1.0, *ratios}),
        **NETWORKS[activation],
    )
    losses = np.full((len(ratios), seeds), np.inf)
    for row, ratio in enumerate(ratios):
        for seed in range(seeds):
            hp = keras_tuner.HyperParameters()
            hp.Fixed("gain_ratio", ratio)
            try:
                model = space.build(hp, seed=seed)
                history = space.fit(hp, model, digits.x_train, digits.y_train, epochs=epochs, verbose=0)
                losses[row, seed] = history.history["loss"][-1]
            except keras_tuner.errors.FailedTrialError as error:
                print(f"{activation} at {ratio:g} times the analytic gain: {error}")
        print(
            f"{activation:>4}  gain ratio {ratio:.3f}  training loss {np.median(losses[row]):.3f}", flush=True
        )
    return losses


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Prints and draws the losses, and returns the best gain ratio of each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="use seven gains, one seed and four epochs")
    parser.add_argument("--picture", type=Path, help="PNG file for the picture")
    options = parser.parse_args(arguments)
    epochs, seeds = (4, 1) if options.quick else (8, 3)
    below, above = (3, 3) if options.quick else (5, 6)
    sides = [np.geomspace(0.8, 1.0, below, endpoint=False), np.geomspace(1.0, 1.3, above + 1)]
    ratios = [float(ratio) for ratio in np.concatenate(sides)]  # 1.0 is one of them
    digits = data.load("digits")
    losses = {name: measure_losses(name, ratios, epochs, seeds, digits) for name in NETWORKS}
    if options.picture:
        figure, axes = new_figure(columns=2, width=9.0)
        figure.suptitle(f"{DEPTH} hidden layers on digits, orthogonal kernels, {epochs} epochs")
        for ax, (name, values) in zip(axes, losses.items(), strict=True):
            draw(ax, ratios, values)
            ax.set_title(f"{name}, width {NETWORKS[name]['width']}")
        axes[0].set_ylabel("training loss in the last epoch (nats)")
        axes[1].legend(fontsize="small", frameon=False, loc="lower left")
        figure.savefig(options.picture)
    best = {name: ratios[int(np.median(values, axis=1).argmin())] for name, values in losses.items()}
    for name, ratio in best.items():
        print(f"{name}: the loss is least at {ratio:.3f} times the analytic gain")
    return best


def draw(ax: Any, ratios: list[float], losses: np.ndarray) -> None:
    """Draws median and range over the seeds, losses above the scale, and the analytic optimum."""
    shown = np.minimum(losses, TOP)
    middle = np.median(shown, axis=1)
    ax.fill_between(ratios, shown.min(axis=1), shown.max(axis=1), color="C0", alpha=0.2, linewidth=0)
    ax.plot(ratios, middle, marker="o", markersize=4, color="C0", label="trained")
    beyond = [ratio for ratio, loss in zip(ratios, middle, strict=True) if loss >= TOP]
    if beyond:
        ax.plot(
            beyond,
            [TOP] * len(beyond),
            linestyle="",
            marker="^",
            markersize=9,
            color="C3",
            label="above the scale",
        )
    ax.axvline(1.0, color="0.3", linestyle="--", label="analytic optimum")
    ax.axhline(np.log(10), color="0.6", linestyle=":", label="guessing, ln 10")
    ax.set_xscale("log")
    ax.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    ax.minorticks_off()
    ax.set_ylim(0.0, 1.05 * TOP)
    ax.set_xlabel("gain / analytic gain")


if __name__ == "__main__":
    main()
