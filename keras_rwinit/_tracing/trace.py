"""A model as a flat list of operations on tensors, which `initialize` and `gradient_walk` read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras

from keras_rwinit._keras.layer_kinds import layer_kind
from keras_rwinit._keras.types import ArrayTree, Tensor

from .kernels import activates_kernel_output, hides_sublayers, holds_kernels, kernels_of, sublayers

__all__ = ["Graph", "Step", "trace"]

Shape: TypeAlias = tuple[int | None, ...] | None
Symbol: TypeAlias = keras.KerasTensor

Function: TypeAlias = Any
"""A graph of layers, `keras.src.ops.function.Function`, which is not public."""

Node: TypeAlias = Any
"""A call of an operation in such a graph, `keras.src.ops.node.Node`, which is not public."""


@dataclass(frozen=True, eq=False)
class Step:
    """One application of an operation (a layer, or a function of `keras.ops`).

    Args:
        operation: The Keras layer or operation.
        inputs, outputs: Numbers of its input and output tensors.
        input_shape: Shape of its first input, the batch included; None if unknown.
        guessed: Whether its inputs are a guess, because it is part of a layer that could not be looked into.
    """

    operation: keras.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shape: Shape = None
    guessed: bool = False


@dataclass(frozen=True)
class Graph:
    """The steps of a model, each after those whose outputs it takes; see `trace`."""

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def trace(model: keras.Model, x: ArrayTree = None) -> Graph:
    """Follows a model's operations down to single layers, nested models and layers included.

    Sequential and functional models hold the graph of their layers. Other models, and layers made of layers,
    are called once with symbolic tensors, and are left as they were. Where such a call fails, the sublayers
    are assumed to be applied one after another in the order of their attributes, and are marked as guessed.

    Args:
        model: A built model.
        x: Arrays of the structure of the model's inputs, for a model that does not know their shapes.
    """
    tracer = _Tracer()
    function = _function_of(model)
    arguments: ArrayTree = None
    if function is not None:
        tensors = list(function.inputs)
    else:
        arguments = _symbols(model, x)
        tensors = keras.tree.flatten(arguments)
    inputs = tracer.numbers(len(tensors))
    shapes = [tuple(tensor.shape) for tensor in tensors]
    outputs = tracer.expand(model, inputs, shapes, (arguments,), {})
    return Graph(tuple(tracer.steps), inputs, outputs)


def _symbols(model: keras.Model, x: ArrayTree) -> ArrayTree:
    """Returns symbolic inputs of a model that is no graph of layers; an empty list if no shape is known."""
    if layer_kind(model).chained:
        return keras.KerasTensor(model.input_shape)
    if x is not None:
        return keras.tree.map_structure(lambda a: keras.KerasTensor((None, *a.shape[1:]), str(a.dtype)), x)
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    if len(shapes) != 1 or shapes[0] is None:
        return []
    return keras.tree.map_shape_structure(keras.KerasTensor, shapes[0])


def _function_of(operation: keras.Operation) -> Function | None:
    """Returns the graph of a functional or Sequential model; None for anything else."""
    operation = getattr(operation, "_functional", None) or operation
    return operation if hasattr(operation, "_nodes_by_depth") else None


def _may_be_composed(operation: keras.Operation) -> bool:
    """Returns whether there may be kernels inside, or sums and activations of a layer of the user's."""
    own = not type(operation).__module__.startswith(("keras.src.layers.", "keras.src.ops."))
    own = own or layer_kind(operation).runs_user_code
    return holds_kernels(operation) or (own and isinstance(operation, keras.layers.Layer))


