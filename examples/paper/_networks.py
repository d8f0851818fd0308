"""The networks that the experiments compare, all of one size, and the function that trains them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_rwinit import data, model_zoo
from keras_rwinit.training.loop import compile_options

__all__ = [
    "BASELINES",
    "KERNELS",
    "RANDOM_WALKS",
    "SkipInitializer",
    "build_network",
    "initializer_arguments",
    "normalize",
    "schedule",
    "train_classifier",
]

BASELINES = ("he_normal", "glorot_uniform", "orthogonal", "residual")
# Gain (None: the computed one) and distribution of each initializer on square kernels.
KERNELS: dict[str, tuple[float | None, str]] = {
    "random_walk": (None, "normal"),
    "he_normal": (2.0**0.5, "truncated_normal"),
    "glorot_uniform": (1.0, "uniform"),
    "orthogonal": (1.0, "orthogonal"),
}
RANDOM_WALKS = {"random_walk": "normal", "random_walk_orthogonal": "orthogonal"}


@keras.saving.register_keras_serializable("keras_rwinit_paper")
class SkipInitializer(keras.initializers.Initializer):
    """Makes a residual network of plain layers: the identity plus `he_normal / sqrt(blocks)`.

    A residual layer whose skip connection bypasses the kernel, `f(h + W h + b)`, is the plain layer
    `f(V h + b)` with `V = I + W`. It has the same function, the same number of parameters and the same
    training steps, since adding a constant to a weight does not change the gradient. A kernel that is not
    square cannot be bypassed; it is drawn by `he_normal`.

    Args:
        blocks: Number of residual layers in the network; each adds an equal share of the variance.
        seed: Random seed.
    """

    def __init__(self, blocks: int, seed: int | None = None) -> None:
        self.blocks, self.seed = blocks, seed

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
        drawn = keras.initializers.HeNormal(self.seed)(shape, dtype)
        if shape[0] != shape[1]:
            return drawn
        return keras.ops.eye(shape[0], dtype=dtype) + drawn / self.blocks**0.5

    def get_config(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "seed": self.seed}


def initializer_arguments(name: str, depth: int, **random_walk: Any) -> dict[str, Any]:
    """Returns the arguments of `model_zoo.deep_mlp` for one of the networks.

    Args:
        name: A random walk (`random_walk` has the paper's normal kernels), `residual`, or an initializer of
            Keras.
        depth: Number of hidden layers.
        **random_walk: Further arguments, used only for a random walk.
    """
    if name in RANDOM_WALKS:
        return {"distribution": RANDOM_WALKS[name], **random_walk}
    return {"kernel_initializer": SkipInitializer(max(depth - 1, 1)) if name == "residual" else name}


def build_network(
    name: str, depth: int, width: int, activation: str, examples: data.Dataset, seed: int, **random_walk: Any
) -> keras.Model:
    """Returns one of the networks as a classifier of `examples`; `name` as in `initializer_arguments`."""
    return model_zoo.deep_mlp(
        depth,
        width,
        activation,
        input_shape=(examples.features,),
        classes=examples.classes,
        seed=seed,
        **initializer_arguments(name, depth, **random_walk),
    )


def normalize(h: Any) -> Any:
    """Returns activations with mean 0 and variance 1 over the units."""
    centered = h - keras.ops.mean(h, axis=-1, keepdims=True)
    return centered * keras.ops.rsqrt(keras.ops.mean(centered**2, axis=-1, keepdims=True) + 1e-5)


def schedule(
    rate: float, steps: int, kind: str = "cosine", warmup: float = 0.0
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns a learning rate, constant or with cosine decay to zero.

    Args:
        rate: The highest learning rate.
        steps: Number of training steps.
        kind: "constant" or "cosine".
        warmup: Fraction of the steps in which the rate of "cosine" first rises linearly from zero.
    """
    if kind == "constant":
        return rate
    first = round(warmup * steps)
    if not first:
        return keras.optimizers.schedules.CosineDecay(rate, steps)
    return keras.optimizers.schedules.CosineDecay(0.0, steps - first, warmup_target=rate, warmup_steps=first)


def train_classifier(
    model: keras.Model,
    examples: data.Dataset,
    *,
    rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    kind: str = "cosine",
    warmup: float = 0.0,
) -> dict[str, float]:
    """Trains a classifier by Adam and returns `loss` (nats), `training_error` and `test_error` (fractions).

    All three are measured over all examples after training. The loss is NaN if training diverged.

    Args:
        model: A model that is not compiled.
        examples: The data set.
        rate, kind, warmup: See `schedule`.
        epochs: Number of passes over the training set.
        batch_size: Number of examples in a step.
        seed: Random seed of the order of the examples.
    """
    per_epoch = -(-len(examples.x_train) // batch_size)
    optimizer = keras.optimizers.Adam(schedule(rate, per_epoch * epochs, kind, warmup))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = compile_options(model, batch_size, per_epoch * epochs)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(examples.x_train))
        x, y = examples.x_train[order], examples.y_train[order]
        history = model.fit(x, y, batch_size, shuffle=False, verbose=0).history
        if not np.isfinite(history["loss"][0]):
            return {"loss": np.nan, "training_error": 1.0 - history["accuracy"][0], "test_error": np.nan}
    last, accuracy = model.evaluate(examples.x_train, examples.y_train, batch_size, verbose=0)
    _, test_accuracy = model.evaluate(examples.x_test, examples.y_test, batch_size, verbose=0)
    return {"loss": last, "training_error": 1.0 - accuracy, "test_error": 1.0 - test_accuracy}
