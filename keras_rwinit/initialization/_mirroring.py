"""Finds the kernels of a model that can be mirrored, so that the network is linear when it starts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.activations import theory_activation
from keras_rwinit._keras.drawing import KernelLayout
from keras_rwinit._keras.layer_kinds import Effect, layer_kind
from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.graph import Graph, Step
from keras_rwinit._tracing.kernels import Kernel, KernelIdentity
from keras_rwinit.theory import Activation
from keras_rwinit.theory.distributions import Pairs
from keras_rwinit.theory.mirrored import mirrored_slope

from ._moments import NORMAL, normalized_spectrum, values_at

__all__ = ["Mirroring", "find_mirrorings"]

L = keras.layers

# Layers that are linear, act on each channel alone and leave the axes where they are. (Dropout does so when
# the model is not trained, and in the mean when it is.)
_PASSES_CHANNELS = (
    L.AveragePooling1D,
    L.AveragePooling2D,
    L.AveragePooling3D,
    L.GlobalAveragePooling1D,
    L.GlobalAveragePooling2D,
    L.GlobalAveragePooling3D,
    L.UpSampling1D,
    L.UpSampling2D,
    L.UpSampling3D,
    L.ZeroPadding1D,
    L.ZeroPadding2D,
    L.ZeroPadding3D,
    L.Cropping1D,
    L.Cropping2D,
    L.Cropping3D,
    L.Dropout,
    L.GaussianDropout,
    L.GaussianNoise,
    L.ActivityRegularization,
    L.Identity,
    L.InputLayer,
)


@dataclass(frozen=True)
class Mirroring:
    """How a kernel is mirrored.

    Args:
        inputs: Pairs among the units that it sums over; None if they do not come in pairs.
        outputs: Pairs among its outputs; None if they do not come in pairs.
        reason: For reports, what is mirrored, or why the inputs are not; empty where there is nothing to say.
    """

    inputs: Pairs | None = None
    outputs: Pairs | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Units:
    """A tensor that holds the outputs of one kernel, unit by unit.

    Args:
        source: Index of the kernel's context.
        axis: Axis of the units: the last, -1, or 1.
        activated: Whether an activation is between the kernel and the tensor.
        flat: Index of each unit at each position, shape (positions, units), where both lie on one axis.
    """

    source: int
    axis: int
    activated: bool
    flat: NDArray[np.intp] | None = None


_State: TypeAlias = _Units | str
"""What is known of a tensor, or why the units of a kernel are not to be found in it."""

_FED_LINEARLY = "it is fed linearly"

# Measured on the digits (300 steps of Adam at the best of six rates, three seeds), mirrored kernels against
# orthogonal ones: one to six relu layers, three and eight gelu layers and seven softplus layers train as well
# with either. Ten relu layers reach an eighth of the loss, twenty gelu layers a fifteenth. Four softplus
# layers and twenty of leaky_relu(0.9) reach three times the loss. Sixteen convolutions, each with a batch
# normalization and relu, reach 0.82 with mirrored kernels, 0.60 with orthogonal and 0.46 with normal ones (a
# hundred steps); twenty Dense layers with them 0.06, 0.28 and 0.31.
_LINEAR_SHARE = 0.005


def find_mirrorings(
    graph: Graph,
    contexts: Sequence[KernelContext],
    layouts: Mapping[KernelIdentity, KernelLayout],
    *,
    only_gaining: bool = False,
) -> dict[KernelIdentity, Mirroring]:
    """Returns how each kernel is mirrored.

    Let f have `f(a) - f(-a) = c a`, and let f be all that lies between a kernel and those that it feeds,
    except for linear layers that act on each channel alone and for rearrangements. If the kernel's outputs
    come in pairs (z, -z), then what the next kernels read comes in pairs whose difference is linear in z. So
    a kernel gets mirrored outputs if all kernels that it feeds can read its units in pairs. Those are then
    mirrored at their inputs.

    A normalization before the activation keeps pairs, because it maps z and -z to opposite values; behind
    the activation it does not. A sum ends a chain, and so does maximum pooling. Behind a Flatten the pairs of
    all positions lie apart, and the rows of the next kernel are arranged accordingly.

    Args:
        graph: The model.
        contexts: The contexts of its kernels.
        layouts: The layouts of the kernels that are drawn and applied once; no other can be mirrored.
        only_gaining: Whether only chains are mirrored that gain by it; see `_find_gaining`.
    """
    fed = _follow_units(graph, contexts)
    reasons = [_why_unpaired(index, fed[index], contexts, layouts) for index in range(len(contexts))]
    followers: dict[int, list[int]] = defaultdict(list)
    for index, state in enumerate(fed):
        if isinstance(state, _Units):
            followers[state.source].append(index)
    inputs: dict[int, Pairs] = {}
    outputs: dict[int, Pairs] = {}
    for source, fed_by_it in followers.items():
        pairs, reason = _pairs_between(source, fed_by_it, contexts, layouts, reasons)
        if pairs is not None:
            outputs[source] = pairs
            continue
        for index in fed_by_it:
            reasons[index] = reasons[index] or reason
    if only_gaining:
        gaining = _find_gaining({source: followers[source] for source in outputs}, contexts, layouts)
        outputs = {source: pairs for source, pairs in outputs.items() if source in gaining}
    for source, pairs in outputs.items():
        for index in followers[source]:
            state = fed[index]
            assert isinstance(state, _Units)
            inputs[index] = pairs if state.flat is None else _flattened(pairs, state.flat)
    return {
        context.kernel.identity: Mirroring(
            inputs.get(index),
            outputs.get(index),
            _describe(index in inputs, index in outputs, reasons[index]),
        )
        for index, context in enumerate(contexts)
        if context.kernel.identity in layouts
    }


def _find_gaining(
    links: Mapping[int, Sequence[int]],
    contexts: Sequence[KernelContext],
    layouts: Mapping[KernelIdentity, KernelLayout],
) -> set[int]:
    """Returns the kernels whose chains gain by mirrored kernels.

    Mirrored kernels halve the width of a chain when training starts, and pass on linearly all that it reads.
    Behind other kernels an activation f passes on the share `s = (E a f(a))^2 / E f(a)^2` of its mean square,
    for normal a of unit variance: 0.5 for relu, 0.59 for gelu, 0.997 for `leaky_relu(0.9)`. The rest is the
    constant that makes all inputs alike, and terms of higher degree. s is also what is left of a small
    correlation of two inputs, the slope at zero of `E f(a) f(b) / E f^2`. A chain gains where the product of
    its shares is below `_LINEAR_SHARE`: from eight activations on for relu, and from ten for gelu.

    Mirrored convolutions also read nothing but the center of their window at first. Behind a normalization,
    which takes away what all inputs have in common, that costs more than it gains, and the step does not
    count.

    Args:
        links: For each kernel with outputs that can be mirrored, the kernels that it feeds.
        contexts: The contexts of all kernels, in the order in which the model applies them.
        layouts: The layouts of the kernels that may be mirrored.
    """
    first: dict[int, int] = {}
    shares: dict[int, float] = {}
    smallest: dict[int, float] = defaultdict(lambda: 1.0)
    of_activation: dict[Activation, float] = {}
    for source in sorted(links):
        chain = first.setdefault(source, source)
        for index in links[source]:
            context = contexts[index]
            activation = context.signal.activation
            if activation not in of_activation:
                of_activation[activation] = normalized_spectrum(values_at(activation, NORMAL))[1]
            layout = layouts[context.kernel.identity]
            is_window = layout.center is not None and set(layout.shape[:-2]) != {1}
            counts = not (context.signal.normalized and is_window)
            first[index] = chain
            shares[index] = shares.get(source, 1.0) * (of_activation[activation] if counts else 1.0)
            smallest[chain] = min(smallest[chain], shares[index])
    return {source for source in links if smallest[first[source]] < _LINEAR_SHARE}


def _describe(inputs: bool, outputs: bool, reason: str) -> str:
    """Returns what the report says of a kernel; that it is fed linearly, it says anyway."""
    reason = "" if reason == _FED_LINEARLY else reason
    if inputs or outputs:
        sides = "inputs and outputs" if inputs and outputs else "inputs" if inputs else "outputs"
        return f"; mirrored {sides}" + (f"; inputs not mirrored: {reason}" if reason else "")
    return f"; not mirrored: {reason}" if reason else ""


def _follow_units(graph: Graph, contexts: Sequence[KernelContext]) -> list[_State]:
    """Returns for each kernel the state of the tensor that it reads."""
    of_step: dict[int, list[int]] = defaultdict(list)
    for index, context in enumerate(contexts):
        of_step[id(context.step)].append(index)
    states: dict[int, _State] = {}
    fed: list[_State] = [""] * len(contexts)
    for step in graph.steps:
        incoming = [states.get(number, "") for number in step.inputs]
        state = _pass_through(step, incoming) if id(step) not in of_step else _merge(step, incoming)
        # The kernels of a stack follow each other.
        for index in of_step.get(id(step), ()):
            fed[index] = state
            state = _outputs(index, contexts[index])
        for number in step.outputs:
            states[number] = state
    return fed


def _merge(step: Step, incoming: Sequence[_State]) -> _State:
    if len(incoming) == 1:
        return incoming[0]
    # What reads data or a sum begins a chain, and needs no reason.
    begins = not any(incoming) or layer_kind(step.operation).effect in (Effect.SUM, Effect.MEAN)
    return "" if begins else f"{_name(step)} has several inputs"


def _outputs(index: int, context: KernelContext) -> _State:
    kernel = context.kernel
    axis = _channel_axis(kernel.layer)
    if context.step.guessed or (axis != -1 and kernel.layer is not context.step.operation):
        return f"the outputs of {kernel.layer.name!r} are out of sight"
    return _Units(index, axis, kernel.activation not in (None, keras.activations.linear))


def _channel_axis(layer: keras.Operation) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def _name(step: Step) -> str:
    return repr(getattr(step.operation, "name", type(step.operation).__name__))


def _pass_through(step: Step, incoming: Sequence[_State]) -> _State:
    """Returns the state behind an operation without kernels."""
    state = _merge(step, incoming)
    if not isinstance(state, _Units):
        return state
    operation, kind = step.operation, layer_kind(step.operation)
    lost = f"{_name(step)} does not keep pairs"
    if step.guessed:
        return lost
    if kind.effect is Effect.FUNCTION:  # whether it acts unit by unit, the context's signal says
        return replace(state, activated=True)
    if kind.effect is Effect.ACTIVATION:
        return replace(state, activated=True) if _is_elementwise(step) else lost
    if kind.effect in (Effect.NORMALIZATION, Effect.UNIT_LENGTH):
        return f"{_name(step)} follows the activation" if state.activated else _normalize(step, state, lost)
    if kind.effect in (Effect.SUM, Effect.PRODUCT, Effect.QUOTIENT):
        numbers = all(isinstance(value, keras.KerasTensor | int | float) for value in step.arguments)
        return state if numbers else lost
    if isinstance(operation, L.Flatten | L.Reshape):
        return _rearrange(step, state, lost)
    if isinstance(operation, _PASSES_CHANNELS):
        # Along other axes than the channels', only dropout may act.
        has_axes = hasattr(operation, "data_format")
        if has_axes and (state.flat is not None or _channel_axis(operation) != state.axis):
            return lost
        pools_all = type(operation).__name__.startswith("GlobalAverage") and not operation.keepdims
        return replace(state, axis=-1) if pools_all else state
    return lost


def _is_elementwise(step: Step) -> bool:
    activation = layer_kind(step.operation).activation
    if activation is None:
        return False
    try:
        theory_activation(activation(step.operation), step.units)
    except ValueError:  # as softmax
        return False
    return True


def _normalize(step: Step, state: _Units, lost: str) -> _State:
    # The two units of a pair are in two groups that mirror each other, or in the only one.
    groups = getattr(step.operation, "groups", 1)
    return state if groups == 1 or groups % 2 == 0 else lost


def _rearrange(step: Step, state: _Units, lost: str) -> _State:
    """Returns the state behind a Flatten or Reshape layer."""
    layer, shape = step.operation, (step.input_shape or (None,))[1:]
    if len(shape) == 1 and isinstance(layer, L.Flatten):
        return state
    if state.flat is not None or len(shape) < 2 or None in shape:
        return lost
    sizes = [size for size in shape if size is not None]
    elements = np.arange(math.prod(sizes)).reshape(sizes)
    axis = 0 if state.axis == 1 else len(sizes) - 1
    if isinstance(layer, L.Flatten):
        moved = np.moveaxis(elements, 0, -1) if layer.data_format == "channels_first" else elements
    elif len(layer.target_shape) == 1:
        moved = elements
    else:
        keeps_units = state.axis == -1 and layer.target_shape[-1] == sizes[-1]
        return state if keeps_units else lost
    # Where each element lies when all are on one axis
    place = np.empty(elements.size, np.intp)
    place[moved.ravel()] = np.arange(elements.size)
    by_unit = np.moveaxis(place[elements], axis, -1).reshape(-1, sizes[axis])
    return replace(state, axis=-1, flat=by_unit)


def _why_unpaired(
    index: int,
    state: _State,
    contexts: Sequence[KernelContext],
    layouts: Mapping[KernelIdentity, KernelLayout],
) -> str:
    """Returns why a kernel cannot read its inputs in pairs; empty if it can."""
    kernel, signal = contexts[index].kernel, contexts[index].signal
    if not isinstance(state, _Units):
        return state
    if not state.activated or len(set(signal.activation.slopes or (0.0, 1.0))) == 1:
        return _FED_LINEARLY
    if mirrored_slope(signal.activation) is None:
        return f"{signal.activation.name} has no f(a) - f(-a) = c a"
    if signal.summed or signal.gates or signal.unknown or signal.mixed or signal.guessed:
        return "it is not fed by an activation alone"
    if signal.sources != frozenset([state.source]):
        return "several kernels feed it"
    reason = _why_unmirrored(kernel, layouts)
    if reason:
        return reason
    layout, units = layouts[kernel.identity], contexts[state.source].kernel.units
    read = layout.fan_in * layout.groups
    if state.axis != _channel_axis(kernel.layer) or read != (
        units if state.flat is None else state.flat.size
    ):
        return "it sums over another axis"
    return ""


def _why_unmirrored(kernel: Kernel, layouts: Mapping[KernelIdentity, KernelLayout]) -> str:
    """Returns why the kernel's inputs and outputs cannot be mirrored; empty if they can."""
    layout = layouts.get(kernel.identity)
    if layout is None:
        return f"the kernel of {kernel.layer.name!r} is not drawn, or applied several times"
    is_matrix = len(layout.shape) == 2 and not isinstance(kernel.layer, L.EinsumDense)
    return (
        "" if is_matrix or layout.center is not None else f"the kernel of {kernel.layer.name!r} is no matrix"
    )


