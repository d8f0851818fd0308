"""`recipe`: the optimizer and the loss that train a plain network, with a learning rate for its size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras

from keras_rwinit._checks import check_count
from keras_rwinit._keras.layer_kinds import activates_kernel_output, layer_kind
from keras_rwinit._keras.names import check_loss_name
from keras_rwinit._keras.types import ActivationLike

__all__ = ["learning_rate", "recipe"]

# Learning rate times depth times width. A schedule that decays starts with more: its mean rate is smaller.
_CONSTANT, _DECAYING = 0.64, 1.92

_LARGEST = 1e-3
"""Adam's own default; networks of few and narrow layers need no more."""


def learning_rate(
    depth: int,
    width: int | None = None,  # to be given; without it a model gets an answer, not Python's TypeError
    *,
    decays: bool = False,
) -> float:
    r"""Returns the learning rate of Adam for a plain network: `0.64 / (depth width)`, at most 0.001.

    One step of Adam changes each weight by about the rate. The signs of a unit's changes follow those of its
    inputs, so that its pre-activation changes by about `rate * width` times their root mean square. A network
    that keeps norms passes the change of every layer on to the outputs in full, and the changes agree, since
    all of them lower the same loss. The outputs thus change by an amount proportional to

        rate * depth * width,

    which is to be the same for every network. So the rate is inversely proportional to the width, as in
    the maximal-update parametrization, and to the depth. (The branches of residual networks, scaled by
    `depth^-1/2`, give `depth^-1/2` instead.) The constant is measured: in ten epochs it trains the defaults
    of `deep_mlp` to 90 % of the digits and more at depths from 20 to 1000
    (`benchmarks/results/depths.csv`). The result is equation (rate) of the theory page.

    Args:
        depth: Number of hidden layers, at least 1.
        width: Units of a hidden layer, at least 1. It has to be given.
        decays: Whether the rate falls to zero in the course of training, as along half a cosine. It then
            starts at three times the rate.

    Returns:
        The rate.

    Raises:
        ValueError: An argument is out of range or of the wrong type.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> model_zoo.learning_rate(1000, 64)
        1e-05

    References:
        Yang et al., "Tensor Programs V", arXiv:2203.03466, and "Tensor Programs VI", arXiv:2310.02244.
    """
    if isinstance(depth, keras.Model):
        raise ValueError(
            "`depth` must be a number of layers. For a model there is `recipe(model)`, as in "
            f"`model.compile(**recipe(model))`: it reads the size off the kernels. Received: {depth.name!r}"
        )
    size = check_count("depth", depth) * check_count("width", width)
    return min((_DECAYING if decays else _CONSTANT) / size, _LARGEST)


def recipe(model: keras.Model, *, loss: str | keras.losses.Loss | None = None) -> dict[str, Any]:
    """Returns the arguments of `model.compile` that train a plain network of any depth.

    They are Adam at the `learning_rate` of the model's size, which is read off its kernels: depth times width
    is the sum of the fan-ins of all kernels but the first. Train with batches of 32 to 128 examples.

    Small networks spend a part of each step in Keras: on TensorFlow and JAX, pass `steps_per_execution=8` to
    `model.compile` too, as `keras-rwinit train` does by itself. Callbacks then see every eighth step. With 20
    layers of width 100 at batch 32 it saved a fifth of the processor time on TensorFlow and a tenth on JAX.

    Args:
        model: A built model, new or loaded, as from `deep_mlp`. The rate is measured for plain chains of
            layers with the kernels that `deep_mlp` draws.
        loss: Loss to train with, such as `"mse"` for a regression, whose targets should have zero mean and
            unit variance. `None`: the cross-entropy of integer labels, for outputs that are logits or the
            probabilities of a softmax, which may be a layer of its own.

    Returns:
        `{"optimizer": ..., "loss": ...}`, new objects at each call.

    Raises:
        ValueError: The model has fewer than two kernels or is not built, or `loss` is None and its outputs
            are not known to be logits or probabilities of at least two classes. Those of a subclassed model
            are not known.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> model = model_zoo.deep_mlp(depth=300, width=64, input_shape=(64,), seed=0)
        >>> model.compile(**model_zoo.recipe(model), metrics=["accuracy"])
        >>> f"{float(model.optimizer.learning_rate):.3g}"
        '3.33e-05'
    """
    size = _hidden_fan_ins(model)
    if loss is not None and not (isinstance(loss, str | list | tuple | dict) or callable(loss)):
        raise ValueError(f"`loss` must be a Keras loss or its name. Received: loss={loss!r}")
    if isinstance(loss, str):
        check_loss_name(loss)
    return {
        "optimizer": keras.optimizers.Adam(learning_rate(1, size)),
        "loss": _classification_loss(model) if loss is None else loss,
    }


