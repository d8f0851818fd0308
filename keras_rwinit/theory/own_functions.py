"""Functions of the user's: they return arrays of float64, or the error says what to pass instead."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .activation import ActivationError, Function, NotElementwiseError
from .activations import ACTIVATIONS

__all__ = ["OwnFunction", "suggest_instead"]

Array: TypeAlias = NDArray[np.float64]

_PROBE = np.linspace(-4.1, 4.3, 42).reshape(6, 7)
# The same numbers at every third element, with other ones around them. The shape is the same, since JAX
# compiles for each.
_KEPT = np.add.outer(np.arange(6), np.arange(7)) % 3 == 1
_AMONG_OTHERS = np.where(_KEPT, _PROBE, 0.7 * _PROBE + 0.5)

_FLOAT32_STEP = float(np.finfo(np.float32).eps) ** (1.0 / 3.0)


class OwnFunction:
    """A function of the user's that acts on arrays element by element; it was tried on a few numbers.

    Args:
        name: The name for messages.
        function: The function.

    Raises:
        ActivationError: (a ValueError) The function fails, or it does not return real numbers of float32 or
            better. A call raises it too.
        NotElementwiseError: (a ValueError) It mixes elements, or changes from call to call.
    """

    def __init__(self, name: str, function: Function) -> None:
        self.name, self._function = name, function
        with np.errstate(all="ignore"):
            values, others = self._evaluate(_PROBE), self._evaluate(_AMONG_OTHERS)
        self.single_precision = values.dtype == np.float32
        if not np.allclose(
            np.broadcast_to(values, _PROBE.shape)[_KEPT],
            np.broadcast_to(others, _PROBE.shape)[_KEPT],
            rtol=1e-5,
            atol=1e-6,
            equal_nan=True,
        ):
            raise NotElementwiseError(
                self._message("whose values depend on neighboring elements or change from call to call")
            )

    def __call__(self, a: Array) -> Array:
        values = self._evaluate(a).astype(np.float64)
        return values if values.shape == a.shape else np.full(a.shape, values)

    def central_difference(self, a: Array) -> Array:
        """Returns the slopes of a function that computes in float32.

        As in `Activation.slope_at` the step is `eps^(1/3)`, of float32 here. The step of float64 would be of
        the size of one rounding.
        """
        step = _FLOAT32_STEP * np.maximum(1.0, np.abs(a))
        above, below = ((a + sign * step).astype(np.float32).astype(np.float64) for sign in (1.0, -1.0))
        return (self(above) - self(below)) / (above - below)

    def _evaluate(self, a: Array) -> NDArray[Any]:
        """Returns the values in the precision in which they come, of the shape of `a` or of shape ()."""
        try:
            returned = self._function(a.copy())  # some functions write into their argument
            values = np.asarray(returned)
            if values.dtype == object and values.shape == a.shape:  # as of `numpy.frompyfunc`
                values = values.astype(np.float64)
        except (ActivationError, NotElementwiseError, MemoryError, Warning):
            raise
        except Exception as error:  # a function of the user's may raise anything
            reason = " ".join(str(error).split())[:200]
            instead = suggest_instead(self.name, self._function, "numpy")
            raise ActivationError(
                self._message(
                    f"which raises {type(error).__name__}: {reason}",
                    instead or "Functions of tensors are for RandomWalk, deep_mlp and initialize.",
                )
            ) from error
        if values.dtype.kind not in "biuf" or (values.dtype.kind == "f" and values.dtype.itemsize < 4):
            kind = type(returned).__name__ if values.dtype.kind in "OSUM" else str(values.dtype)
            instead = suggest_instead(self.name, self._function, "numpy")
            raise ActivationError(
                self._message(f"which returns {kind}", instead or "It must return float32 or float64.")
            )
        if values.shape not in ((), a.shape):
            raise NotElementwiseError(
                self._message(f"which returns an array of shape {values.shape} for one of shape {a.shape}")
            )
        return values

    def _message(self, what: str, way_out: str = "Such a function has no gain.") -> str:
        return (
            "`activation` must act on NumPy arrays element by element. Received: "
            f"{self.name!r}, {what}. {way_out}"
        )


def suggest_instead(name: str, function: Any, library: str) -> str:
    """Returns what to pass in place of a function that fails on arrays; an empty text if that is not known.

    Args:
        name: Its name.
        function: The function.
        library: What to write it with, `"numpy"` or `"keras.ops"`.
    """
    ways = []
    if name.lower() in ACTIVATIONS:
        ways.append(f"Pass the name {name.lower()!r}.")
    if isinstance(function, type):
        ways.append(f"{name!r} is a class: pass an instance.")
    elif _takes_single_numbers(function):
        ways.append(
            f"The function takes single numbers: write it with `{library}`, as in "
            f"`{library}.where(a > 0, a, 0.0)`."
        )
    return " ".join(ways)


def _takes_single_numbers(function: Any) -> bool:
    try:
        return isinstance(function(0.5), float)
    except Exception:
        return False
