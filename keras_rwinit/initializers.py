"""Keras initializers with the computed gain; importing the package registers them."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count, check_fits_dtype, check_positive, check_seed
from keras_rwinit._keras.activations import concrete_activation, theory_activation
from keras_rwinit._keras.drawing import KernelLayout, draw_layout, draw_layouts, kernel_layout
from keras_rwinit._keras.execution import in_stateless_scope
from keras_rwinit._keras.fans import fan_in_axes, layer_being_built
from keras_rwinit._keras.layer_kinds import activates_kernel_output, kernel_kind_being_built
from keras_rwinit._keras.names import RANDOM_WALK
from keras_rwinit._keras.parallel import run_in_parts
from keras_rwinit._keras.seeding import DrawnSeed, layer_seeds
from keras_rwinit._keras.types import ActivationLike, Seed, Tensor
from keras_rwinit._limits import check_fits
from keras_rwinit.theory import ACTIVATIONS, Activation
from keras_rwinit.theory.activation import ActivationError
from keras_rwinit.theory.distributions import (
    MirroredSide,
    check_mirrored_side,
    resolve_distribution,
)
from keras_rwinit.theory.gains import gain_or_nearest_width
from keras_rwinit.theory.mirrored import check_mirrored

__all__ = ["RandomWalk", "RandomWalkLinear", "RandomWalkReLU", "RandomWalkTanh"]

_PACKAGE = "keras_rwinit"

# What an entry takes while a kernel is drawn; 20 to 33 bytes were measured, most with QR.
_DRAWING_BYTES = 24

_LINEAR, _RELU = ACTIVATIONS["linear"], ACTIVATIONS["relu"]
_warned_of: set[str] = set()
"""Activations of layers that were built with another one's gain; each is warned of once."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomWalk(keras.initializers.Initializer):
    r"""Draws kernels under which the log-norm of the gradient is an unbiased random walk.

    Draws a kernel with entries of mean zero and variance

        gain^2 / fan_in,

    with the gain that `keras_rwinit.gain` computes for the activation, the kernel's fan-in and, if
    given, the depth of the network (Sussillo & Abbott, arXiv:1412.6558). The same seed gives the same
    kernel on every Keras back end.

    String ids, wherever Keras takes an initializer: `"random_walk"` (this class with its defaults),
    `"random_walk_linear"`, `"random_walk_relu"`, `"random_walk_tanh"`. An id knows neither the depth of the
    network nor the activation of the layer: `"random_walk"` has ReLU's gain, and a layer with another
    activation warns. `keras_rwinit.initialize` reads both off a finished model.

    The gradient's step from layer d + 1 to layer d,

        delta_d = f'(a_d) * (W_{d+1}^T delta_{d+1}),

    has the kernel of layer d + 1 and the slope of layer d. So the activation that *feeds* a kernel decides
    its gain. In a chain of equal layers it is the layer's own, and only the ends differ: the first kernel
    reads the data and the classifier's kernel is followed by a loss, so that no step of the walk lies beyond
    them, and their gains are free. `keras_rwinit.initialize` goes by the feeding activation in any model. It
    gives the first kernel the linear gain before an activation of two slopes, so that pre-activations keep
    the scale of the data, and the activation's gain before a smooth one. An initializer sees one layer only
    and gives the first kernel the gain of the others.

    Args:
        activation: Activation that feeds the kernels, in a chain of equal layers their own: a name that
            `keras_rwinit.gain` takes, a Keras function or activation layer (`keras.layers.LeakyReLU(0.1)`),
            or any element-wise callable. `"shaped(gelu)"` and the like need `depth`. What a callable or a
            layer with weights (`keras.layers.PReLU()`) computes counts as it is when a kernel is drawn.
        distribution: `"normal"` (the paper's), `"truncated_normal"` (cut at two standard deviations),
            `"uniform"`, `"orthogonal"`, `"delta_orthogonal"` or `"looks_linear"`.

            `"delta_orthogonal"`: for a convolution an orthogonal matrix from channels to channels at the
            kernel's center and zeros elsewhere, so that every position is a network of Dense layers at
            first; for kernels of two axes the same as `"orthogonal"`. The center is the entry that reads the
            position it writes: entry `(k - 1) // 2` of a window of k, and the last one with
            `padding="causal"`. A convolution with strides reads one position of each stride, and no gradient
            reaches the others at first. Each group of channels has a matrix of its own. The fan-in is the
            number of channels of a group.

            `"looks_linear"`: blocks `[[M, -M], [-M, M]] / c`, M orthogonal, for activations with
            `f(a) - f(-a) = c a`, such as relu, leaky_relu, gelu, silu and softplus; in a convolution at the
            center, with zeros elsewhere. The units of a layer then come in pairs with opposite
            pre-activations (within each group of channels), and the network is linear when it starts: at any
            width and depth its gradient neither vanishes nor spreads, and its inputs do not become parallel.
            Of an odd number of units, one repeats another and is not read at first.
        depth: Number of hidden layers of the network. The gain depends on it, except for activations of
            two slopes (linear, relu, leaky_relu). `None`: very many.
        gain: Gain to use instead of the computed one, above 0.
        seed: Python int, `keras.random.SeedGenerator` or None. With an int, every call returns the
            same values, as with Keras's initializers, and a second kernel of the same shape warns,
            because equal layers are not a random walk. With None, every call draws new values, which
            `keras.utils.set_random_seed` makes repeatable.
        fan_in: Fan-in of the kernels, the product of their leading axes. Needed only where neither the shape
            nor the layer determines it; Dense, EinsumDense and all convolutional layers do.
        mirrored: For `"looks_linear"`, which units of the kernel come in pairs: `"both"` in hidden layers,
            `"outputs"` in the first, which reads the data, and `"inputs"` in the last, for which
            `activation` is that of the layer before it. The first has a gain of 1.

    Raises:
        ValueError: An argument is out of range, unknown or of the wrong type, or the activation cannot be
            evaluated; on calling, a shape with fewer than two axes or an empty one, a dtype that is not a
            float or does not hold weights of this gain, or an activation for which no gain exists (the
            message says what to use instead). `"delta_orthogonal"` and `"looks_linear"` refuse depthwise and
            transposed convolutions and even windows with a dilation, `"looks_linear"` also kernels with less
            than two units and those of an EinsumDense with more than two axes.

    Example:
        >>> import keras, keras_rwinit
        >>> kernel = keras_rwinit.initializers.RandomWalk("relu", seed=1)(shape=(400, 100))
        >>> tuple(kernel.shape)
        (400, 100)
        >>> layer = keras.layers.Dense(100, "relu", kernel_initializer="random_walk_relu")
        >>> leaky = keras_rwinit.initializers.RandomWalk(keras.layers.LeakyReLU(0.1))

    References:
        Sussillo & Abbott, arXiv:1412.6558. `"delta_orthogonal"`: Xiao et al., arXiv:1806.05393.
        `"looks_linear"`: Balduzzi et al., arXiv:1702.08591; Burkholz & Dubatovka, arXiv:1806.06362.
    """

    def __init__(
        self,
        activation: ActivationLike = "relu",
        distribution: str = "normal",
        depth: int | None = None,
        gain: float | None = None,
        seed: Seed = None,
        *,
        fan_in: int | None = None,
        mirrored: MirroredSide = "both",
    ) -> None:
        # Loading passes a saved activation or seed generator as its config.
        if isinstance(activation, dict):
            activation = keras.saving.deserialize_keras_object(activation)
        if isinstance(seed, dict):
            seed = keras.saving.deserialize_keras_object(seed)
        if not isinstance(seed, keras.random.SeedGenerator | DrawnSeed):
            seed = check_seed(seed, "an integer, a `keras.random.SeedGenerator` or None")
        self.depth = None if depth is None else check_count("depth", depth)
        activation = concrete_activation(activation, self.depth)
        try:
            known = theory_activation(activation)
        except ActivationError:
            if gain is None:
                raise
            known = _LINEAR  # a gain that is given needs no activation
        self._resolved_distribution = resolve_distribution(distribution)
        self.mirrored = check_mirrored_side(mirrored, self._resolved_distribution)
        if self._resolved_distribution.mirrored:
            check_mirrored(known)
        self.activation = activation
        self.distribution = distribution
        self.gain = None if gain is None else check_positive("gain", gain)
        self.seed = seed
        self.fan_in = None if fan_in is None else check_count("fan_in", fan_in)
        self._drawn_shapes: set[tuple[int, ...]] = set()

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Draws a kernel.

        Args:
            shape: Shape of the kernel, at least two axes.
            dtype: A float dtype. `None`: `keras.config.floatx()`.

        Returns:
            A tensor of the back end.
        """
        try:
            dtype = keras.backend.standardize_dtype(dtype)
        except TypeError:  # of what cannot be looked up
            raise ValueError(f"Kernels have a float dtype. Received: dtype={dtype!r}") from None
        return keras.ops.convert_to_tensor(self._draw_array(shape, dtype), dtype=dtype)

    def _draw_array(self, shape: Sequence[int], dtype: str) -> NDArray[np.float64]:
        """Draws a kernel as an array of NumPy."""
        layout, scale = self._prepare(shape, dtype)
        # NumPy's generator gives the same kernel on every back end.
        rng = np.random.default_rng(self._entropy(layout.shape))
        kernel = draw_layout(layout, self._resolved_distribution, rng, mirrored=self.mirrored)
        kernel *= scale
        return kernel

    def _draw_stack(self, count: int, shape: Sequence[int], dtype: str) -> NDArray[np.floating[Any]]:
        """Draws the kernels of equal layers as one array, those that copies with `layer_seeds` would draw.

        Args:
            count: Number of layers.
            shape: Shape of one kernel.
            dtype: Dtype of the weight. The array has float64 for float64, and float32 for all others.
        """
        layout, scale = self._prepare(shape, dtype)
        # A list of a hundred thousand kernels would take the memory a second time.
        stacked = np.empty((count, *layout.shape), "float64" if dtype == "float64" else "float32")
        if isinstance(self.seed, keras.random.SeedGenerator):
            seeds = [self._entropy(layout.shape) for _ in range(count)]
        else:
            seeds = list(layer_seeds(self.seed, count))

        def draw(part: slice) -> None:
            generators = [np.random.default_rng(seed) for seed in seeds[part]]
            kernels = draw_layouts(layout, self._resolved_distribution, generators, mirrored=self.mirrored)
            np.multiply(kernels, scale, out=stacked[part], casting="same_kind")

        run_in_parts(draw, count, math.prod(layout.shape))
        return stacked

    def _prepare(self, shape: Sequence[int], dtype: str) -> tuple[KernelLayout, float]:
        """Returns the layout of a kernel and the factor by which its gain scales what is drawn."""
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(f"Kernels have a float dtype. Received: dtype={dtype!r}")
        shape = self._check_shape(shape)
        check_fits(_DRAWING_BYTES * math.prod(shape), f"To draw a kernel of shape {shape} in float64")
        layer = layer_being_built()
        contracted = fan_in_axes(shape, self.fan_in, layer)
        layout = kernel_layout(
            self._resolved_distribution, shape, contracted, layer, kernel_kind_being_built(layer)
        )
        units = layout.fan_out * layout.groups
        scale = self.gain if self.gain is not None else self._compute_gain(layout.fan_in, units)
        check_fits_dtype("gain", scale, dtype, number=scale / math.sqrt(layout.fan_in))
        if self.gain is None and layer is not None:
            self._warn_of_another_activation(layer)
        return layout, scale

    def _check_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        try:
            axes = tuple(shape)
        except TypeError:
            axes = ()
        if len(axes) < 2:
            raise ValueError(
                "A kernel has at least two axes, inputs and outputs; initialize biases with 'zeros'. "
                f"Received: shape={shape!r}"
            )
        return tuple(check_count("shape", axis) for axis in axes)

    def _compute_gain(self, fan_in: int, units: int | None = None) -> float:
        if self.mirrored == "outputs":
            return 1.0  # data come one by one, not in pairs behind an activation
        # An activation may have changed since: it may have weights.
        known = theory_activation(self.activation, units)
        return gain_or_nearest_width(known, fan_in, self.depth, self.distribution)

    def _warn_of_another_activation(self, layer: keras.layers.Layer) -> None:
        """Warns where `"random_walk"` gives ReLU's gain to a layer with another activation of its own."""
        if type(self) is not RandomWalk or self.activation != "relu" or not activates_kernel_output(layer):
            return
        try:
            own = theory_activation(getattr(layer, "activation", None))
        except ValueError:  # softmax, or one that cannot be evaluated
            return
        if own in (_LINEAR, _RELU) or own.name in _warned_of:
            return
        warnings.warn(
            f"The layer {layer.name!r} has the activation {own.name}, and its kernel_initializer "
            f"{RANDOM_WALK!r} the gain of relu. In a hidden layer write RandomWalk({own.name!r}, depth=...) "
            f"of keras_rwinit.initializers, and '{RANDOM_WALK}_linear' in an output layer; or call "
            "keras_rwinit.initialize(model) at the end.",
            UserWarning,
            stacklevel=5,
        )
        _warned_of.add(own.name)

    def _entropy(self, shape: tuple[int, ...]) -> int | list[int]:
        """Returns the seed of NumPy's generator for the next kernel."""
        if self.seed is None:
            # Python's generator, which `keras.utils.set_random_seed` seeds. Placeholders must not advance it.
            generator = random.Random(0) if in_stateless_scope() else random
            return generator.getrandbits(63)
        if isinstance(self.seed, keras.random.SeedGenerator):
            state = keras.ops.convert_to_numpy(self.seed.next())
            return [int(word) % 2**32 for word in state]
        if in_stateless_scope():
            return self.seed % 2**64
        if shape in self._drawn_shapes:
            warnings.warn(
                f"{type(self).__name__}(seed={self.seed}) was asked for a second kernel of shape "
                f"{shape} and returns the same values again. Equal layers do not make a random "
                "walk: give each layer an initializer of its own, or use `seed=None`.",
                UserWarning,
                stacklevel=4,
            )
        self._drawn_shapes.add(shape)
        return self.seed % 2**64

    def reseeded(self, seed: int) -> RandomWalk:
        """Returns a copy with another seed; a copy by way of the config needs a serializable activation."""
        twin = copy.copy(self)
        twin.seed, twin._drawn_shapes = seed, set()
        return twin

    def get_config(self) -> dict[str, Any]:
        activation = self.activation
        if isinstance(activation, Activation | np.ufunc):
            raise ValueError(
                "An initializer can be saved if its activation is a name, a Keras function or a registered "
                f"one. Received: activation={activation!r}; pass a name, or its gain as `gain=`"
            )
        if not isinstance(activation, str):
            activation = keras.saving.serialize_keras_object(activation)
        seed = self.seed
        if isinstance(seed, keras.random.SeedGenerator):
            seed = keras.saving.serialize_keras_object(seed)
        elif isinstance(seed, DrawnSeed):
            seed = None
        return {
            "activation": activation,
            "distribution": self.distribution,
            "depth": self.depth,
            "gain": self.gain,
            "seed": seed,
            "fan_in": self.fan_in,
            "mirrored": self.mirrored,
        }