def _hidden_fan_ins(model: keras.Model) -> int:
    """Returns the sum of the fan-ins of all kernels but the first, which is depth times width."""
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"`model` must be a Keras model with weights: build it. Received: {model!r}")
    fan_ins = [fan_in for layer in _leaves(model) for fan_in in _fan_ins(layer)]
    if len(fan_ins) < 2:
        raise ValueError(
            f"`model` must have a hidden layer and an output layer. Received: {len(fan_ins)} kernels in "
            f"{model.name!r}"
        )
    return sum(fan_ins[1:])


def _leaves(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers with kernels of their own inside a layer or model, in order, each once."""
    kind = layer_kind(layer)
    if kind.skip_reason:
        return []
    if any(getattr(layer, kernel.attribute, None) is not None for kernel in kind.kernels):
        return [layer]
    found: dict[int, keras.layers.Layer] = {}
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        found.update({id(leaf): leaf for leaf in _leaves(inner)})
    return list(found.values())


def _fan_ins(layer: keras.layers.Layer) -> list[int]:
    """Returns the fan-in of each kernel of a layer; a stack has one for each of its layers."""
    fan_ins: list[int] = []
    for kind in layer_kind(layer).kernels:
        kernel = getattr(layer, kind.attribute, None)
        if kernel is not None:
            count, *shape = kernel.shape if kind.stacked else (1, *kernel.shape)
            contracted = kind.contracted(layer, tuple(range(len(shape))))
            fan_ins += [math.prod(shape[axis] for axis in contracted)] * count
    return fan_ins


def _classification_loss(model: keras.Model) -> keras.losses.Loss:
    shape: Any = getattr(model, "output_shape", None)
    one_output = isinstance(shape, tuple) and all(size is None or isinstance(size, int) for size in shape)
    classes = shape[-1] if one_output and shape else None
    activations = _output_activations(model) if classes is not None and classes >= 2 else None
    if activations not in ([], [keras.activations.softmax]):
        raise ValueError(
            "`recipe` knows the loss of a classifier with two or more outputs, logits or a softmax; pass "
            f"`loss` for any other model. Received: {model.name!r} with output shape {shape}"
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not activations)


def _output_activations(model: keras.Model) -> list[ActivationLike] | None:
    """Returns the activations after the last kernel, the last one first; None if something else follows it.

    Linear ones are left out.
    """
    applied: list[ActivationLike] = []
    for operation in _operations_backwards(model):
        activation = _applied_activation(operation)
        if activation is None:
            return None
        if activation is not keras.activations.linear:
            applied.append(activation)
        if isinstance(operation, keras.layers.Layer) and _fan_ins(operation):
            return applied
    return None


def _operations_backwards(operation: keras.Operation) -> Iterator[keras.Operation]:
    """Yields the operations of a chain, from its output to its input; a part that is no chain as a whole."""
    kind = layer_kind(operation)
    if kind.chained:
        for layer in reversed(getattr(operation, kind.chained)):
            yield from _operations_backwards(layer)
    elif kind.wrapped:
        yield from _operations_backwards(getattr(operation, kind.wrapped))
    elif isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
        tensors = list(operation.outputs)
        while len(tensors) == 1:
            before, index, _ = tensors[0]._keras_history
            if isinstance(before, keras.layers.InputLayer):
                return
            yield from _operations_backwards(before)
            tensors = before._inbound_nodes[index].input_tensors
        yield operation  # another branch may come in here
    else:
        yield operation


def _applied_activation(operation: keras.Operation) -> ActivationLike:
    """Returns the activation with which an operation ends; None if it may do something else to its input."""
    layers = keras.layers
    if type(operation) in (layers.Identity, layers.Dropout, layers.ActivityRegularization):
        return keras.activations.linear
    # The layer, and the operation of `keras.ops.softmax`, whose class is not public
    if type(operation).__name__ == "Softmax":
        return keras.activations.softmax if operation.axis == -1 else None
    if type(operation) is not layers.Activation and not activates_kernel_output(operation):
        return None
    activation = operation.activation
    return _applied_activation(activation) if isinstance(activation, layers.Layer) else activation
