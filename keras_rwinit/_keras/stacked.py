"""Variables that hold the weights of several layers along their first axis."""

from __future__ import annotations

import keras

__all__ = ["is_stacked", "mark_stacked"]


def mark_stacked(variable: keras.Variable) -> keras.Variable:
    """Marks a variable as one whose first axis counts layers, and returns it."""
    variable._rwinit_stacked = True
    return variable


def is_stacked(variable: keras.Variable) -> bool:
    """Returns whether the first axis of a variable counts layers."""
    return getattr(variable, "_rwinit_stacked", False)
