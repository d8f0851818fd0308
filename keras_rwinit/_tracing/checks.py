"""Checks of a model and of its inputs, before it is traced."""

from __future__ import annotations

import keras

from keras_rwinit._keras.types import ArrayTree

__all__ = ["check_model", "check_shapes"]


def check_model(model: keras.Model) -> None:
    """Raises ValueError unless `model` is a built Keras model."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"The model has no weights yet: build it or call it once. Received: model={model.name!r}"
        )


def check_shapes(model: keras.Model, inputs: ArrayTree) -> None:
    """Raises ValueError if the model has one input, and `inputs` are not arrays of its shape."""
    expected = getattr(model, "input_shape", None) if not isinstance(inputs, dict) else None
    given = [array.shape for array in keras.tree.flatten(inputs) if array is not None]
    # Several inputs, or none known: the call of the model itself finds what is wrong.
    if not isinstance(expected, tuple) or (expected and isinstance(expected[0], tuple)):
        return
    sizes = zip(expected[1:], given[0][1:], strict=False)
    if len(given) != 1 or len(given[0]) != len(expected) or any(s not in (None, n) for s, n in sizes):
        shape = ", ".join(["examples", *map(str, expected[1:])])
        raise ValueError(
            f"`x` must have the shape of the model's inputs, ({shape}). Received: "
            f"shape {', '.join(map(str, given))}"
        )