def _pairs_between(
    source: int,
    followers: Sequence[int],
    contexts: Sequence[KernelContext],
    layouts: Mapping[KernelIdentity, KernelLayout],
    reasons: Sequence[str],
) -> tuple[Pairs | None, str]:
    """Returns the pairs that a kernel's outputs come in and all kernels that it feeds can read.

    Without any it returns None and the reason.
    """
    context = contexts[source]
    reason = _why_unmirrored(context.kernel, layouts)
    if reason:
        return None, reason
    if any(reasons[index] for index in followers):
        return None, f"{context.kernel.layer.name!r} also feeds a kernel that cannot read pairs"
    if len(followers) != context.followed or context.terms or context.gate_of:
        return None, f"the output of {context.kernel.layer.name!r} is not only activated"
    units = context.kernel.units
    groups = [layouts[contexts[index].kernel.identity].groups for index in (source, *followers)]
    blocks = max(groups)
    # Both units of a pair belong to one group, of every layer.
    if any(blocks % number for number in groups) or units % blocks or units // blocks < 2:
        names = f"groups of {units} channels leave" if blocks > 1 else "a single unit leaves"
        return None, f"{names} no pairs"
    return _pairs_in_blocks(units, blocks), ""


def _pairs_in_blocks(units: int, blocks: int) -> Pairs:
    """Returns pairs of a unit in the first half of its block and one in the second."""
    size = units // blocks
    plus = (size * np.arange(blocks)[:, None] + np.arange(size // 2)).ravel()
    return Pairs(plus, plus + size // 2, units)


def _flattened(pairs: Pairs, flat: NDArray[np.intp]) -> Pairs:
    """Returns the pairs of all positions."""
    return Pairs(flat[:, pairs.plus].ravel(), flat[:, pairs.minus].ravel(), flat.size)
