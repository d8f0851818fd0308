"""Finds layers that start with the very kernel of a layer before them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.arrays import value_of
from keras_rwinit._keras.types import Tensor
from keras_rwinit._probing.measurements import CallKey
from keras_rwinit._tracing.contexts import KernelContext

__all__ = ["find_repeats"]

_FEW_VALUES = 4
"""Zeros, ones and identities have no more values than this, and may repeat: no random numbers drew them."""


def find_repeats(contexts: Sequence[KernelContext]) -> set[CallKey]:
    """Returns the calls of layers whose kernel equals that of another layer upstream.

    That is what layers get that share one initializer with a seed. A layer that is called twice has one
    kernel by design, and layers side by side, such as two towers that start alike, may have equal ones.

    Args:
        contexts: The contexts of a model's kernels, in the order in which it applies them.
    """
    repeats: set[CallKey] = set()
    # Most kernels differ in the first row: copy no more off the device.
    for suspects in _group(contexts, _first_rows(contexts)):
        kernels = [_to_numpy(_value(context)) for context in suspects]
        random = [np.unique(kernel).size > _FEW_VALUES for kernel in kernels]
        drawn = [context for context, is_random in zip(suspects, random, strict=True) if is_random]
        contents = [kernel.tobytes() for kernel, is_random in zip(kernels, random, strict=True) if is_random]
        for equal in _group(drawn, contents):
            repeats.update(_downstream_of_each_other(equal))
    return repeats


def _first_rows(contexts: Sequence[KernelContext]) -> list[Hashable]:
    """Returns shape and first row of each kernel; for one that is no random number its identity."""
    rows: dict[int, NDArray[np.generic]] = {}
    keys: list[Hashable] = []
    for context in contexts:
        kernel = context.kernel
        if not keras.backend.is_float_dtype(kernel.variable.dtype):
            keys.append(kernel.identity)
            continue
        number = id(kernel.variable)
        if number not in rows:
            # The layers of a stack at once: it may have thousands.
            value = value_of(kernel.variable)
            rows[number] = _to_numpy(value[:, 0] if kernel.index is not None else value[0])
        row = rows[number] if kernel.index is None else rows[number][kernel.index]
        keys.append((kernel.shape, row.tobytes()))
    return keys


def _group(contexts: Sequence[KernelContext], keys: Sequence[Hashable]) -> list[list[KernelContext]]:
    """Returns the contexts of equal keys together, where they are of two kernels or more."""
    groups: dict[Hashable, list[KernelContext]] = {}
    for context, key in zip(contexts, keys, strict=True):
        groups.setdefault(key, []).append(context)
    return [group for group in groups.values() if len({one.kernel.identity for one in group}) > 1]


def _downstream_of_each_other(equal: Iterable[KernelContext]) -> Iterable[CallKey]:
    """Yields the calls that follow, directly or not, one of the other kernels."""
    below: set[int] = set()
    seen = set()
    for context in equal:
        if id(context) in below and context.kernel.identity not in seen:
            yield CallKey.of(context)
        seen.add(context.kernel.identity)
        # Without recursion: a model may have thousands of layers in a row.
        pending = [context]
        while pending:
            for follower in pending.pop().followers:
                if id(follower) not in below:
                    below.add(id(follower))
                    pending.append(follower)


def _value(context: KernelContext) -> Tensor:
    value = value_of(context.kernel.variable)
    return value if context.kernel.index is None else value[context.kernel.index]


def _to_numpy(value: Tensor) -> NDArray[np.generic]:
    return np.ascontiguousarray(keras.ops.convert_to_numpy(value))
