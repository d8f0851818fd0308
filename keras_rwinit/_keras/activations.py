"""Keras's activations as the theory sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit.theory import ACTIVATIONS, Activation, resolve_activation
from keras_rwinit.theory.activations import activation_from_callable

from .autodiff import double_precision

__all__ = ["keras_activation", "theory_activation"]

_LAYER_NAMES: dict[type, Callable[[Any], str]] = {
    keras.layers.LeakyReLU: lambda layer: f"leaky_relu({float(layer.negative_slope)!r})",
    keras.layers.ELU: lambda layer: f"elu({float(layer.alpha)!r})",
}


_LAYERS: dict[str, Callable[[float], Any]] = {"leaky_relu": keras.layers.LeakyReLU, "elu": keras.layers.ELU}
_PARAMETER = re.compile(r"(\w+)\((.+)\)")


def keras_activation(activation: Any) -> Any:
    """What Keras takes for a name with a parameter, such as `leaky_relu(0.9)`; all else as it is."""
    named = _PARAMETER.fullmatch(activation) if isinstance(activation, str) else None
    if named is None or named[1] not in _LAYERS:
        return activation
    resolve_activation(activation)  # whose message is the better one
    return _LAYERS[named[1]](float(named[2]))


def theory_activation(activation: Any) -> Activation:
    """The `theory.Activation` of whatever Keras takes as an activation.

    Args:
        activation: A name of the theory's or of Keras's, a Keras function, a Keras activation layer
            such as `keras.layers.LeakyReLU(0.1)`, a callable of NumPy arrays or of back-end tensors,
            a `theory.Activation`, or None (linear).

    Returns:
        The activation. One that is not in the theory's table is differentiated numerically.

    Raises:
        ValueError: The name is unknown, or the activation does not act element by element.
    """
    if not isinstance(activation, Hashable):
        return resolve_activation(activation)
    return _cached(activation)


@lru_cache(maxsize=256)
def _cached(activation: Any) -> Activation:
    if activation is None:
        return ACTIVATIONS["linear"]
    if isinstance(activation, keras.layers.Activation):
        return theory_activation(activation.activation)
    if type(activation) in _LAYER_NAMES:
        return resolve_activation(_LAYER_NAMES[type(activation)](activation))
    if isinstance(activation, Activation | str):
        return resolve_activation(activation)
    name = getattr(activation, "__name__", None)
    if name and getattr(keras.activations, name, None) is activation:
        return resolve_activation(name)
    if callable(activation):
        return activation_from_callable(name or type(activation).__name__, _on_arrays(activation))
    return resolve_activation(activation)


def _on_arrays(function: Callable[[Any], Any]) -> Callable[[NDArray[np.float64]], Any]:
    """`function` as a map of float64 arrays, whether it was written for NumPy or for a back end."""

    def evaluate(a: NDArray[np.float64]) -> NDArray[np.float64]:
        with double_precision():
            value = function(a)
            if not isinstance(value, np.ndarray):
                value = keras.ops.convert_to_numpy(value)
        return np.asarray(value, np.float64)

    probe = evaluate(np.linspace(-1.0, 1.0, 5).reshape(1, 5))
    if probe.shape != (1, 5):
        raise ValueError(
            "`activation` must act element by element: it returned an array of shape "
            f"{probe.shape} for one of shape (1, 5). Received: {function!r}"
        )
    return evaluate
