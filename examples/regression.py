"""Fits a function of ten inputs with deep plain networks, and with a shallow one for comparison.

The function is the first of Friedman (1991), scaled to mean zero and variance one, as are the inputs. The
score is R2, the share of the variance that the network explains, in examples that it has not seen.

python examples/regression.py [--quick] [--seed 0] [--picture predictions.png]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_rwinit import data, model_zoo


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Trains the networks, prints R2 on training and test examples, and returns that of the test examples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two networks of 20 layers for 5 epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="PNG file for the predictions on the test examples")
    options = parser.parse_args(arguments)
    depth, examples, epochs = (20, 500, 5) if options.quick else (50, 2000, 20)

    x = np.random.default_rng(options.seed).uniform(size=(examples + 1000, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    x_train, x_test = data.standardize(x[:examples], x[examples:])
    y_train, y_test = data.standardize(y[:examples, None], y[examples:, None])  # targets as well

    shape = {"depth": depth, "width": 64, "input_shape": (10,), "classes": 1, "seed": options.seed}
    keras.utils.set_random_seed(options.seed)
    models = {
        "relu": model_zoo.deep_mlp(activation="relu", **shape),
        "tanh, small gains": model_zoo.deep_mlp(activation="tanh", input_gain=0.03, output_gain=1.0, **shape),
    }
    if not options.quick:
        models["tanh"] = model_zoo.deep_mlp(activation="tanh", **shape)
        hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
        models["two relu layers"] = keras.Sequential([keras.Input((10,)), *hidden, keras.layers.Dense(1)])

    figure, axes = plt.subplots(1, len(models), figsize=(12, 3.4), sharey=True, layout="constrained")
    scores = {}
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        model.compile(**model_zoo.recipe(model, loss="mse"))
        model.fit(x_train, y_train, batch_size=32, epochs=epochs, verbose=0)
        train, test = (model.predict(inputs, batch_size=500, verbose=0) for inputs in (x_train, x_test))
        scores[name] = r2(test, y_test)
        print(f"{name:>17}: R2 {r2(train, y_train):.3f} in training, {scores[name]:.3f} in the test")
        ax.plot(y_test, test, ".", markersize=2)
        ax.set(title=f"{name}: {scores[name]:.3f}", xlabel="target")
    axes[0].set_ylabel("prediction")
    if options.picture:
        figure.savefig(options.picture)
    plt.close(figure)
    return scores


def r2(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Returns `1 - mean squared error / variance`: 1 for exact predictions, 0 for those of the mean."""
    return float(1 - np.mean((predictions - targets) ** 2) / np.var(targets))


if __name__ == "__main__":
    main()