class _FixedActivation(RandomWalk):
    """A `RandomWalk` whose activation is fixed by the class."""

    _activation: str

    def __init__(
        self,
        distribution: str = "normal",
        depth: int | None = None,
        gain: float | None = None,
        seed: Seed = None,
        *,
        fan_in: int | None = None,
        mirrored: MirroredSide = "both",
    ) -> None:
        super().__init__(self._activation, distribution, depth, gain, seed, fan_in=fan_in, mirrored=mirrored)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        return config


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomWalkLinear(_FixedActivation):
    """Draws kernels of layers without an activation, `"random_walk_linear"`; see `RandomWalk`.

    The gain is `exp(-(psi(N/2) + ln(2/N)) / 2)`, about `exp(1 / (2 N))`, where N is the fan-in. It is 1 for
    orthogonal kernels.

    Args:
        distribution: `"normal"`, `"truncated_normal"`, `"uniform"`, `"orthogonal"`, `"delta_orthogonal"` or
            `"looks_linear"`; see `RandomWalk`.
        depth: Number of hidden layers of the network, at least 1. The gain does not depend on it.
        gain: Gain to use instead of the computed one, above 0.
        seed: Python int, `keras.random.SeedGenerator` or None; see `RandomWalk`.
        fan_in: Fan-in of the kernels, at least 1. Needed only where neither the shape nor the layer
            determines it.
        mirrored: For `"looks_linear"`, which units of the kernel come in pairs: `"both"`, `"outputs"` or
            `"inputs"`; see `RandomWalk`.

    Raises:
        ValueError: An argument is out of range, unknown or of the wrong type; on calling, the shape or the
            dtype is not one of a kernel; see `RandomWalk`.

    Example:
        >>> import keras
        >>> from keras_rwinit.initializers import RandomWalkLinear
        >>> layer = keras.layers.Dense(10, kernel_initializer=RandomWalkLinear("orthogonal", seed=1))
        >>> layer.build((None, 10))
        >>> round(float(keras.ops.norm(layer.kernel)) ** 2, 3)
        10.0
    """

    _activation = "linear"


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomWalkReLU(_FixedActivation):
    """Draws kernels of ReLU layers, `"random_walk_relu"`; see `RandomWalk`.

    The gain is `sqrt(2)` with the exact correction for finite width, about `sqrt(2) exp(1.25 / N)`, where N
    is the fan-in.

    Args:
        distribution: `"normal"`, `"truncated_normal"`, `"uniform"`, `"orthogonal"`, `"delta_orthogonal"` or
            `"looks_linear"`; see `RandomWalk`.
        depth: Number of hidden layers of the network, at least 1. The gain does not depend on it.
        gain: Gain to use instead of the computed one, above 0.
        seed: Python int, `keras.random.SeedGenerator` or None; see `RandomWalk`.
        fan_in: Fan-in of the kernels, at least 1. Needed only where neither the shape nor the layer
            determines it.
        mirrored: For `"looks_linear"`, which units of the kernel come in pairs: `"both"`, `"outputs"` or
            `"inputs"`; see `RandomWalk`.

    Raises:
        ValueError: An argument is out of range, unknown or of the wrong type; on calling, the shape or the
            dtype is not one of a kernel; see `RandomWalk`.

    Example:
        >>> import keras, keras_rwinit
        >>> layer = keras.layers.Dense(100, "relu", kernel_initializer="random_walk_relu")
        >>> layer.kernel_initializer.__class__.__name__
        'RandomWalkReLU'
    """

    _activation = "relu"


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomWalkTanh(_FixedActivation):
    """Draws kernels of tanh layers, `"random_walk_tanh"`; see `RandomWalk`.

    The gain depends on the depth of the network: 1.23 for 50 normal layers of width 100, 1.11 for very many.
    `"random_walk_tanh"` takes the network to be very deep. Pass `depth=` where it is known, or call
    `keras_rwinit.initialize(model)`, which counts the layers of a finished model.

    Args:
        distribution: `"normal"`, `"truncated_normal"`, `"uniform"`, `"orthogonal"` or `"delta_orthogonal"`;
            see `RandomWalk`.
        depth: Number of hidden layers of the network, at least 1. `None`: very many.
        gain: Gain to use instead of the computed one, above 0.
        seed: Python int, `keras.random.SeedGenerator` or None; see `RandomWalk`.
        fan_in: Fan-in of the kernels, at least 1. Needed only where neither the shape nor the layer
            determines it.
        mirrored: `"both"`, since no distribution of tanh mirrors its kernels.

    Raises:
        ValueError: An argument is out of range, unknown or of the wrong type; on calling, the shape or the
            dtype is not one of a kernel; see `RandomWalk`.

    Example:
        >>> import keras
        >>> from keras_rwinit.initializers import RandomWalkTanh
        >>> kernel = RandomWalkTanh(depth=50, seed=1)(shape=(100, 100))
        >>> round(float(keras.ops.std(kernel)) * 10.0, 2)  # the gain, since the fan-in is 100
        1.22
    """

    _activation = "tanh"


def _register_string_ids() -> None:
    """Registers ids and class names, without a package: Keras finds registered classes as `package>name`."""
    classes = {
        RANDOM_WALK: RandomWalk,
        f"{RANDOM_WALK}_linear": RandomWalkLinear,
        f"{RANDOM_WALK}_relu": RandomWalkReLU,
        f"{RANDOM_WALK}_tanh": RandomWalkTanh,
    }
    by_class = {cls.__name__: cls for cls in classes.values()}
    keras.saving.get_custom_objects().update({**classes, **by_class})


_register_string_ids()
