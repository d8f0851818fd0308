"""Calls a model as Keras does, and keeps what such a call would change of it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_rwinit._keras.arrays import map_arrays, to_tensor
from keras_rwinit._keras.execution import has_value
from keras_rwinit._keras.layer_kinds import layer_kind
from keras_rwinit._keras.threads import OBSERVATION_LOCK, replace_function
from keras_rwinit._keras.types import ArrayTree, Tensor

__all__ = [
    "build_activations",
    "call_arguments",
    "call_model",
    "call_parameters",
    "check_weights",
    "observe",
]

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


def build_activations(model: keras.Model, inputs: ArrayTree) -> None:
    """Calls a model once if it has an activation layer that is not built.

    Keras builds `Dense(64, activation=PReLU())` without its activation, which gets its weights in the first
    call. No value of the model that there was before changes.
    """
    activations = [getattr(layer, "activation", None) for layer in model._flatten_layers()]
    parts = [
        part for one in activations if isinstance(one, keras.layers.Layer) for part in one._flatten_layers()
    ]
    if not any(_lacks_weights(part) for part in parts):
        return
    # A call moves the states of random generators.
    before = [(variable, keras.ops.copy(variable.value)) for variable in model.non_trainable_variables]
    tensors = map_arrays(lambda array: to_tensor(array, keras.config.floatx()), inputs)
    try:
        call_model(model, tensors, training=False)
    finally:
        for variable, value in before:
            variable.assign(value)


class _WeightsAwayError(RuntimeError):
    """The weights of a model are elsewhere."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(
            "On the JAX back end, `fit`, `evaluate` and `predict` keep the weights away from the model while "
            "they run: wait for their end, or measure in `fit` with `GradientWalkCallback` (a callback of "
            "your own has the weights in `self.model`). If one of them was interrupted, "
            f"`model.jax_state_sync()` brings the weights back. Received: model={model.name!r}"
        )


def check_weights(model: keras.Model) -> None:
    """Raises RuntimeError if the weights are not in the model."""
    if _are_away(_values(model)):
        raise _WeightsAwayError(model)


def _values(model: keras.Model) -> list[Tensor]:
    """Returns the values of a model's variables on JAX, None for those that have none; elsewhere nothing."""
    if keras.backend.backend() != "jax":
        return []
    # Not public: a variable without a value makes one up, or fails.
    return [variable._value for variable in model.variables]


def _are_away(values: list[Tensor]) -> bool:
    return any(value is None or (has_value(value) and value.is_deleted()) for value in values)


@contextlib.contextmanager
def _name_lost_weights(model: keras.Model) -> Iterator[None]:
    """Raises RuntimeError in place of any error that comes of weights taken away by another thread."""
    before = _values(model)
    try:
        yield
    except _WeightsAwayError:
        raise
    except Exception as error:
        if _are_away([*before, *_values(model)]):
            raise _WeightsAwayError(model) from error
        raise


@contextlib.contextmanager
def observe(model: keras.Model) -> Iterator[None]:
    """Leaves a model's layers as they were after calls in a stateless scope, and lets no other observe.

    Such calls leave the weights alone, but not what a layer notes down: that it was called, that it is built,
    its nodes in a graph of layers, and the losses that it adds. Those of other threads stay apart.

    Raises:
        RuntimeError: On JAX, another thread has begun `fit`, `evaluate` or `predict` of the model.
    """
    with OBSERVATION_LOCK, _name_lost_weights(model), contextlib.ExitStack() as stack:
        layers = model._flatten_layers()
        losses: dict[int, list[Tensor]] = {}
        notes = [(layer, _notes(layer)) for layer in layers]
        nodes = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
        for layer in layers:
            _collect_losses(stack, layer, losses, layer is model)
            if _lacks_weights(layer):
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


def _lacks_weights(layer: keras.layers.Layer) -> bool:
    return not layer.built and type(layer).build is not keras.layers.Layer.build


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
