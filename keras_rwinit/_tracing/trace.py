"""A model as a flat list of operations on tensors, which `initialize` and `gradient_walk` read."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from keras_rwinit._keras.execution import has_value, uncompiled
from keras_rwinit._keras.layer_kinds import layer_kind
from keras_rwinit._keras.types import ArrayTree, Tensor

from .calls import call_arguments, observe
from .graph import Graph, Shape, Step
from .kernels import (
    Kernel,
    activates_kernel_output,
    hides_sublayers,
    holds_kernels,
    kernels_of,
    sublayers,
)
from .recording import RecordedCall, find_origin, record_calls
from .symbols import (
    Node,
    Symbol,
    call_symbolically,
    example_batch,
    first_examples,
    function_of,
    nodes_before,
    symbol_of,
    symbols_of,
)

__all__ = ["trace"]


def trace(model: keras.Model, x: ArrayTree = None) -> Graph:
    """Follows a model's operations down to single layers, nested models and layers included.

    Sequential and functional models hold the graph of their layers. Other models, and layers made of layers,
    are called once with symbolic tensors, and are left as they were. Where such a call fails, the model runs
    on arrays, which shows the calls of its layers and which of them takes the output of which; what lies
    between two layers is told by the values, or marked as guessed. Where that fails too, the sublayers are
    assumed to be applied one after another in the order of their attributes, and are marked as guessed.

    Args:
        model: A built model.
        x: Arrays of the structure of the model's inputs, for a model that does not know their shapes.
    """
    tracer = _Tracer(model, x)
    function = function_of(model)
    args: tuple[ArrayTree, ...] = ()
    kwargs: dict[str, ArrayTree] = {}
    if function is not None:
        tensors = list(function.inputs)
    else:
        args, kwargs = call_arguments(model, symbols_of(model, x))
        tensors = [tensor for tensor in keras.tree.flatten((args, kwargs)) if tensor is not None]
    inputs = tracer.numbers(len(tensors))
    shapes = [tuple(tensor.shape) for tensor in tensors]
    with observe(model), uncompiled():
        outputs = tracer.expand(model, inputs, shapes, args, kwargs)
    return Graph(tuple(tracer.steps), inputs, outputs)


def _may_be_composed(operation: keras.Operation) -> bool:
    """Returns whether there may be kernels inside, or sums and activations of a layer of the user's."""
    own = not type(operation).__module__.startswith(("keras.src.layers.", "keras.src.ops."))
    own = own or layer_kind(operation).runs_user_code
    return holds_kernels(operation) or (own and isinstance(operation, keras.layers.Layer))


