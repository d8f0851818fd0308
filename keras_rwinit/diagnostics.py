r"""The gradient's walk, measured: `ln|delta|` at every layer of a model, example by example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._autodiff import double_precision, gradients, in_double_precision
from ._chain import chain_of
from .layers import DenseStack
from .layers.dense_stack import run_stack
from .theory._checks import check_real

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GradientWalk", "gradient_walk"]

Array = NDArray[np.float64]

_SEED = 1412_6558
_PASSED_BY = (keras.layers.Flatten, keras.layers.Dropout)


@dataclass(frozen=True)
class GradientWalk:
    """What `gradient_walk` measured.

    Args:
        layer_names: One name a hidden layer, the first hidden layer first; layer k of a `DenseStack`
            called s is `s[k]`.
        backward: `ln|delta|` of the gradient at each layer's pre-activations, natural logarithm,
            shape (examples, layers). -inf where the gradient is zero.
        forward: `ln|h|` of each layer's activations, same shape.
    """

    layer_names: tuple[str, ...]
    backward: Array
    forward: Array

    @property
    def drift(self) -> float:
        """Mean step of `ln|delta|` towards the input, in nats a layer; 0 for a single layer.

        -inf or nan where the gradient of some example is dead.
        """
        with np.errstate(invalid="ignore"):  # -inf - (-inf), of a gradient that is dead throughout
            total = (self.backward[:, 0] - self.backward[:, -1]).mean()
        return float(total / max(len(self.layer_names) - 1, 1))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws each example's walk; see `keras_rwinit.plots.plot_walk`."""
        from .plots import plot_walk

        return plot_walk(self, ax=ax)


def gradient_walk(
    model: keras.Model, x: ArrayLike, y: ArrayLike | None = None, loss: Any = None
) -> GradientWalk:
    r"""Measures the log-norm of the back-propagated gradient at every hidden layer of a model.

    For every example, `delta_d` is the gradient of that example's loss with respect to the
    pre-activations of layer d, by the back end's automatic differentiation in float64. Nothing of the
    model is changed.

    Args:
        model: A built chain of `Dense` and `DenseStack` layers (with `Flatten` and `Dropout` between
            them passed by as at inference): a `Sequential`, functional or `DeepSequential` model.
            The last Dense layer is the output layer and not measured.
        x: Inputs, shape (examples, ...), finite.
        y: Targets. `None`: the gradient of a random direction of the output, the same direction for
            every example, instead of a loss's.
        loss: Keras loss or its name. `None`: the one the model was compiled with.

    Returns:
        A `GradientWalk`.

    Raises:
        ValueError: The model is not built or not such a chain, `x` is empty or not finite, or there
            are targets and no loss.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit import gradient_walk, model_zoo
        >>> model = model_zoo.deep_mlp(depth=50, width=100, seed=0)
        >>> walk = gradient_walk(model, np.random.default_rng(0).normal(size=(4, 784)))
        >>> walk.backward.shape
        (4, 50)
    """
    inputs = np.asarray(check_real("x", x), np.float64)
    layers = [layer for layer in chain_of(model) if not isinstance(layer, _PASSED_BY)]
    expected = tuple(model.input_shape[1:])
    sizes = zip(expected, inputs.shape[1:], strict=False)
    if inputs.ndim != len(expected) + 1 or any(size not in (None, given) for size, given in sizes):
        shape = ", ".join(["examples", *map(str, expected)])
        raise ValueError(
            f"`x` must have the shape of the model's inputs, ({shape}). Received: shape {inputs.shape}"
        )
    examples = len(inputs)
    with double_precision():
        *hidden, output = [_Weights.of(layer) for layer in layers]
        if not hidden:
            raise ValueError(
                "There is no hidden layer to measure: the model needs at least two Dense layers. "
                f"Received: model={model.name!r}"
            )
        h = keras.ops.convert_to_tensor(inputs.reshape(examples, -1), dtype="float64")
        objective = _objective(model, y, loss, examples, output.units)

        def loss_of(taps: Sequence[Any]) -> Any:
            signal = h
            for weights, tap in zip(hidden, taps, strict=True):
                signal = weights.apply(signal, tap)
            return objective(output.apply(signal))

        deltas = gradients(loss_of, [np.zeros((len(w.kernels), examples, w.units)) for w in hidden])
        states = [h := single.apply(h) for weights in hidden for single in weights.split()]
        forward = [_log_norm(np.asarray(keras.ops.convert_to_numpy(state))) for state in states]
    return GradientWalk(
        tuple(name for weights in hidden for name in weights.names),
        np.concatenate([_log_norm(delta) for delta in deltas]).T,
        np.stack(forward, axis=1),
    )


