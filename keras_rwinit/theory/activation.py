"""The record of an activation: its NumPy function, derivative, kinks, slopes and forms in Keras."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Activation",
    "ActivationError",
    "ActivationLike",
    "Function",
    "KerasLayer",
    "NotElementwiseError",
    "TensorFunction",
    "two_slope_activation",
]

Array: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[Array], Any]

TensorFunction: TypeAlias = Callable[[Any, Any], Any]
"""An activation written in the operations of a module, `f(ops, a)`; the package passes `keras.ops`."""

OutputGradient: TypeAlias = Callable[[Any, Any, Any], Any]
"""An activation's gradient in the operations of a module, `g(ops, h, upstream)` with `h = f(a)`."""


# Where functions are compared: all magnitudes, and the middle densely, off the numbers that users write.
_MAGNITUDES = 2.0 ** np.arange(-20.0, 20.5, 0.5)
_COMPARED = np.concatenate([-_MAGNITUDES, [0.0], _MAGNITUDES, np.linspace(-8.1, 8.2, 201)])[None]


class NotElementwiseError(ValueError):
    """The activation mixes the units of a layer, as softmax does, and has no gain."""


class ActivationError(ValueError):
    """The activation could not be evaluated, so that nothing is known of it."""


class KerasLayer(NamedTuple):
    """A layer of Keras's that is an activation, such as `keras.layers.ELU(alpha=0.5)`.

    Args:
        name: Name of the class in `keras.layers`.
        argument: Name of the parameter, as argument and as attribute.
        value: Value of the parameter.
    """

    name: str
    argument: str
    value: float


@dataclass(frozen=True, eq=False)
class Activation:
    """An element-wise activation `f` with its derivative.

    Args:
        name: The name in messages and reports.
        function: `f`, vectorized over a float64 array.
        derivative: `f'`, vectorized likewise. `None`: central differences of `function`.
        kinks: Points where `f` or one of its first two derivatives jumps. Quadrature puts panel
            edges there; a kink that is not listed costs accuracy, not validity.
        slopes: `(slope below 0, slope above 0)` when `f` is linear on either side of zero, else
            `None`. Two slopes make the theory exact at every width. Units with slopes of their own have
            those of one unit after another, `(below_1, above_1, below_2, above_2, ...)`.
        keras: The name of the function in `keras.activations`. For an activation that Keras does not have, a
            function `f(ops, a)` of `keras.ops` and a tensor. `None`: Keras's layers do not take it.
        keras_layer: The layer of Keras's that is `f`, for a family with a parameter.
        gate: The name of `g` where `f(a) = a * g(a)`, as a model may write `f`.
        gradient_from_output: `f'(a) * upstream` where it follows from `h = f(a)`, as a function
            `g(ops, h, upstream)` of TensorFlow's `tf.raw_ops`. Its loop of layers then keeps outputs alone.
            `None`: the loop keeps pre-activations too.
        units: The activations of a layer's units where they differ, each of as many units as the others.
            `function` and `derivative` then take arrays with the units along the last axis.
        constant: Whether `function` never changes, so that what was computed for it holds for good.

    Two activations are equal if they compute the same: they have equal values (and slopes, where a derivative
    is given) from -2^20 to 2^20, equal kinks and equal `slopes`.

    Raises:
        ValueError: `slopes` does not have two numbers for each unit, or a number is neither 0 nor of size
            1e-60 to 1e60.

    Example:
        >>> from keras_rwinit.theory import Activation, gain
        >>> signed_log = Activation("signed_log", lambda a: np.sign(a) * np.log1p(abs(a)))
        >>> 1.0 < gain(signed_log, width=100, depth=50) < 1.5
        True
    """

    name: str
    function: Function
    derivative: Function | None = None
    kinks: tuple[float, ...] = (0.0,)
    slopes: tuple[float, ...] | None = None
    keras: str | TensorFunction | None = field(default=None, kw_only=True)
    keras_layer: KerasLayer | None = field(default=None, kw_only=True)
    gate: str | None = field(default=None, kw_only=True)
    gradient_from_output: OutputGradient | None = field(default=None, kw_only=True)
    units: tuple[Activation, ...] = field(default=(), kw_only=True, repr=False)
    constant: bool = field(default=False, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinks", tuple(float(kink) for kink in self.kinks))
        if self.slopes is not None:
            slopes = tuple(float(slope) for slope in self.slopes)
            numbers = 2 * max(len(self.units), 1)
            if len(slopes) != numbers or not all(s == 0.0 or 1e-60 < abs(s) < 1e60 for s in slopes):
                raise ValueError(
                    "`slopes` must be two finite numbers, each 0 or of size 1e-60 to 1e60. "
                    f"Received: slopes={self.slopes!r}"
                )
            object.__setattr__(self, "slopes", slopes)

    @cached_property
    def key(self) -> Hashable:
        """What the activation computes, as a key of caches that holds no reference to its functions.

        It is taken once for each object; `resolve_activation` makes new objects of what may have changed.
        """
        if self.slopes is not None:
            return self.slopes
        if self.units:
            return tuple(unit.key for unit in self.units)
        digest = hashlib.blake2b(digest_size=16)
        try:
            with np.errstate(all="ignore"):
                for function in (self.function, self.derivative):
                    if function is not None:
                        digest.update(np.asarray(function(_COMPARED), np.float64).tobytes())
        except Exception:  # a function of the user's, which raises its error when its moments are taken
            return object()
        return self.kinks, self.derivative is None, digest.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and (self is other or self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    def slope_at(self, a: Array) -> Any:
        """Returns `f'(a)`, by central differences where no derivative was given."""
        if self.derivative is not None:
            return self.derivative(a)
        # The step balances truncation (h^2) against rounding (eps / h): h = eps^(1/3).
        step = 6e-6 * np.maximum(1.0, np.abs(a))
        return (self.function(a + step) - self.function(a - step)) / (2.0 * step)


ActivationLike = str | Activation | Function


def two_slope_activation(name: str, below: float, above: float) -> Activation:
    """Returns the activation that is linear on either side of zero."""
    return Activation(
        name,
        lambda a: np.where(a > 0, above * a, below * a),
        lambda a: np.where(a > 0, above, below),
        slopes=(below, above),
        keras=lambda ops, a: ops.where(a > 0, above * a, below * a),
    )
