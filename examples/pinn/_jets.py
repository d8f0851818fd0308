"""A function's value with its derivatives by the inputs, carried through a network layer by layer.

A jet is a tensor of shape (3 or 4, points, units): the value, its first and second derivative by x and, where
there is a time, its first derivative by t. The chain rule gives every operation one formula for all four. One
backward pass of the back end then differentiates them by the weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import ops

__all__ = ["Jet", "activate", "affine", "from_inputs", "product", "shift"]

# A tensor of the back end, of shape (3 or 4, points, units).
Jet: TypeAlias = Any


def from_inputs(points: Any) -> Jet:
    """Returns the jet of the inputs themselves.

    Args:
        points: The points, shape (points, 1) for x alone or (points, 2) for x and t.
    """
    one, zero = ops.ones_like(points[:, :1]), ops.zeros_like(points[:, :1])
    if points.shape[1] == 1:
        return ops.stack([points, one, zero])
    along_x, along_t = ops.concatenate([one, zero], 1), ops.concatenate([zero, one], 1)
    return ops.stack([points, along_x, ops.zeros_like(points), along_t])


def affine(jet: Jet, kernel: Any, bias: Any) -> Jet:
    """Returns the jet of `h @ kernel + bias`."""
    return shift(jet @ kernel, bias)  # not `ops.matmul`; see `_functions`


def shift(jet: Jet, bias: Any) -> Jet:
    """Returns the jet of `h + bias`: only the value changes."""
    return ops.concatenate([jet[:1] + bias, jet[1:]])


def activate(jet: Jet, name: str) -> Jet:
    """Returns the jet of the activation `"tanh"`, `"sin"` or `"silu"` of a jet."""
    value, slope, curvature = _DERIVATIVES[name](jet[0])
    x, xx, *t = (jet[row] for row in range(1, jet.shape[0]))
    return ops.stack([value, slope * x, curvature * x * x + slope * xx, *(slope * row for row in t)])


def product(one: Jet, other: Jet) -> Jet:
    """Returns the jet of the product of two functions."""
    (u, u_x, u_xx, *u_t), (v, v_x, v_xx, *v_t) = (
        [jet[row] for row in range(jet.shape[0])] for jet in (one, other)
    )
    by_time = [a * v + u * b for a, b in zip(u_t, v_t, strict=True)]
    return ops.stack([u * v, u_x * v + u * v_x, u_xx * v + 2.0 * u_x * v_x + u * v_xx, *by_time])


def _functions() -> Any:
    """Returns the back end's own functions: some of `keras.ops` return float32 for float64."""
    module = {"jax": "jax.numpy", "tensorflow": "tensorflow", "torch": "torch"}
    return importlib.import_module(module[keras.backend.backend()])


def _tanh(a: Any) -> tuple[Any, Any, Any]:
    value = _functions().tanh(a)
    slope = 1.0 - value * value
    return value, slope, -2.0 * value * slope


def _sin(a: Any) -> tuple[Any, Any, Any]:
    value = _functions().sin(a)
    return value, _functions().cos(a), -value


def _silu(a: Any) -> tuple[Any, Any, Any]:
    gate = 0.5 + 0.5 * _functions().tanh(0.5 * a)  # the sigmoid
    bend = gate * (1.0 - gate)
    return a * gate, gate + a * bend, bend * (2.0 + a * (1.0 - 2.0 * gate))


# An activation with its first and second derivative.
_DERIVATIVES: dict[str, Callable[[Any], tuple[Any, Any, Any]]] = {"tanh": _tanh, "sin": _sin, "silu": _silu}