def _log_norm(vectors: Array) -> Array:
    """Natural logarithm of the Euclidean norm along the last axis; -inf at zero."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    scaled = vectors / np.where(largest > 0.0, largest, 1.0)  # whose squares stay within the floats
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.linalg.norm(scaled, axis=-1)) + np.log(largest[..., 0]))


@dataclass(frozen=True)
class _Weights:
    """Float64 copies of one Dense layer's weights, or of all the layers' of one DenseStack."""

    names: tuple[str, ...]
    kernels: Any
    biases: Any
    activation: Callable[[Any], Any]

    @classmethod
    def of(cls, layer: keras.layers.Layer) -> _Weights:
        if type(layer) not in (keras.layers.Dense, DenseStack):
            raise ValueError(
                "gradient_walk measures chains of Dense and DenseStack layers. "
                f"Received: layer {layer.name!r} of type {type(layer).__name__}"
            )
        stacked = isinstance(layer, DenseStack)

        def copy(weight: Any) -> Any:
            values = keras.ops.convert_to_numpy(weight).astype(np.float64)
            return keras.ops.convert_to_tensor(values if stacked else values[None], "float64")

        kernels = copy(layer.kernel)
        biases = keras.ops.zeros(kernels.shape[::2], "float64") if layer.bias is None else copy(layer.bias)
        names = [f"{layer.name}[{d}]" for d in range(layer.depth)] if stacked else [layer.name]
        return cls(tuple(names), kernels, biases, in_double_precision(layer.activation))

    @property
    def units(self) -> int:
        return int(self.kernels.shape[-1])

    def split(self) -> list[_Weights]:
        """One layer at a time."""
        return [
            _Weights((name,), self.kernels[d : d + 1], self.biases[d : d + 1], self.activation)
            for d, name in enumerate(self.names)
        ]

    def apply(self, h: Any, tap: Any = None) -> Any:
        """The layers' output; `tap`, shape (layers, examples, units), is added to pre-activations."""
        biases = self.biases if tap is None else self.biases[:, None, :] + tap
        if len(self.names) == 1:
            return self.activation(h @ self.kernels[0] + biases[0])
        return run_stack(h, self.kernels, biases, self.activation)


def _objective(
    model: keras.Model, y: ArrayLike | None, loss: Any, examples: int, units: int
) -> Callable[[Any], Any]:
    """A scalar whose gradient with respect to an example's signals is that of its own loss."""
    if y is None:
        direction = np.random.default_rng(_SEED).standard_normal(units)
        towards = keras.ops.convert_to_tensor(direction, "float64")
        return lambda outputs: keras.ops.sum(outputs * towards)
    loss = getattr(model, "loss", None) if loss is None else loss
    if loss is None:
        raise ValueError("Targets need a loss: pass `loss=`, compile the model with one, or leave `y` out.")
    targets = check_real("y", y)
    if len(targets) != examples:
        raise ValueError(
            f"`x` and `y` must hold equally many examples. Received: {examples} and {len(targets)}."
        )
    one_by_one = getattr(keras.losses.get(loss), "call", keras.losses.get(loss))
    tensor = keras.ops.convert_to_tensor(targets)
    return lambda outputs: keras.ops.sum(one_by_one(tensor, outputs))
