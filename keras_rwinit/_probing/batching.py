"""Tells whether the values inside a model lie along the first axis as the examples do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import numpy as np

from keras_rwinit._keras.autodiff import TapKey

from .norms import Floats
from .taps import TappedCall

__all__ = ["find_mixed_examples"]

TappedValues: TypeAlias = Mapping[TapKey, Floats]


def find_mixed_examples(
    calls: Mapping[TapKey, TappedCall], examples: int, run: Callable[[Collection[TapKey], bool], TappedValues]
) -> list[TapKey]:
    """Returns the taps at which the examples do not lie along the first axis, one after another.

    A layer may see windows of each example as examples, shape (examples * windows, ...). They belong to the
    examples in their order if a batch in reverse order gives the same in reverse order.

    Args:
        calls: The tapped calls.
        examples: Number of examples.
        run: Called as `run(keys, reverse)`, returns the values at these taps, with the examples in reverse
            order or not.
    """
    mixed = [key for key, call in calls.items() if not call.rows or call.rows % examples]
    merged = [key for key, call in calls.items() if key not in mixed and call.rows != examples]
    if not merged or examples == 1:
        return mixed
    forward_order, reverse_order = run(merged, False), run(merged, True)
    for key in merged:
        values, reversed_values = forward_order.get(key), reverse_order.get(key)
        axis = 1 if calls[key].stacked else 0
        if (
            values is None
            or reversed_values is None
            or not _match_reversed(values, reversed_values, axis, examples)
        ):
            mixed.append(key)
    return mixed


def _match_reversed(values: Floats, reversed_values: Floats, axis: int, examples: int) -> bool:
    """Returns whether values are those of another run, example by example in reverse order."""
    if values.shape != reversed_values.shape:
        return False
    shape = (*values.shape[:axis], examples, -1, *values.shape[axis + 1 :])
    one, other = values.reshape(shape), np.flip(reversed_values.reshape(shape), axis)
    scale = float(np.abs(one).max(initial=0.0))
    return bool(np.allclose(one, other, rtol=0.0, atol=1e-3 * scale))
