"""What a model does, as a flat list of operations on tensors: the ground `initialize` reasons on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_rwinit.layers import DeepSequential, DenseStack

from .kernels import has_own_activation, hides_sublayers, holds_kernels, kernels_of, sublayers

__all__ = ["Graph", "Step", "trace"]

Shape = tuple[int | None, ...] | None


@dataclass(frozen=True, eq=False)
class Step:
    """One application of an operation (a layer, or a function of `keras.ops`).

    Args:
        operation: The Keras layer or operation.
        inputs, outputs: Numbers of the tensors it takes and gives.
        input_shape: Shape of the first of its inputs, the batch included; None if unknown.
        guessed: Whether its place is a guess: it is part of a layer that could not be looked into.
    """

    operation: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shape: Shape = None
    guessed: bool = False


@dataclass(frozen=True)
class Graph:
    """The steps of a model in an order in which they can be carried out; see `trace`."""

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def trace(model: keras.Model, x: Any = None) -> Graph:
    """Follows a model's operations down to single layers, nested models and layers included.

    Sequential and functional models say what they do. Others, and layers made of layers, are called
    once with symbolic tensors, and leave no trace of it. Where that fails their sublayers are taken to
    be applied one after another, in the order of their attributes, and marked as guessed.

    Args:
        model: A built model.
        x: Arrays of the structure of the model's inputs, for a model that does not know their shapes.
    """
    tracer = _Tracer()
    if _function_of(model) is not None:
        tensors = list(_function_of(model).inputs)
        arguments: Any = None
    else:
        arguments = _symbols(model, x)
        tensors = keras.tree.flatten(arguments)
    inputs = tracer.numbers(len(tensors))
    shapes = [tuple(tensor.shape) for tensor in tensors]
    outputs = tracer.expand(model, inputs, shapes, (arguments,), {})
    return Graph(tuple(tracer.steps), inputs, outputs)


def _symbols(model: keras.Model, x: Any) -> Any:
    """Symbolic inputs of a model that is no graph of layers; an empty list if nothing tells their shape."""
    if isinstance(model, DeepSequential):
        return keras.KerasTensor(model.input_shape)
    if x is not None:
        return keras.tree.map_structure(lambda a: keras.KerasTensor((None, *a.shape[1:]), str(a.dtype)), x)
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    if len(shapes) != 1 or shapes[0] is None:
        return []
    return keras.tree.map_shape_structure(keras.KerasTensor, shapes[0])


def _function_of(operation: Any) -> Any:
    """The graph of a functional or Sequential model; None for anything else."""
    operation = getattr(operation, "_functional", None) or operation
    return operation if hasattr(operation, "_nodes_by_depth") else None


def _may_be_composed(operation: Any) -> bool:
    """Whether there may be more to see inside: kernels, or a sum or an activation of somebody's own."""
    own = not type(operation).__module__.startswith(("keras.src.layers.", "keras.src.ops."))
    own = own or isinstance(operation, keras.layers.Lambda)
    return holds_kernels(operation) or (own and isinstance(operation, keras.layers.Layer))


