r"""Predicts the size of a random network's first and second derivative by its input, layer by layer.

Physics-informed networks are trained on them. Take a network along a line `x(s) = point + s e`, with `e` the
unit vector of one coordinate. `a`, `J = da/ds` and `H = d2a/ds2` are a unit's pre-activation and its two
derivatives. At infinite width the units of a layer are independent Gaussian processes of `s` with one kernel
`K(s, s')`. The derivatives of such a process are normal together with it, and their covariances are the
kernel's derivatives at `s = s'`: `E J^2 = K_11`, `E aJ = K_10`, `E aH = K_20`, `E JH = K_21`, `E H^2 = K_22`,
where the indices count the derivatives by `s` and `s'`. Differentiating `K_{d+1}(s, s') = g^2 E[f(a(s))
f(a(s'))]` gives the same as the chain rule inside the expectation:

    (a, J, H)_{d+1} has the covariance  g^2 E[v v^T],  v = (f, f' J, f'' J^2 + f' H).

`_derivative_map` has the expectation.

**The growth.** Where the variance of `a` does not change along the line, `J` is independent of `a`. With
`chi = g^2 E f'^2` then

    E J'^2 = chi E J^2,    E H'^2 = chi E H^2 + c (E J^2)^2,

where c comes from `3 g^2 E f''^2` and from the covariance `E aH = -E J^2`. The unbiased gain keeps `chi` at
one on average over the layers. So it keeps the first derivative, as it keeps the gradient. The second
derivative has the same factor `chi`: it neither vanishes nor explodes exponentially at the same gain. But
every layer adds curvature of its own, so that the ratio of `E H^2` to `(E J^2)^2` grows: for tanh at the gain
of 400 layers it is 2.6 in the second layer, 26 in the eleventh and 106 in the last. A smaller gain makes both
derivatives vanish.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count, check_positive
from keras_rwinit._limits import check_duration

from ._derivative_map import check_smooth, next_covariance
from .activation import Activation, ActivationLike
from .activation_names import resolve_activation

__all__ = ["DerivativePrediction", "input_gain", "predict_derivatives"]

Array: TypeAlias = NDArray[np.float64]

_LAYER_SECONDS = 1e-3  # measured
# For a normal phase of this standard deviation `E sin^2` is 1/2 but for 1e-9, as for uniform ones.
_ALL_PHASES = math.pi


@dataclass(frozen=True, repr=False)
class DerivativePrediction:
    """The predicted sizes of a network's derivatives by one input; `print` it for a summary.

    The first `depth` entries of the arrays are the hidden layers' pre-activations. The last is the output u.

    Args:
        gain: Gain of the hidden kernels.
        input_gain: Gain of the first kernel.
        covariance: Covariance of the value, its first and its second derivative over networks, shape
            (depth + 1, 3, 3).

    Example:
        >>> predicted = predict_derivatives("tanh", depth=20, gain=1.1)
        >>> predicted.value.shape
        (21,)
    """

    gain: float
    input_gain: float
    covariance: Array = field(compare=False)

    @property
    def value(self) -> Array:
        """Standard deviation of the pre-activations, and last of the output."""
        return np.sqrt(self.covariance[:, 0, 0])

    @property
    def first(self) -> Array:
        """Standard deviation of their first derivative by the input."""
        return np.sqrt(self.covariance[:, 1, 1])

    @property
    def second(self) -> Array:
        """Standard deviation of their second derivative by the input."""
        return np.sqrt(self.covariance[:, 2, 2])

    @property
    def frequency(self) -> Array:
        """Root mean square of the angular frequency, `first / value`, in radians per unit of the input.

        A stationary process of this frequency has `frequency / pi` zeros per unit of the input on average
        (Rice's formula).
        """
        return self.first / self.value

    def __str__(self) -> str:
        return (
            f"gain {self.gain:.5f}, input gain {self.input_gain:.5g}, {len(self.covariance) - 1:,} hidden "
            f"layers: u {self.value[-1]:.3g}, du/dx {self.first[-1]:.3g}, d2u/dx2 {self.second[-1]:.3g}"
        )

    def __repr__(self) -> str:
        return f"<DerivativePrediction: {self}>"


def predict_derivatives(
    activation: ActivationLike,
    depth: int,
    gain: float,
    *,
    input_gain: float | None = None,
    output_gain: float = 1.0,
    input_bias_stddev: float = 0.0,
    input_activation: ActivationLike | None = None,
    point: Sequence[float] = (1.0,),
    axis: int = 0,
) -> DerivativePrediction:
    r"""Predicts the standard deviations of u, du/dx and d2u/dx2 over random networks, at infinite width.

    Let a be a unit's pre-activation in one layer, J and H its first and second derivative by the input, and f
    the activation. The covariance of the three in the next layer is

        g^2 E[v v^T],  v = (f(a), f'(a) J, f''(a) J^2 + f'(a) H).

    At width N and depth D the variances differ from it by a share of order `D / N`.

    The gain that keeps the gradient is the right one for the first derivative: both have the factor
    `g^2 E f'^2` per layer. It is also the right one for the second derivative, as far as one gain can be.
    That has the same factor, and so neither vanishes nor explodes exponentially. But every layer adds
    curvature of its own, so that `E H^2 / (E J^2)^2` grows with the depth. For a smoother function lower
    `input_gain`: the first derivative is proportional to it and the second to its square while the layers are
    nearly linear.

    Args:
        activation: Name, function (of NumPy or `keras.ops`), Keras layer or `Activation`; see
            `resolve_activation`. Its slope must be continuous: the second derivative of a ReLU network is
            zero where it exists.
        depth: Number of hidden layers, at least 1.
        gain: Gain of the hidden kernels after the first, whose entries have the variance `gain^2 / fan_in`.
        input_gain: Gain of the first kernel. `None`: `gain`.
        output_gain: Gain of the output's kernel.
        input_bias_stddev: Standard deviation of the first hidden layer's biases, at least 0. All others are
            zero.
        input_activation: Activation of the first hidden layer, such as `"sin"`. `None`: `activation`.
        point: The input at which the derivatives are taken, of as many numbers as the network has inputs.
        axis: Number of the input by which to differentiate, from 0.

    Returns:
        A `DerivativePrediction`.

    Raises:
        ValueError: An argument is out of range or unknown, the activation's slope jumps or its units have
            different activations, or the result leaves the floating-point numbers.

    Example:
        >>> from keras_rwinit.theory import gain, predict_derivatives
        >>> g = gain("tanh", width=100, depth=50, distribution="orthogonal")
        >>> print(predict_derivatives("tanh", depth=50, gain=g))
        gain 1.19286, input gain 1.1929, 50 hidden layers: u 0.41, du/dx 0.263, d2u/dx2 0.601

    References:
        Rasmussen & Williams, Gaussian Processes for Machine Learning, section 9.4 (derivatives of a Gaussian
        process).
    """
    resolved = check_smooth(resolve_activation(activation, depth))
    depth, gain = check_count("depth", depth), check_positive("gain", gain)
    first = gain if input_gain is None else check_positive("input_gain", input_gain)
    bias_stddev = check_positive("input_bias_stddev", input_bias_stddev, allow_zero=True)
    start = _first_layer(first, bias_stddev, point, axis)
    check_duration(_LAYER_SECONDS * depth, f"A prediction of `depth`={depth:,} layers")
    entry = resolved
    if input_activation is not None:
        entry = check_smooth(resolve_activation(input_activation, depth))
    activations = [entry] + [resolved] * (depth - 1)
    gains = [gain] * (depth - 1) + [check_positive("output_gain", output_gain)]
    covariance = _follow(activations, gains, start)
    return DerivativePrediction(gain=gain, input_gain=first, covariance=covariance)


def input_gain(
    activation: ActivationLike, depth: int, gain: float, frequency: float, *, inputs: int = 1
) -> float:
    r"""Returns the gain of a first layer of sines with which a random network has the frequency of a signal.

    The first hidden layer is `sin(W x + b)`, with normal entries of W, of variance `input_gain^2 / inputs`,
    and biases uniform over a period: random Fourier features. By Bochner's theorem each of its units is a
    stationary process whose spectrum is the law of W. The root-mean-square angular frequency along one input
    is that of W's entries, `input_gain / sqrt(inputs)`.

    The other `depth - 1` layers multiply the frequency by a factor that does not depend on it. `E J^2` is
    multiplied by `g^2 E f'^2` and `E a^2` by `g^2 E f^2 / E a^2`, and neither depends on J. So

        input_gain = frequency * sqrt(inputs) / kappa,
        kappa^2 = product over the layers of E a^2 E f'^2 / E f^2.

    Of an odd f every factor is at least 1 (Poincare's inequality), and 1 only if f is linear: the deeper the
    network, the smaller the gain for the same signal.

    SIREN's first kernel is uniform between `-omega_0` and `omega_0` for inputs of one number. That is a flat
    spectrum up to `omega_0`, with the root mean square `omega_0 / sqrt(3)`. So `omega_0` is the highest
    angular frequency of the signal, divided by kappa. The scale of normal Fourier features is
    `input_gain / sqrt(inputs)`, divided by `2 pi` where the features are `sin(2 pi B x)`.

    Args:
        activation: Activation of the hidden layers after the first: name, function (of NumPy or
            `keras.ops`), Keras layer or `Activation`; see `predict_derivatives`.
        depth: Number of hidden layers, at least 1. The first is the layer of sines.
        gain: Gain of the hidden kernels after the first.
        frequency: Root-mean-square angular frequency of the signal along one input, `sqrt(mean u'^2 / mean
            u^2)`, in radians per unit of the input. A sine wave `sin(k x)` has k; a flat spectrum up to k has
            `k / sqrt(3)`.
        inputs: Number of inputs, at least 1.

    Returns:
        The gain, a positive float.

    Raises:
        ValueError: An argument is out of range or unknown, or `predict_derivatives` refuses the activation.

    Example:
        >>> import math
        >>> from keras_rwinit.theory import input_gain, predict_derivatives
        >>> first = input_gain("tanh", depth=10, gain=1.05, frequency=6.28)
        >>> round(first, 2)
        5.57
        >>> predicted = predict_derivatives(
        ...     "tanh", 10, 1.05, input_activation="sin", input_gain=first, input_bias_stddev=math.pi
        ... )
        >>> round(float(predicted.frequency[-1]), 2)
        6.28

    References:
        Sitzmann et al., arXiv:2006.09661 (SIREN); Rahimi & Recht, NIPS 2007, and Tancik et al.,
        arXiv:2006.10739 (random Fourier features).
    """
    inputs, frequency = check_count("inputs", inputs), check_positive("frequency", frequency)
    of_unit_gain = predict_derivatives(
        activation,
        depth,
        gain,
        input_activation="sin",
        input_gain=1.0,
        input_bias_stddev=_ALL_PHASES,
        point=(0.0,) * inputs,
    )
    return frequency / float(of_unit_gain.frequency[-1])


def _first_layer(gain: float, bias_stddev: float, point: Sequence[float], axis: int) -> Array:
    """Returns the covariance of the first layer's pre-activations, which are linear in the input."""
    try:
        x = np.array([float(coordinate) for coordinate in point])
    except TypeError:
        x = np.array([np.nan])
    if not (x.size and np.isfinite(x).all()):
        raise ValueError(f"`point` must be a sequence of finite numbers. Received: point={point!r}")
    if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < x.size:
        raise ValueError(
            f"`axis` must be the number of an input, from 0 to {x.size - 1} for this `point`. "
            f"Received: axis={axis!r}"
        )
    variance = gain**2 / x.size
    start = np.zeros((3, 3))
    start[0, 0] = variance * float(x @ x) + bias_stddev**2
    start[0, 1] = start[1, 0] = variance * float(x[axis])
    start[1, 1] = variance
    return start


def _follow(activations: Sequence[Activation], gains: Sequence[float], start: Array) -> Array:
    """Returns the covariance at every layer; a kernel of one of `gains` follows each of `activations`."""
    layers = [start]
    for activation, gain in zip(activations, gains, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            after = gain**2 * next_covariance(activation, layers[-1])
        if not np.isfinite(after).all():
            raise ValueError(
                f"The derivatives leave the floating-point numbers behind hidden layer {len(layers):,}. Use "
                f"a smaller `gain`. Received: gain={gains[0]!r}"
            )
        layers.append(after)
    return np.array(layers)
