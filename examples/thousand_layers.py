"""Builds, compiles and fits 1,000 plain layers with the Keras API, and measures the gradient.

python examples/thousand_layers.py [--quick] [--picture walk.png]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from keras_rwinit import data, gradient_walk, model_zoo, plots, predict_walk


def main(arguments: list[str] | None = None) -> float:
    """Trains, prints predicted and measured gradients, and returns the test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="train 100 layers for 3 epochs")
    parser.add_argument("--picture", type=Path, help="PNG file for the gradient's walk")
    options = parser.parse_args(arguments)

    preset = model_zoo.presets["digits_tanh_1000"]
    depth, epochs = (100, 3) if options.quick else (1000, preset.recipe.epochs)
    digits = data.load("digits")
    model = model_zoo.from_preset("digits_tanh_1000", depth=depth, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    predicted = predict_walk("tanh", width=64, depth=depth, distribution="orthogonal")
    walk = gradient_walk(model, digits.x_test[:50], digits.y_test[:50], loss)
    measured = walk.backward[:, 0] - walk.backward[:, -1]
    print(f"gain {predicted.gain:.4f}; ln|delta| from layer {depth} to layer 1, nats:")
    print(f"  predicted {predicted.mean[0]:+.2f} +- {predicted.spread:.2f}")
    print(f"  measured  {measured.mean():+.2f} +- {measured.std():.2f} over 50 examples")
    if options.picture:
        plots.plot_walk(walk, predicted).figure.savefig(options.picture)

    model.compile(keras.optimizers.Adam(0.03 / depth), loss, metrics=["accuracy"])
    model.fit(digits.x_train, digits.y_train, batch_size=32, epochs=epochs, verbose=2)
    _, accuracy = model.evaluate(digits.x_test, digits.y_test, verbose=0)
    print(f"test accuracy {accuracy:.1%}")
    return float(accuracy)


if __name__ == "__main__":
    main()
