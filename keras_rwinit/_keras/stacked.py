"""Variables that hold the weights of several layers along their first axis."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["is_stacked", "mark_stacked"]


def mark_stacked(variable: keras.Variable) -> keras.Variable:
    """Notes on a variable that its first axis counts layers."""
    variable._rwinit_stacked = True
    return variable


def is_stacked(variable: Any) -> bool:
    """Whether the first axis of a variable counts layers."""
    return getattr(variable, "_rwinit_stacked", False)