@dataclass
class _Tracer:
    steps: list[Step] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=itertools.count)

    def numbers(self, count: int) -> tuple[int, ...]:
        return tuple(itertools.islice(self._count, count))

    def expand(
        self,
        operation: keras.Operation,
        inputs: tuple[int, ...],
        shapes: Sequence[Shape],
        args: ArrayTree,
        kwargs: ArrayTree,
    ) -> tuple[int, ...]:
        """Adds the steps of one call of `operation`; returns the numbers of its outputs."""
        function = _function_of(operation)
        if function is not None:
            # Keras counts depth from the outputs: the deepest nodes are applied first.
            nodes = (
                node
                for depth in sorted(function._nodes_by_depth, reverse=True)
                for node in function._nodes_by_depth[depth]
            )
            return self._follow(nodes, function.inputs, function.outputs, inputs)
        kind = layer_kind(operation)
        if kind.chained:
            return self._chain(getattr(operation, kind.chained), inputs, shapes[0])
        if kind.wrapped and shapes[0] is not None:
            shape, layer = kind.wrapped_shape(shapes[0]), getattr(operation, kind.wrapped)
            return self.expand(layer, inputs[:1], [shape], (keras.KerasTensor(shape),), {})
        if kernels_of(operation):
            # What the rest of somebody's own `call` does, no one can tell.
            return self._single(operation, inputs, shapes, 1, guessed=not activates_kernel_output(operation))
        if hides_sublayers(operation) or not _may_be_composed(operation):
            return self._single(operation, inputs, shapes, 1)
        try:
            with _discard_new_nodes(operation):
                called_with, outputs = _call_symbolically(operation, args, kwargs)
                return self._follow(_nodes_before(outputs), called_with, outputs, inputs)
        except Exception:  # whatever a layer's own code may do with symbolic tensors
            return self._guess(operation, inputs, shapes)

    def _single(
        self,
        operation: keras.Operation,
        inputs: tuple[int, ...],
        shapes: Sequence[Shape],
        outputs: int,
        guessed: bool = False,
    ) -> tuple[int, ...]:
        numbers = self.numbers(outputs)
        self.steps.append(Step(operation, inputs, numbers, shapes[0] if shapes else None, guessed))
        return numbers

    def _follow(
        self,
        nodes: Iterable[Node],
        called_with: Sequence[Symbol],
        outputs: Sequence[Symbol],
        inputs: tuple[int, ...],
    ) -> tuple[int, ...]:
        """Adds the steps of Keras's nodes; returns the numbers of `outputs`."""
        start = len(self.steps)
        known = {id(tensor): number for tensor, number in zip(called_with, inputs, strict=True)}
        for node in nodes:
            tensors = [tensor for tensor in node.input_tensors if id(tensor) in known]
            if node.operation is None or node.is_input or not tensors:
                continue
            numbers = tuple(known[id(tensor)] for tensor in tensors)
            shapes = [tuple(tensor.shape) for tensor in tensors]
            results = self.expand(node.operation, numbers, shapes, node.arguments.args, node.arguments.kwargs)
            # A layer traced as one step has one number, which stands for all its outputs.
            if len(results) < len(node.outputs):
                results += (results[-1],) * (len(node.outputs) - len(results))
            known.update((id(tensor), number) for tensor, number in zip(node.outputs, results, strict=False))
        missing = [tensor for tensor in outputs if id(tensor) not in known]
        if missing:
            # No half-traced layer stays behind; the caller guesses instead.
            del self.steps[start:]
            raise ValueError(f"{len(missing)} outputs do not depend on the inputs")
        return tuple(known[id(tensor)] for tensor in outputs)

    def _chain(
        self, layers: Sequence[keras.layers.Layer], inputs: tuple[int, ...], shape: Shape
    ) -> tuple[int, ...]:
        for layer in layers:
            symbol = keras.KerasTensor(shape)
            inputs = self.expand(layer, inputs, [shape], (symbol,), {})[:1]
            shape = tuple(layer.compute_output_shape(shape))
        return inputs

    def _guess(
        self, operation: keras.Operation, inputs: tuple[int, ...], shapes: Sequence[Shape]
    ) -> tuple[int, ...]:
        """Adds the sublayers as steps one after another, depth first."""
        # Without recursion: layers nest to any depth.
        pending = [operation]
        while pending:
            layer = pending.pop()
            if layer is operation or not (kernels_of(layer) or hides_sublayers(layer)):
                below = sublayers(layer)
                if below:
                    pending.extend(reversed(below))
                    continue
            inputs = self._single(layer, inputs, shapes, 1, guessed=True)
            # Only the first sublayer is known to have the input's shape.
            shapes = []
        return inputs


def _call_symbolically(
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
    with keras.StatelessScope():
        outputs = operation.call(*args, **kwargs)
    return fresh, [tensor for tensor in keras.tree.flatten(outputs) if tensor is not None]


def _nodes_before(outputs: Sequence[Symbol]) -> list[Node]:
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


@contextmanager
def _discard_new_nodes(operation: keras.layers.Layer) -> Iterator[None]:
    """Removes the nodes that calls with symbolic tensors add to a layer and its sublayers."""
    layers = operation._flatten_layers()
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    try:
        yield
    finally:
        for layer, inbound, outbound in before:
            del layer._inbound_nodes[inbound:]
            del layer._outbound_nodes[outbound:]
