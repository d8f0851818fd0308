"""Calls a model as Keras does, and keeps what such a call would change of it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_rwinit._keras.layer_kinds import layer_kind
from keras_rwinit._keras.threads import OBSERVATION_LOCK, replace_function
from keras_rwinit._keras.types import ArrayTree, Tensor

__all__ = ["call_arguments", "call_model", "call_parameters", "observe"]

Arguments = tuple[tuple[ArrayTree, ...], dict[str, ArrayTree]]


def call_parameters(layer: keras.Operation) -> dict[str, inspect.Parameter]:
    """Returns the parameters of `layer.call` by their names; none where they are unknown."""
    call: Callable[..., Any] = layer.call
    # The signature of a `tf.function` is that of the function inside.
    call = getattr(call, "python_function", call)
    try:
        return dict(inspect.signature(call).parameters)
    except (TypeError, ValueError):
        return {}


def call_arguments(model: keras.Model, inputs: ArrayTree) -> Arguments:
    """Returns the arguments that `model` is called with, by position and by name.

    They are `inputs` as they are, as in `fit`. Only a model whose `call` cannot do without several arguments
    gets the members of a list, tuple or dictionary one by one.
    """
    if hasattr(model, "_nodes_by_depth") or hasattr(model, "_functional") or layer_kind(model).chained:
        return (inputs,), {}
    required = [
        name
        for name, parameter in call_parameters(model).items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and name not in ("training", "mask")
    ]
    if len(required) > 1:
        if isinstance(inputs, dict) and set(required) <= set(inputs):
            return (), dict(inputs)
        if isinstance(inputs, list | tuple) and len(inputs) >= len(required):
            return tuple(inputs), {}
    return (inputs,), {}


def call_model(model: keras.Model, inputs: ArrayTree, *, training: bool) -> ArrayTree:
    """Returns the outputs of `model` for inputs in the structure that `call_arguments` describes."""
    args, kwargs = call_arguments(model, inputs)
    return model(*args, training=training, **kwargs)


@contextlib.contextmanager
def observe(model: keras.Model) -> Iterator[None]:
    """Leaves a model's layers as they were after calls in a stateless scope, and lets no other observe.

    Such calls leave the weights alone, but not what a layer notes down: that it was called, that it is built,
    its nodes in a graph of layers, and the losses that it adds. Those of other threads stay apart.
    """
    with OBSERVATION_LOCK, contextlib.ExitStack() as stack:
        layers = model._flatten_layers()
        losses: dict[int, list[Tensor]] = {}
        notes = [(layer, _notes(layer)) for layer in layers]
        nodes = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
        for layer in layers:
            _collect_losses(stack, layer, losses, layer is model)
            if not layer.built and type(layer).build is not keras.layers.Layer.build:
                stack.enter_context(replace_function(layer, "build", _refuse_to_build(layer)))
        try:
            yield
        finally:
            for layer, before in notes:
                for name in _NOTES:
                    # What was not there before, Keras has left on the way.
                    if name in before:
                        vars(layer)[name] = before[name]
                    else:
                        vars(layer).pop(name, None)
            for layer, inbound, outbound in nodes:
                del layer._inbound_nodes[inbound:]
                del layer._outbound_nodes[outbound:]


_NOTES = ("built", "_called", "_build_shapes_dict", "_parent_path")


def _notes(layer: keras.layers.Layer) -> dict[str, object]:
    return {name: vars(layer)[name] for name in _NOTES if name in vars(layer)}


def _refuse_to_build(layer: keras.layers.Layer) -> Callable[..., None]:
    def build(*args: object, **kwargs: object) -> None:
        raise ValueError(
            "A layer of the model has no weights yet: call the model once on a batch. Received: "
            f"layer={layer.name!r}"
        )

    return build


def _collect_losses(
    stack: contextlib.ExitStack, layer: keras.layers.Layer, losses: dict[int, list[Tensor]], is_model: bool
) -> None:
    """Keeps the losses that a layer adds in this thread in `losses`, by the layer's id."""

    def add_loss(loss: ArrayTree) -> None:
        losses.setdefault(id(layer), []).extend(keras.tree.flatten(loss))

    def clear_losses() -> None:
        # Keras clears those of the sublayers too, when a call begins.
        if is_model:
            losses.clear()
        losses.pop(id(layer), None)

    def own_losses() -> list[Tensor]:
        return list(losses.get(id(layer), []))

    # The last two are not public; Keras has no other way to them.
    stack.enter_context(replace_function(layer, "add_loss", add_loss))
    stack.enter_context(replace_function(layer, "_get_own_losses", own_losses))
    stack.enter_context(replace_function(layer, "_clear_losses", clear_losses))
