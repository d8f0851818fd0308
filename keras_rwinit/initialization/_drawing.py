"""Draws the kernels of a model by their plans, those of one kind together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.drawing import draw_layouts, draw_mirrored_layouts
from keras_rwinit._keras.parallel import run_in_parts
from keras_rwinit._tracing.kernels import Kernel, KernelIdentity
from keras_rwinit.theory.distributions import Pairs

from ._plan import KernelPlan, Places
from ._rules import GainRule

__all__ = ["draw_planned_kernels"]

_BATCH_BYTES = 2**26
"""Most bytes of kernels to draw before they are assigned; a stack is drawn into one array instead."""


def draw_planned_kernels(
    places: Places,
    rules: Mapping[KernelIdentity, GainRule],
    plans: Mapping[KernelIdentity, KernelPlan],
    seeds: Mapping[KernelIdentity, int],
) -> None:
    """Draws new values of all kernels and assigns them, to a stack's weight at once."""
    stacks: dict[int, NDArray[np.float32]] = {}
    for identities in _batches(places, plans):
        kernels = [places[identity][0].kernel for identity in identities]
        first, plan = kernels[0], plans[identities[0]]
        # Drawn for `layout.fan_in` inputs; a strided transposed convolution has fewer.
        scales = [
            rules[identity].gain * math.sqrt(plan.layout.fan_in / kernel.fan_in)
            for identity, kernel in zip(identities, kernels, strict=True)
        ]
        own_seeds = [seeds[identity] for identity in identities]
        if first.index is None:
            values = np.empty((len(kernels), *first.shape), np.float32)
            _draw_into(values, range(len(kernels)), plan, own_seeds, scales)
            for kernel, value in zip(kernels, values, strict=True):
                kernel.variable.assign(value)
            continue
        stack_id = identities[0][0]
        if stack_id not in stacks:
            stacks[stack_id] = np.empty(first.variable.shape, np.float32)
        indices = [kernel.index for kernel in kernels if kernel.index is not None]
        _draw_into(stacks[stack_id], indices, plan, own_seeds, scales)
        if first.stacked - 1 in indices:
            first.variable.assign(stacks.pop(stack_id))


def _batches(
    places: Places, plans: Mapping[KernelIdentity, KernelPlan]
) -> Iterator[Sequence[KernelIdentity]]:
    """Yields kernels that follow one another and are drawn in the same way."""

    def key(identity: KernelIdentity) -> Hashable:
        kernel, plan = places[identity][0].kernel, plans[identity]
        pairs = (_values_of(plan.mirroring.inputs), _values_of(plan.mirroring.outputs))
        stack_id = None if kernel.index is None else identity[0]
        return stack_id, kernel.shape, plan.layout, plan.distribution.name, pairs

    for _, group in itertools.groupby(places, key):
        identities = list(group)
        first = places[identities[0]][0].kernel
        size = _batch_size(first, len(identities))
        for start in range(0, len(identities), size):
            yield identities[start : start + size]


def _values_of(pairs: Pairs | None) -> Hashable:
    return None if pairs is None else (pairs.plus.tobytes(), pairs.minus.tobytes(), pairs.size)


def _batch_size(kernel: Kernel, count: int) -> int:
    # The kernels of a stack are drawn into the array that is assigned.
    return count if kernel.index is not None else max(1, _BATCH_BYTES // (4 * math.prod(kernel.shape)))


def _draw_into(
    values: NDArray[np.float32],
    rows: Sequence[int],
    plan: KernelPlan,
    seeds: Sequence[int],
    scales: Sequence[float],
) -> None:
    """Draws a kernel from each seed, multiplies it by its scale, and writes it to its row of `values`."""
    layout, mirroring = plan.layout, plan.mirroring

    def draw(part: slice) -> None:
        generators = [np.random.default_rng(seed) for seed in seeds[part]]
        if mirroring.inputs or mirroring.outputs:
            kernels = draw_mirrored_layouts(layout, generators, mirroring.inputs, mirroring.outputs)
        else:
            kernels = draw_layouts(layout, plan.distribution, generators)
        for row, scale, kernel in zip(rows[part], scales[part], kernels, strict=True):
            np.multiply(scale, kernel, out=values[row], casting="same_kind")

    run_in_parts(draw, len(seeds), math.prod(layout.shape))
