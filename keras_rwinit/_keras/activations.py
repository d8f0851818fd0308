"""Activations in Keras: from names to what Keras's layers take, and from that to the theory's functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_rwinit.theory import ACTIVATIONS, Activation, resolve_activation
from keras_rwinit.theory.activation import ActivationError
from keras_rwinit.theory.activations import NOT_ELEMENTWISE
from keras_rwinit.theory.own_activations import average_activation

from .evaluation import built_layer, evaluate_activation
from .types import ActivationLike, Tensor
from .units import choose_units

__all__ = [
    "NamedActivation",
    "activation_name",
    "concrete_activation",
    "get_activation",
    "has_weights",
    "in_precision",
    "keras_activation",
    "own_activation",
    "remember_activations",
    "theory_activation",
]

_PRELU_UNITS = 1024
_CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones, keras.initializers.Constant)

_Memo: TypeAlias = dict[tuple[int, int | None], tuple[object, Activation]]
_memo: ContextVar[_Memo | None] = ContextVar("_memo", default=None)


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
        return self._function(_ops_for(a), a)

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


def concrete_activation(activation: ActivationLike, depth: int | None = None) -> ActivationLike:
    """Returns the name of a shaped activation with its parameters instead of a depth, and any other as it is.

    Args:
        activation: A name, such as `"shaped(gelu)"`, or anything else that Keras takes.
        depth: Number of hidden layers.

    Raises:
        ValueError: A shaped activation is not known, or it needs a depth and there is none.

    Example:
        >>> concrete_activation("shaped(relu)", 200), concrete_activation("tanh", 200)
        ('leaky_relu(0.6796)', 'tanh')
    """
    if isinstance(activation, str) and activation.startswith("shaped("):
        return resolve_activation(activation, depth).name
    return activation


def keras_activation(activation: ActivationLike, depth: int | None = None) -> Any:
    """Returns what Keras's layers take for an activation.

    Args:
        activation: A name of the theory's table or of Keras's, or anything else that Keras takes.
        depth: Number of hidden layers, for which `"shaped(gelu)"` is shaped.

    Returns:
        A name of Keras's as it is, and whatever is not a string. `"leaky_relu(0.9)"` and `"elu(0.5)"` become
        activation layers, the other names that Keras does not have a `NamedActivation`.

    Raises:
        ValueError: Neither the theory nor Keras knows the name, or it needs a depth and there is none.
    """
    activation = concrete_activation(activation, depth)
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


def get_activation(activation: ActivationLike, depth: int | None = None) -> Callable[[Tensor], Tensor]:
    """Returns the function or layer of an activation, for Keras's own layers.

    It is `keras.activations.get` for the names of this package too. Those that Keras lacks, such as
    `"shaped(gelu)"` and `"celu(0.5)"`, become functions that Keras saves and loads.

    Args:
        activation: A name of the theory's table or of Keras's, or anything else that Keras takes.
        depth: Number of hidden layers, for which `"shaped(gelu)"` is shaped.

    Returns:
        What Keras's layers take as `activation=`.

    Raises:
        ValueError: Neither the theory nor Keras knows the name, or it needs a depth and there is none.

    Example:
        >>> import keras
        >>> from keras_rwinit.initializers import RandomWalk
        >>> from keras_rwinit.layers import get_activation
        >>> layer = keras.layers.Dense(
        ...     64,
        ...     activation=get_activation("shaped(gelu)", depth=50),
        ...     kernel_initializer=RandomWalk("shaped(gelu)", depth=50),
        ... )
    """
    return keras.activations.get(keras_activation(activation, depth))


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

        return getattr(jax.numpy, activation_name(activation) or "", activation)
    return activation


class _Float64Ops:
    """`keras.ops` on JAX for float64, which Keras's own functions of `jax.numpy` turn into float32."""

    def __getattr__(self, name: str) -> Any:
        import jax

        return getattr(jax.numpy, name, None) or getattr(keras.ops, name)


def _ops_for(a: Tensor) -> Any:
    """Returns the operations that keep the dtype of `a`."""
    if keras.backend.backend() == "jax" and keras.backend.standardize_dtype(a.dtype) == "float64":
        return _Float64Ops()
    return keras.ops


