"""Checks of a model and of its inputs, before it is traced."""

from __future__ import annotations

from typing import TypeGuard

import keras

from keras_rwinit._keras.types import ArrayTree

from .calls import build_activations, check_weights

__all__ = ["check_model", "check_shapes"]


def check_model(model: keras.Model) -> None:
    """Raises ValueError unless `model` is a built Keras model, RuntimeError if its weights are away."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"The model has no weights yet: build it or call it once. Received: model={model.name!r}"
        )
    check_weights(model)


def check_shapes(model: keras.Model, inputs: ArrayTree) -> None:
    """Raises ValueError if the model has one input, and `inputs` are not arrays of its shape.

    With inputs of the right shape it builds what only a call builds, see `build_activations`.
    """
    expected = getattr(model, "input_shape", None) if not isinstance(inputs, dict) else None
    given = [array.shape for array in keras.tree.flatten(inputs) if array is not None]
    # Several inputs, or none known: the call of the model itself finds what is wrong.
    if _is_shape(expected) and not _has_shape(given, expected):
        shape = ", ".join(["examples", *map(str, expected[1:])])
        raise ValueError(
            f"`x` must have the shape of the model's inputs, ({shape}). Received: "
            f"shape {', '.join(map(str, given))}"
        )
    build_activations(model, inputs)


def _is_shape(expected: object) -> TypeGuard[tuple[int | None, ...]]:
    return isinstance(expected, tuple) and not (expected and isinstance(expected[0], tuple))


def _has_shape(given: list[tuple[int, ...]], expected: tuple[int | None, ...]) -> bool:
    sizes = zip(expected[1:], given[0][1:], strict=False)
    return len(given) == 1 and len(given[0]) == len(expected) and all(s in (None, n) for s, n in sizes)
