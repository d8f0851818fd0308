"""Activations in Keras: from names to what Keras's layers take, and from that to the theory's functions."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit.theory import ACTIVATIONS, Activation, resolve_activation
from keras_rwinit.theory.activations import activation_from_callable

from .autodiff import double_precision
from .types import ActivationLike, Tensor

__all__ = [
    "NamedActivation",
    "activation_name",
    "get_activation",
    "in_precision",
    "keras_activation",
    "theory_activation",
]


@keras.saving.register_keras_serializable(package="keras_rwinit")
class NamedActivation:
    """An activation of the theory's table that Keras does not have, as a function that Keras can save.

    Args:
        name: A name such as `"erf"` or `"celu(0.5)"`.

    Example:
        >>> from keras_rwinit._keras.activations import NamedActivation
        >>> keras.layers.Dense(3, activation=NamedActivation("celu(0.5)")).activation
        NamedActivation('celu(0.5)')
    """

    def __init__(self, name: str) -> None:
        known = resolve_activation(name)
        if not callable(known.keras):
            raise ValueError(
                f"`name` must be an activation that `keras.activations` lacks. Received: {name!r}"
            )
        self.name = self.__name__ = known.name
        # Looked up once: PyTorch's compiler cannot look through the table.
        self._function = known.keras

    def __call__(self, a: Tensor) -> Tensor:
        return self._function(keras.ops, a)

    def __eq__(self, other: object) -> bool:
        # By name, so that caches keyed by an activation serve a loaded copy too.
        return isinstance(other, NamedActivation) and other.name == self.name

    def __hash__(self) -> int:
        return hash((NamedActivation, self.name))

    def __repr__(self) -> str:
        return f"NamedActivation({self.name!r})"

    def __reduce__(self) -> tuple[type[NamedActivation], tuple[str]]:
        """Copies and pickles by name: the function of the table is a lambda."""
        return NamedActivation, (self.name,)

    def get_config(self) -> dict[str, str]:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, str]) -> NamedActivation:
        return cls(**config)


def keras_activation(activation: ActivationLike) -> Any:
    """Returns what Keras's layers take for an activation.

    Args:
        activation: A name of the theory's table or of Keras's, or anything else that Keras takes.

    Returns:
        A name of Keras's as it is, and whatever is not a string. `"leaky_relu(0.9)"` and `"elu(0.5)"` become
        activation layers, the other names that Keras does not have a `NamedActivation`.

    Raises:
        ValueError: Neither the theory nor Keras knows the name.
    """
    if not isinstance(activation, str):
        return activation
    try:
        known = resolve_activation(activation)
    except ValueError:
        if _is_name_of_keras(activation):  # softmax and others that have no gain
            return activation
        raise
    if isinstance(known.keras, str):
        return activation
    layer = known.keras_layer
    if layer is not None:
        # Files saved by earlier versions hold these layers, and so do new ones.
        return getattr(keras.layers, layer.name)(**{layer.argument: layer.value})
    return NamedActivation(activation)


def get_activation(activation: ActivationLike) -> Callable[[Tensor], Tensor]:
    """Returns the function or layer of an activation: `keras.activations.get` for all names of the table."""
    return keras.activations.get(keras_activation(activation))


def _is_name_of_keras(name: str) -> bool:
    try:
        keras.activations.get(name)
    except ValueError:
        return False
    return True


def activation_name(activation: ActivationLike) -> str | None:
    """Returns the name that the theory's table has for a Keras function or layer; None if it has none."""
    if isinstance(activation, NamedActivation):
        return activation.name
    for family, known in ACTIVATIONS.items():
        layer = known.keras_layer
        if layer is not None and type(activation) is getattr(keras.layers, layer.name):
            return f"{family}({float(getattr(activation, layer.argument))!r})"
    name = getattr(activation, "__name__", None)
    return name if name in ACTIVATIONS and getattr(keras.activations, name, None) is activation else None


def in_precision(activation: Callable[[Tensor], Tensor], dtype: str | None) -> Callable[[Tensor], Tensor]:
    """Returns `activation` as a function whose results have the dtype of its arguments, `dtype`.

    Activation layers compute in the dtype of their own policy. On JAX, some of Keras's functions return
    float32 for float64.
    """
    if dtype is None:
        return activation
    if isinstance(activation, keras.layers.Layer) and activation.compute_dtype != dtype:
        name = activation_name(activation)
        return NamedActivation(name) if name else lambda a: keras.ops.cast(activation(a), dtype)
    if dtype == "float64" and keras.backend.backend() == "jax":
        import jax

        # These are the functions that Keras takes from `jax.numpy`, whose own keep float64.
        return getattr(jax.numpy, activation_name(activation) or "", activation)
    return activation


def theory_activation(activation: ActivationLike) -> Activation:
    """Returns the `theory.Activation` of whatever Keras takes as an activation.

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
    return _resolve(activation)


@lru_cache(maxsize=256)
def _resolve(activation: Any) -> Activation:
    if activation is None:
        return ACTIVATIONS["linear"]
    if isinstance(activation, keras.layers.Activation):
        return theory_activation(activation.activation)
    if isinstance(activation, Activation | str):
        return resolve_activation(activation)
    name = activation_name(activation)
    if name is not None:
        return resolve_activation(name)
    if not callable(activation):
        return resolve_activation(activation)
    name = getattr(activation, "__name__", None)
    if name and getattr(keras.activations, name, None) is activation:
        return resolve_activation(name)  # softmax and others that have no gain
    return activation_from_callable(name or type(activation).__name__, _on_arrays(activation))


def _on_arrays(function: Callable[[Any], Any]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Returns `function` as a map of float64 arrays, whether it was written for NumPy or for a back end."""

    def evaluate(a: NDArray[np.float64]) -> NDArray[np.float64]:
        with double_precision():
            value = function(a)
            if not isinstance(value, np.ndarray):
                value = keras.ops.convert_to_numpy(value)
        return np.asarray(value, np.float64)

    # A cheap look at the shape; the theory's moments check that elements do not mix.
    probe = evaluate(np.linspace(-1.0, 1.0, 5).reshape(1, 5))
    if probe.shape != (1, 5):
        raise ValueError(
            "`activation` must act element by element: it returned an array of shape "
            f"{probe.shape} for one of shape (1, 5). Received: {function!r}"
        )
    return evaluate