def has_weights(activation: object) -> bool:
    """Returns whether an activation is a layer with variables, which no two layers should share."""
    if not isinstance(activation, keras.layers.Layer):
        return False
    if isinstance(activation, keras.layers.Activation):
        return has_weights(activation.activation)
    if isinstance(activation, keras.layers.Lambda | keras.layers.PReLU):
        return isinstance(activation, keras.layers.PReLU)
    return bool(built_layer(activation).variables)


def own_activation(activation: ActivationLike) -> ActivationLike:
    """Returns an activation for one more layer: a copy that is not built where it has weights."""
    if not isinstance(activation, keras.layers.Layer) or not has_weights(activation):
        return activation
    config = activation.get_config()
    config.pop("name", None)
    return type(activation).from_config(config)


@contextlib.contextmanager
def remember_activations() -> Iterator[None]:
    """Lets `theory_activation` look at each callable once, for as long as none of them can change."""
    token = _memo.set({} if _memo.get() is None else _memo.get())
    try:
        yield
    finally:
        _memo.reset(token)


def theory_activation(activation: ActivationLike, units: int | None = None) -> Activation:
    """Returns the `theory.Activation` of whatever Keras takes as an activation, as it computes now.

    Args:
        activation: A name of the theory's or of Keras's, a Keras function, an activation layer with or
            without weights, a callable of back-end tensors or of NumPy arrays, a `theory.Activation`, or
            None (linear). It stays as it is; a layer that is not built stays so.
        units: Number of units of the layer that it activates, where it is known. A layer of weights that is
            not built is looked at with so many.

    Returns:
        The activation. The slopes of a callable that is not in the theory's table are the back end's own. Of
        units that differ, the theory takes means over the units.

    Raises:
        ValueError: The name is unknown.
        NotElementwiseError: (a ValueError) It does not act element by element, as softmax.
        ActivationError: (a ValueError) It cannot be evaluated.
    """
    if activation is None:
        return ACTIVATIONS["linear"]
    if isinstance(activation, Activation | str):
        return resolve_activation(activation)
    name = activation_name(activation)
    if name is not None:
        return resolve_activation(name)
    if not callable(activation):
        return resolve_activation(activation)
    memo, key = _memo.get(), (id(activation), units)
    if memo is not None and key in memo:
        return memo[key][1]
    known = _evaluate(activation, units)
    if memo is not None:
        memo[key] = activation, known  # the object itself as well, so that no other one gets its id
    return known


def _evaluate(activation: Callable[[Tensor], Tensor], units: int | None) -> Activation:
    if isinstance(activation, keras.layers.Activation):
        return theory_activation(activation.activation, units)
    if isinstance(activation, keras.layers.Lambda):
        return theory_activation(partial(activation.function, **(activation.arguments or {})), units)
    if type(activation) is keras.layers.PReLU:
        return _prelu(activation, units)
    name = getattr(activation, "__name__", None)
    if name in NOT_ELEMENTWISE and getattr(keras.activations, name, None) is activation:
        return resolve_activation(name)
    return evaluate_activation(name or type(activation).__name__, activation, units)


def _prelu(layer: keras.layers.PReLU, units: int | None) -> Activation:
    """Returns the activation of units that have the slope 1 above zero and one of their own below."""
    if layer.built or not isinstance(layer.alpha_initializer, _CONSTANT):
        alpha = built_layer(layer, units).alpha.value
    else:  # a copy would cost the imports of Keras's deserialization
        alpha = layer.alpha_initializer((1,))
    slopes = np.ravel(keras.ops.convert_to_numpy(alpha)).astype(np.float64)
    if not np.isfinite(slopes).all():
        raise ActivationError(f"The slopes of the layer {layer.name!r} are not finite.")
    # float32 holds seven digits: they restore the decimal number that the user wrote.
    decimal = [float(f"{slope:.7g}") for slope in slopes[choose_units(slopes, _PRELU_UNITS)]]
    names = [f"leaky_relu({slope!r})" if slope else "relu" for slope in decimal]
    known = [resolve_activation(name) for name in names]
    return known[0] if len(set(decimal)) == 1 else average_activation("PReLU", known)