@dataclass
class _Tracer:
    steps: list[Step] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=itertools.count)

    def numbers(self, count: int) -> tuple[int, ...]:
        return tuple(itertools.islice(self._count, count))

    def expand(
        self, operation: Any, inputs: tuple[int, ...], shapes: Sequence[Shape], args: Any, kwargs: Any
    ) -> tuple[int, ...]:
        """Adds the steps of one call of `operation`; returns the numbers of its outputs."""
        function = _function_of(operation)
        if function is not None:
            nodes = (
                node
                for depth in sorted(function._nodes_by_depth, reverse=True)
                for node in function._nodes_by_depth[depth]
            )
            return self._follow(nodes, function.inputs, function.outputs, inputs)
        if isinstance(operation, DeepSequential):
            return self._chain(operation.chain, inputs, shapes[0])
        if isinstance(operation, keras.layers.TimeDistributed) and shapes[0] is not None:
            step = (shapes[0][0], *shapes[0][2:])
            return self.expand(operation.layer, inputs[:1], [step], (keras.KerasTensor(step),), {})
        if kernels_of(operation):
            # What the rest of somebody's own `call` does, no one can tell.
            known = isinstance(operation, DenseStack) or has_own_activation(operation)
            return self._single(operation, inputs, shapes, 1, guessed=not known)
        if hides_sublayers(operation) or not _may_be_composed(operation):
            return self._single(operation, inputs, shapes, 1)
        try:
            with _no_trace_left(operation):
                called_with, outputs = _call_symbolically(operation, args, kwargs)
                return self._follow(_nodes_before(outputs), called_with, outputs, inputs)
        except Exception:  # whatever a layer's own code may do with symbolic tensors
            return self._guess(operation, inputs, shapes)

    def _single(
        self,
        operation: Any,
        inputs: tuple[int, ...],
        shapes: Sequence[Shape],
        outputs: int,
        guessed: bool = False,
    ) -> tuple[int, ...]:
        numbers = self.numbers(outputs)
        self.steps.append(Step(operation, inputs, numbers, shapes[0] if shapes else None, guessed))
        return numbers

    def _follow(
        self, nodes: Any, called_with: Sequence[Any], outputs: Sequence[Any], inputs: tuple[int, ...]
    ) -> tuple[int, ...]:
        """The steps of Keras's own nodes, in an order that can be carried out."""
        start = len(self.steps)
        known = {id(tensor): number for tensor, number in zip(called_with, inputs, strict=True)}
        for node in nodes:
            tensors = [tensor for tensor in node.input_tensors if id(tensor) in known]
            if node.operation is None or node.is_input or not tensors:
                continue
            numbers = tuple(known[id(tensor)] for tensor in tensors)
            shapes = [tuple(tensor.shape) for tensor in tensors]
            results = self.expand(node.operation, numbers, shapes, node.arguments.args, node.arguments.kwargs)
            if len(results) < len(node.outputs):
                results += (results[-1],) * (len(node.outputs) - len(results))
            known.update((id(tensor), number) for tensor, number in zip(node.outputs, results, strict=False))
        missing = [tensor for tensor in outputs if id(tensor) not in known]
        if missing:
            del self.steps[start:]
            raise ValueError(f"{len(missing)} outputs do not depend on the inputs")
        return tuple(known[id(tensor)] for tensor in outputs)

    def _chain(self, layers: Sequence[Any], inputs: tuple[int, ...], shape: Shape) -> tuple[int, ...]:
        for layer in layers:
            symbol = keras.KerasTensor(shape)
            inputs = self.expand(layer, inputs, [shape], (symbol,), {})[:1]
            shape = tuple(layer.compute_output_shape(shape))
        return inputs

    def _guess(self, operation: Any, inputs: tuple[int, ...], shapes: Sequence[Shape]) -> tuple[int, ...]:
        """Sublayers one after another; a depth-first walk without recursion."""
        pending = [operation]
        while pending:
            layer = pending.pop()
            if layer is operation or not (kernels_of(layer) or hides_sublayers(layer)):
                below = sublayers(layer)
                if below:
                    pending.extend(reversed(below))
                    continue
            inputs = self._single(layer, inputs, shapes, 1, guessed=True)
            shapes = []
        return inputs


def _call_symbolically(operation: Any, args: Any, kwargs: Any) -> tuple[list[Any], list[Any]]:
    """Calls `operation.call` on fresh symbolic tensors; returns those and what came of them."""
    fresh: list[Any] = []

    def renew(value: Any) -> Any:
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


def _nodes_before(outputs: Sequence[Any]) -> list[Any]:
    """Keras's nodes that lead to `outputs`, each after the ones it needs; without recursion."""
    order: list[Any] = []
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


def _node_of(tensor: Any) -> Any:
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    return history.operation._inbound_nodes[history.node_index]


@contextmanager
def _no_trace_left(operation: Any) -> Iterator[None]:
    """Takes back what calls with symbolic tensors leave in a layer and its sublayers."""
    layers = operation._flatten_layers()
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    try:
        yield
    finally:
        for layer, inbound, outbound in before:
            del layer._inbound_nodes[inbound:]
            del layer._outbound_nodes[outbound:]
