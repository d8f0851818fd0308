"""Symbolic tensors: the inputs of a model, calls on them, and Keras's nodes between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_rwinit._keras.arrays import map_arrays
from keras_rwinit._keras.layer_kinds import layer_kind
from keras_rwinit._keras.types import ArrayTree, Tensor

from .calls import call_parameters

__all__ = [
    "Function",
    "Node",
    "Symbol",
    "call_symbolically",
    "example_batch",
    "first_examples",
    "function_of",
    "nodes_before",
    "symbol_of",
    "symbols_of",
]

Symbol: TypeAlias = keras.KerasTensor

Function: TypeAlias = Any
"""A graph of layers, `keras.src.ops.function.Function`, which is not public."""

Node: TypeAlias = Any
"""A call of an operation in such a graph, `keras.src.ops.node.Node`, which is not public."""


def symbols_of(model: keras.Model, x: ArrayTree) -> ArrayTree:
    """Returns symbolic inputs of a model that is no graph of layers; an empty list if no shape is known."""
    if layer_kind(model).chained:
        return keras.KerasTensor(model.input_shape)
    if x is not None:
        return keras.tree.map_structure(symbol_of, x)
    inputs = getattr(model, "_inputs_struct", None)  # of a graph of layers
    if inputs is not None:
        return inputs
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    if len(shapes) != 1 or shapes[0] is None:
        return []
    return keras.tree.map_shape_structure(
        # An optional input that was left out
        lambda shape: None if shape is None else keras.KerasTensor(shape),
        shapes[0],
    )


def symbol_of(array: Tensor) -> Symbol | None:
    if array is None:
        return None
    return keras.KerasTensor((None, *array.shape[1:]), keras.backend.standardize_dtype(array.dtype))


def first_examples(x: ArrayTree) -> ArrayTree:
    """Returns as many examples as tell values apart."""
    return map_arrays(lambda array: array[:8], x)


def example_batch(model: keras.Model) -> ArrayTree:
    """Returns two examples of random numbers for a model that knows the shapes of its inputs; None else."""
    rng = np.random.default_rng(0)

    def draw(symbol: Symbol | None) -> Tensor:
        if symbol is None:
            return None
        # Sizes that the model leaves open are small.
        shape = (2, *(8 if size is None else size for size in symbol.shape[1:]))
        values = rng.standard_normal(shape)
        # A token or a flag is 0 or 1.
        is_float = keras.backend.is_float_dtype(symbol.dtype)
        return values.astype("float32") if is_float else (values > 0.0).astype(symbol.dtype)

    function = function_of(model)
    symbols = function._inputs_struct if function is not None else symbols_of(model, None)
    return keras.tree.map_structure(draw, symbols) if keras.tree.flatten(symbols) else None


def function_of(operation: keras.Operation) -> Function | None:
    """Returns the graph of a functional or Sequential model; None for anything else.

    A subclass with a `call` of its own may apply the graph in part, or something around it.
    """
    if not type(operation).call.__module__.startswith("keras.src."):
        return None
    operation = getattr(operation, "_functional", None) or operation
    return operation if hasattr(operation, "_nodes_by_depth") else None


def call_symbolically(
    operation: keras.Operation, args: ArrayTree, kwargs: ArrayTree
) -> tuple[list[Symbol], list[Symbol]]:
    """Calls `operation.call` on fresh symbolic tensors; returns these tensors and the outputs."""
    fresh: list[Symbol] = []

    def renew(value: Tensor) -> Tensor:
        if not isinstance(value, keras.KerasTensor):
            return value
        fresh.append(keras.KerasTensor(value.shape, value.dtype))
        return fresh[-1]

    args, kwargs = keras.tree.map_structure(renew, (args, kwargs))
    if not fresh:
        raise ValueError("the shapes of the inputs are unknown")
    # `Layer.__call__` would fill in those that `call` cannot do without.
    given = list(call_parameters(operation))[: len(args)]
    for name, value in (("training", False), ("mask", None)):
        parameter = call_parameters(operation).get(name)
        if parameter is not None and parameter.default is parameter.empty and name not in given:
            kwargs.setdefault(name, value)
    with keras.StatelessScope():
        outputs = operation.call(*args, **kwargs)
    return fresh, [tensor for tensor in keras.tree.flatten(outputs) if tensor is not None]


def nodes_before(outputs: Sequence[Symbol]) -> list[Node]:
    """Returns Keras's nodes that lead to `outputs`, each after the nodes whose outputs it takes."""
    # Without recursion, which a thousand layers would exceed.
    order: list[Node] = []
    done: set[int] = set()
    pending = [(_node_of(tensor), False) for tensor in outputs]
    while pending:
        node, parents_done = pending.pop()
        if node is None or id(node) in done:
            continue
        if parents_done:
            done.add(id(node))
            order.append(node)
            continue
        pending.append((node, True))
        pending.extend((_node_of(tensor), False) for tensor in node.input_tensors)
    return order


def _node_of(tensor: Symbol) -> Node | None:
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    return history.operation._inbound_nodes[history.node_index]
