"""`stack` and `unstack`: converts a network between `DenseStack`s and plain `Dense` layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.activations import has_weights
from keras_rwinit._keras.seeding import layer_initializers
from keras_rwinit.layers import DeepSequential, DenseStack
from keras_rwinit.layers.dense_stack import DENSE_ARGUMENTS, make_dense

__all__ = ["stack", "unstack"]

Array: TypeAlias = NDArray[Any]

# Entries of the configuration that equal Dense layers and a stack of them have in common.
_SHARED = (*DENSE_ARGUMENTS, "lora_rank", "lora_alpha")


def unstack(model: keras.Model) -> DeepSequential:
    """Returns the same network with every `DenseStack` replaced by plain `Dense` layers.

    Args:
        model: A built chain of layers, as from `deep_mlp`.

    Returns:
        A new model with the same weights, not compiled.

    Raises:
        ValueError: The model is not a chain.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> len(model_zoo.unstack(model_zoo.deep_mlp(depth=30, width=8)).layers)
        31
    """
    layers: list[keras.layers.Layer] = []
    weights: list[Array] = []
    chain = _layers_in_order(model)
    for layer in chain:
        if isinstance(layer, DenseStack):
            layers += _dense_layers(layer, taken={other.name for other in (*chain, *layers)})
            stacked = layer.get_weights()  # kernel and bias of all layers
            weights += [weight[index] for index in range(layer.depth) for weight in stacked]
        else:
            layers.append(_copy(layer))
            weights += layer.get_weights()
    plain = DeepSequential(layers, model.input_shape[1:], name=model.name)
    plain.set_weights(weights)
    return plain


def stack(model: keras.Model) -> keras.Model:
    """Returns the same network with successive equal `Dense` layers replaced by `DenseStack`s.

    Args:
        model: A built chain of layers, as from `deep_mlp(stacked=False)`.

    Returns:
        A new functional model with the same weights, not compiled. Its stacks keep all activations for the
        gradient (`remat=None` of `DenseStack`).

    Raises:
        ValueError: The model is not a chain.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> plain = model_zoo.deep_mlp(depth=30, width=8, stacked=False)
        >>> [layer.name for layer in model_zoo.stack(plain).layers]
        ['inputs', 'hidden_1', 'hidden_stack', 'classifier']
    """
    layers: list[keras.layers.Layer] = []
    weights: list[Array] = []
    for group in _group_equal_layers(_layers_in_order(model)):
        if len(group) > 1:
            layers.append(_dense_stack(group, name=f"hidden_stack_{len(layers)}"))
            per_layer = [layer.get_weights() for layer in group]
            weights += [np.stack(arrays) for arrays in zip(*per_layer, strict=True)]
        else:
            layers.append(_copy(group[0]))
            weights += group[0].get_weights()
    # The usual case, and the name that `deep_mlp` gives.
    stacks = [layer for layer in layers if isinstance(layer, DenseStack)]
    if len(stacks) == 1:
        stacks[0].name = "hidden_stack"
    inputs = outputs = keras.Input(model.input_shape[1:], name="inputs")
    for layer in layers:
        outputs = layer(outputs)
    stacked = keras.Model(inputs, outputs, name=model.name)
    stacked.set_weights(weights)
    return stacked


def _group_equal_layers(layers: list[keras.layers.Layer]) -> Iterator[list[keras.layers.Layer]]:
    """Cuts `layers` into groups of Dense layers that can be one stack, and single other layers."""

    def key(layer: keras.layers.Layer) -> list[object]:
        # Only square kernels fit into a stack. A subclass may compute something else than Dense.
        if type(layer) is not keras.layers.Dense or layer.kernel.shape[0] != layer.units:
            return [id(layer)]
        # A stack has one activation for all its layers, and shows a regularizer its last output only.
        if has_weights(layer.activation) or layer.activity_regularizer is not None:
            return [id(layer)]
        config = layer.get_config()
        quantization = keras.saving.serialize_keras_object(layer.quantization_config)
        return [layer.units, quantization, *(config.get(name) for name in _SHARED)]

    for _, group in itertools.groupby(layers, key):
        yield list(group)


def _copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    return type(layer).from_config(layer.get_config())


def _dense_stack(group: list[keras.layers.Dense], name: str) -> DenseStack:
    config = group[0].get_config()
    return DenseStack(
        len(group),
        kernel_initializer=group[0].kernel_initializer,
        name=name,
        quantization_config=group[0].quantization_config,
        **{key: config.get(key) for key in _SHARED},
    )


def _dense_layers(layer: DenseStack, taken: set[str]) -> list[keras.layers.Layer]:
    """Returns the plain layers of a stack, named `hidden_1`, `hidden_2` and so on, but for names `taken`."""
    initializers = layer_initializers(layer.kernel_initializer, layer.depth)
    names = (f"hidden_{number}" for number in itertools.count(1))
    free = (name for name in names if name not in taken)
    layers = [make_dense(layer, *of_one) for of_one in zip(free, initializers, strict=False)]
    # A stack's activity regularizer sees the output of the last layer only.
    layers[-1].activity_regularizer = layer.activity_regularizer
    return layers


def _layers_in_order(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a chain in the order in which they are applied, input layers left out.

    Raises:
        ValueError: The model is none, is not built, has no layers, or is not a chain.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"The model has no weights yet: build it or call it once. Received: model={model.name!r}"
        )
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if not layers:
        raise ValueError(f"The model must have layers. Received: model={model.name!r}")
    if isinstance(model, DeepSequential | keras.Sequential):
        return layers
    # In a functional chain each layer's input is the one before's output, the same tensor object.
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
