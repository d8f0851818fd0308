"""The layers of a model that applies them one after another."""

from __future__ import annotations

import keras

from .layers import DeepSequential

__all__ = ["chain_of"]


def chain_of(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of `model` in the order in which they are applied, input layers left out.

    Raises:
        ValueError: The model is not built, or not a chain.
    """
    if not model.built:
        raise ValueError(
            f"The model has no weights yet: build it or call it once. Received: model={model.name!r}"
        )
    layers = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    if isinstance(model, DeepSequential | keras.Sequential):
        return layers
    tensors = list(getattr(model, "inputs", None) or [])
    for layer in layers:
        if len(tensors) != 1 or layer.input is not tensors[0]:
            break
        tensors = [layer.output]
    else:
        if tensors and len(model.outputs) == 1 and tensors[0] is model.outputs[0]:
            return layers
    raise ValueError(
        "The model must be a chain of layers, each fed by the one before and by nothing else. "
        f"Received: model={model.name!r} of type {type(model).__name__}"
    )
