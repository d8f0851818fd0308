"""The networks that the experiments compare, all of one size, and one way to train them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_rwinit import data, model_zoo
from keras_rwinit.training.loop import speed

__all__ = [
    "BASELINES",
    "KERNELS",
    "RANDOM_WALKS",
    "SkipInitializer",
    "initialized_by",
    "network",
    "schedule",
    "train_classifier",
]

BASELINES = ("he_normal", "glorot_uniform", "orthogonal", "residual")
# Gain (None: the computed one) and distribution of each on square kernels, as `predict_walk` takes them.
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

    A residual layer whose skip connection runs past its kernel, `f(h + W h + b)` as in the first ResNets,
    is the plain layer `f(V h + b)` with `V = I + W`: the same function of as many parameters, and the same
    steps of training, since adding a constant to a weight changes no gradient. Kernels that are not square
    cannot be skipped, and are drawn by `he_normal`.

    Args:
        blocks: Residual layers in the network; each adds its share of the variance.
        seed: Of the draw.
    """

    def __init__(self, blocks: int, seed: int | None = None) -> None:
        self.blocks, self.seed = blocks, seed

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        drawn = keras.initializers.HeNormal(self.seed)(shape, dtype)
        if shape[0] != shape[1]:
            return drawn
        return keras.ops.eye(shape[0], dtype=dtype) + drawn / self.blocks**0.5

    def get_config(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "seed": self.seed}


def initialized_by(name: str, depth: int, **random_walk: Any) -> dict[str, Any]:
    """Arguments of `model_zoo.deep_mlp` that make one of the networks.

    Args:
        name: A random walk (`random_walk` has the paper's normal kernels), `residual`, or an initializer of
            Keras.
        depth: Hidden layers.
        **random_walk: Further arguments for the random walk alone.
    """
    if name in RANDOM_WALKS:
        return {"distribution": RANDOM_WALKS[name], **random_walk}
    return {"kernel_initializer": SkipInitializer(max(depth - 1, 1)) if name == "residual" else name}


def network(
    name: str, depth: int, width: int, activation: str, examples: data.Dataset, seed: int, **random_walk: Any
) -> keras.Model:
    """One of the networks as a classifier of `examples`."""
    return model_zoo.deep_mlp(
        depth,
        width,
        activation,
        input_shape=(examples.features,),
        classes=examples.classes,
        seed=seed,
        **initialized_by(name, depth, **random_walk),
    )


def schedule(rate: float, steps: int, kind: str = "cosine", warmup: float = 0.0) -> Any:
    """A learning rate: `constant`, or `cosine`, down to zero along half of one.

    Args:
        rate: The highest.
        steps: Of the whole training.
        kind: Its name.
        warmup: Part of the steps over which a cosine's rate first rises from zero in a straight line.
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

    All three are of the finished network, over all examples. One that diverged has a loss of NaN.

    Args:
        model: Not compiled.
        examples: What to learn.
        rate, kind, warmup: See `schedule`.
        epochs, batch_size: Passes over the training set, examples a step.
        seed: Of the order of the examples.
    """
    per_epoch = -(-len(examples.x_train) // batch_size)
    optimizer = keras.optimizers.Adam(schedule(rate, per_epoch * epochs, kind, warmup))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **speed(model, batch_size, per_epoch * epochs))
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(examples.x_train))
        x, y = examples.x_train[order], examples.y_train[order]
        history = model.fit(x, y, batch_size, shuffle=False, verbose=0).history
        if not np.isfinite(history["loss"][0]):
            return {"loss": np.nan, "training_error": 1.0 - history["accuracy"][0], "test_error": np.nan}
    last, accuracy = model.evaluate(examples.x_train, examples.y_train, batch_size, verbose=0)
    _, test_accuracy = model.evaluate(examples.x_test, examples.y_test, batch_size, verbose=0)
    return {"loss": last, "training_error": 1.0 - accuracy, "test_error": 1.0 - test_accuracy}