@dataclass
class _Tracer:
    model: keras.Model
    x: ArrayTree = None
    steps: list[Step] = field(default_factory=list)
    _calls: Counter[int] = field(default_factory=Counter)
    _records: dict[int, list[RecordedCall]] | None = None
    _kernels: dict[int, Kernel] | None = None
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
        function = function_of(operation)
        if function is not None:
            # Keras counts depth from the outputs: the deepest nodes are applied first.
            nodes = (
                node
                for depth in sorted(function._nodes_by_depth, reverse=True)
                for node in function._nodes_by_depth[depth]
            )
            return self._follow(nodes, function.inputs, function.outputs, inputs, constant=True)
        kind = layer_kind(operation)
        if kind.chained:
            return self._chain(getattr(operation, kind.chained), inputs, shapes[0])
        if kind.wrapped and shapes[0] is not None:
            shape, layer = kind.wrapped_shape(shapes[0]), getattr(operation, kind.wrapped)
            return self.expand(layer, inputs[:1], [shape], (keras.KerasTensor(shape),), {})
        if kernels_of(operation):
            known = activates_kernel_output(operation)
            numbers = None if known else self._look_inside(operation, args, kwargs, inputs)
            # What the rest of somebody's own `call` does, no one can tell.
            return numbers or self._single(operation, inputs, shapes, guessed=not known)
        if hides_sublayers(operation) or not _may_be_composed(operation):
            return self._single(operation, inputs, shapes, arguments=tuple(args), keywords=kwargs)
        call, calls, start = self._calls[id(operation)], self._calls.copy(), len(self.steps)
        # What one function compiles, and symbolic tensors cannot enter, may run in the open.
        for inline in (False, True) if keras.backend.backend() == "jax" else (False,):
            try:
                with uncompiled(inline=inline):
                    called_with, outputs = call_symbolically(operation, args, kwargs)
                    numbers = self._follow(nodes_before(outputs), called_with, outputs, inputs)
                if not self._shows_more(operation, call, start):
                    self._calls[id(operation)] = call + 1
                    return numbers
                del self.steps[start:]
                self._calls = calls.copy()
                break
            except Exception:  # whatever a layer's own code may do with symbolic tensors
                # No half-traced layer stays behind.
                del self.steps[start:]
                self._calls = calls.copy()
        self._calls[id(operation)] = call + 1
        record = self._record(operation, call)
        if record is not None and record.inside:
            return self._replay(record, inputs)
        return self._guess(operation, inputs, shapes)

    def _look_inside(
        self, layer: keras.layers.Layer, args: ArrayTree, kwargs: ArrayTree, inputs: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        """Adds the steps of a call of a user's layer with kernels; None unless it applies each one once."""
        calls, start = self._calls.copy(), len(self.steps)
        own = {id(kernel.variable) for kernel in kernels_of(layer)}
        try:
            called_with, outputs = call_symbolically(layer, args, kwargs)
            numbers = self._follow(nodes_before(outputs), called_with, outputs, inputs, owner=layer)
            kernels = [step.kernel for step in self.steps[start:] if step.kernel is not None]
            applied = [id(kernel.variable) for kernel in kernels if id(kernel.variable) in own]
            if sorted(own) == sorted(applied):
                return numbers
        except Exception:  # whatever a layer's own code may do with symbolic tensors
            pass
        # No half-traced layer stays behind.
        del self.steps[start:]
        self._calls = calls
        return None

    def _kernel_in(self, node: Node, constant: bool) -> tuple[Kernel, bool] | None:
        """Returns the kernel among the arguments of an operation, and whether it is a copy; None without one.

        What a layer of the user's computes of a weight, such as its transpose, has lost the weight: it is
        known by its values.
        """
        if isinstance(node.operation, keras.layers.Layer):
            return None
        if self._kernels is None:
            kernels = [kernel for layer in self.model._flatten_layers() for kernel in kernels_of(layer)]
            self._kernels = {id(kernel.variable): replace(kernel, activation=None) for kernel in kernels}
        for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if isinstance(value, keras.Variable) and id(value) in self._kernels:
                return self._kernels[id(value)], False
            if isinstance(value, keras.Variable) or not keras.ops.is_tensor(value) or len(value.shape) != 2:
                continue
            for kernel in self._kernels.values():
                turned = _is_same_matrix(value, kernel)
                if turned is not None:
                    return replace(kernel, turned=turned), constant
        return None

    def _record(self, operation: keras.Operation, call: int) -> RecordedCall | None:
        """Returns what a call of an operation did in a run of the model on arrays; None if there was none."""
        if self._records is None:
            self._records = {}
            with contextlib.suppress(Exception):  # of the model's own code, or sizes that no memory holds
                x = example_batch(self.model) if self.x is None else first_examples(self.x)
                if x is not None:
                    self._records = record_calls(self.model, x)
        records = self._records.get(id(operation), [])
        return records[call] if call < len(records) else None

    def _shows_more(self, operation: keras.Operation, call: int, start: int) -> bool:
        """Returns whether a run on arrays shows kernels that the steps from `start` on lack.

        Those are in a function that symbolic tensors do not enter, as a branch of `keras.ops.cond`.
        """
        applied = {id(kernel.variable) for step in self.steps[start:] for kernel in step.kernels}
        lacking = {id(kernel.variable) for kernel in _kernels_inside(operation)} - applied
        record = self._record(operation, call) if lacking else None
        pending = list(record.inside) if record is not None else []
        while pending:
            inner = pending.pop()
            pending += inner.inside
            # In a function that the back end maps, tensors have no values.
            if lacking & {id(kernel.variable) for kernel in kernels_of(inner.layer)}:
                return all(map(has_value, inner.results))
        return False

    def _replay(self, record: RecordedCall, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """Adds the steps of the calls that a call made; returns the numbers of its outputs."""
        known = list(zip(inputs, record.inputs, strict=False))
        numbers = {id(tensor): number for number, tensor in known}
        last = inputs

        def find(tensor: Tensor) -> int:
            if id(tensor) not in numbers:
                numbers[id(tensor)] = self._connect(tensor, known, last)
                known.append((numbers[id(tensor)], tensor))
            return numbers[id(tensor)]

        for call in record.inside:
            before = tuple(find(tensor) for tensor in call.inputs)
            shapes: list[Shape] = [(None, *tensor.shape[1:]) for tensor in call.inputs]
            args, kwargs = keras.tree.map_structure(
                lambda value: symbol_of(value) if keras.ops.is_tensor(value) else value,
                (call.args, call.kwargs),
            )
            last = self.expand(call.layer, before, shapes, args, kwargs) or last
            # A layer traced as one step has one number, which stands for all its outputs.
            results = last + (last[-1],) * (len(call.results) - len(last))
            for number, tensor in zip(results, call.results, strict=False):
                numbers[id(tensor)] = number
                known.append((number, tensor))
        return tuple(find(tensor) for tensor in record.results)

    def _connect(self, tensor: Tensor, known: Sequence[tuple[int, Tensor]], last: tuple[int, ...]) -> int:
        """Returns the number of a tensor that no layer gave out: it follows from those that are known."""
        shape: Shape = (None, *tensor.shape[1:])
        origin = find_origin(tensor, known)
        if origin is not None and origin.operation is None:
            return origin.sources[0]
        if origin is not None and origin.operation is not None:
            return self._single(origin.operation, origin.sources, [shape])[0]
        unknown = keras.layers.Identity(name="unknown")
        return self._single(unknown, last, [shape], guessed=True)[0]

    def _single(
        self,
        operation: keras.Operation,
        inputs: tuple[int, ...],
        shapes: Sequence[Shape],
        guessed: bool = False,
        arguments: tuple[object, ...] = (),
        keywords: Mapping[str, object] | None = None,
        kernel: Kernel | None = None,
        copied: bool = False,
    ) -> tuple[int, ...]:
        numbers = self.numbers(1)
        shape = shapes[0] if shapes else None
        self.steps.append(
            Step(operation, inputs, numbers, shape, guessed, arguments, keywords or {}, kernel, copied)
        )
        return numbers

    def _follow(
        self,
        nodes: Iterable[Node],
        called_with: Sequence[Symbol],
        outputs: Sequence[Symbol],
        inputs: tuple[int, ...],
        *,
        owner: keras.layers.Layer | None = None,
        constant: bool = False,
    ) -> tuple[int, ...]:
        """Adds the steps of Keras's nodes; returns the numbers of `outputs`.

        Args:
            nodes: The nodes, each after those whose outputs it takes.
            called_with: The tensors that they begin with.
            outputs: The tensors that they end with.
            inputs: The numbers of `called_with`.
            owner: The layer whose call they are, where it has kernels.
            constant: Whether arrays among their arguments are the same in every call of the model.
        """
        known = {id(tensor): number for tensor, number in zip(called_with, inputs, strict=True)}
        for node in nodes:
            tensors = [tensor for tensor in node.input_tensors if id(tensor) in known]
            if node.operation is None or node.is_input or not tensors:
                continue
            numbers = tuple(known[id(tensor)] for tensor in tensors)
            shapes = [tuple(tensor.shape) for tensor in tensors]
            found = self._kernel_in(node, constant)
            if found is None:
                results = self.expand(
                    node.operation, numbers, shapes, node.arguments.args, node.arguments.kwargs
                )
            else:
                kernel, copied = found
                # A layer is measured at its calls, and a use of its kernel elsewhere is none.
                operation = node.operation
                if owner is not None and _holds(owner, kernel):
                    operation = owner
                results = self._single(operation, numbers, shapes, kernel=kernel, copied=copied)
            results = self._with_all_outputs(results, len(node.outputs))
            known.update((id(tensor), number) for tensor, number in zip(node.outputs, results, strict=False))
        missing = [tensor for tensor in outputs if id(tensor) not in known]
        if missing:
            raise ValueError(f"{len(missing)} outputs do not depend on the inputs")
        return tuple(known[id(tensor)] for tensor in outputs)

    def _with_all_outputs(self, results: tuple[int, ...], count: int) -> tuple[int, ...]:
        """Returns the numbers of all outputs of an operation that may have been traced as a step with one.

        Two halves of a tensor are two tensors. Where the operation was more than one step, the last number
        stands for all that are missing.
        """
        missing = count - len(results)
        if missing <= 0:
            return results
        if self.steps and self.steps[-1].outputs == results:
            results += self.numbers(missing)
            self.steps[-1] = replace(self.steps[-1], outputs=results)
            return results
        return results + (results[-1],) * missing

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
            inputs = self._single(layer, inputs, shapes, guessed=True)
            # Only the first sublayer is known to have the input's shape.
            shapes = []
        return inputs


def _kernels_inside(operation: keras.Operation) -> Iterator[Kernel]:
    """Yields the kernels of a layer and of its sublayers, but for those that run in loops of the back end."""
    pending = [operation]
    while pending:
        layer = pending.pop()
        yield from kernels_of(layer)
        if not hides_sublayers(layer):
            pending += sublayers(layer)


def _holds(layer: keras.layers.Layer, kernel: Kernel) -> bool:
    return any(own.variable is kernel.variable for own in kernels_of(layer))


def _is_same_matrix(value: Tensor, kernel: Kernel) -> bool | None:
    """Returns whether a matrix is a kernel transposed (True) or as it is (False); None if neither."""
    if kernel.stacked or sorted(value.shape) != sorted(kernel.shape):
        return None
    values, weights = (keras.ops.convert_to_numpy(one) for one in (value, kernel.variable.value))
    # Weights that are all the same, such as zeros, tell nothing.
    if np.ptp(weights) == 0.0:
        return None
    if values.shape == weights.T.shape and np.array_equal(values, weights.T):
        return True
    return False if np.array_equal(values, weights) else None
