"""Checks of a model and of its inputs, before it is traced."""

from __future__ import annotations

from typing import TypeGuard

import keras
from keras.utils import is_keras_tensor

from keras_rwinit._keras.types import ArrayTree

from .calls import build_activations, check_weights

__all__ = ["check_model", "check_shapes"]


def check_model(model: keras.Model) -> None:
    """Raises ValueError unless `model` is a built Keras model, RuntimeError if its weights are away."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            "The model has no weights yet: build it or call it once, as in `model(x[:1])`. Received: "
            f"model={model.name!r}"
        )
    check_weights(model)


def check_shapes(model: keras.Model, inputs: ArrayTree) -> None:
    """Raises ValueError if the model says which inputs it has, and `inputs` are others.

    It says so if it is functional or has one input of a known shape. With the right inputs, this builds what
    only a call builds, see `build_activations`.
    """
    names = _input_names(model)
    if names and isinstance(inputs, dict):
        if not set(names) <= set(inputs):
            raise ValueError(
                f"`x` must hold the model's inputs, {', '.join(map(repr, names))}. Received: the keys "
                f"{', '.join(map(repr, inputs))}"
            )
    else:
        _check_shape(inputs, getattr(model, "input_shape", None), is_functional=bool(names))
    build_activations(model, inputs)


def _check_shape(inputs: ArrayTree, expected: object, *, is_functional: bool) -> None:
    """Raises ValueError unless `inputs` are one array of the shape `expected`, if that is a model's."""
    # Of several inputs, or none known, the call of the model itself finds what is wrong. Models of users may
    # keep the shape of an example as `input_shape`, whose first size is no batch.
    if not (_is_shape(expected) and (is_functional or expected[:1] == (None,))):
        return
    if not _has_shape(inputs, expected):
        shape = ", ".join(["examples", *map(str, expected[1:])])
        given = [array.shape for array in keras.tree.flatten(inputs) if array is not None]
        raise ValueError(
            f"`x` must have the shape of the model's inputs, ({shape}). Received: "
            f"{'a dictionary, ' if isinstance(inputs, dict) else ''}shape {', '.join(map(str, given))}"
        )


def _input_names(model: keras.Model) -> list[str]:
    """Returns the names of a functional model's inputs, and none of another model."""
    tensors = getattr(model, "inputs", None)
    if not (isinstance(tensors, list) and all(map(is_keras_tensor, tensors))):
        return []
    structure = getattr(model, "input", None)
    return list(structure) if isinstance(structure, dict) else [tensor.name for tensor in tensors]


def _is_shape(expected: object) -> TypeGuard[tuple[int | None, ...]]:
    return isinstance(expected, tuple) and not (expected and isinstance(expected[0], tuple))


def _has_shape(inputs: ArrayTree, expected: tuple[int | None, ...]) -> bool:
    given = [array.shape for array in keras.tree.flatten(inputs) if array is not None]
    if isinstance(inputs, dict) or len(given) != 1 or len(given[0]) != len(expected):
        return False
    return all(size in (None, n) for size, n in zip(expected[1:], given[0][1:], strict=True))
