"""`deep_autoencoder`: an autoencoder of any depth, through a bottleneck and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_rwinit._checks import check_count, check_input_shape
from keras_rwinit._keras.activations import has_weights, keras_activation, theory_activation
from keras_rwinit._keras.names import get_initializer
from keras_rwinit._keras.seeding import layer_seeds, with_seed
from keras_rwinit._keras.types import ActivationLike, Initializer
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.theory import Activation
from keras_rwinit.theory.distributions import MirroredSide, resolve_distribution
from keras_rwinit.theory.gains import gain_or_nearest_width
from keras_rwinit.theory.mirrored import mirrored_gain

from ._arguments import (
    DType,
    check_excluded,
    check_gain,
    check_parameters_fit,
    computes_in_float16,
)
from ._builder import ChainBuilder
from ._float16 import warn_where_float16_is_too_narrow

__all__ = ["deep_autoencoder"]

# Measured on MNIST: one epoch at the best of three learning rates, means of four seeds. With gains of 0.1,
# 0.2, 0.3, 0.5 and 1, 40 orthogonal layers left 0.635, 0.632, 0.629, 0.625 and 0.642 of the variance of the
# pixels, and 40 normal ones left 0.742, 0.752, 0.748, 0.771 and 0.864.
_OUTPUT_GAIN = 0.3


def deep_autoencoder(
    depth: int = 40,
    width: int = 128,
    bottleneck: int = 16,
    activation: ActivationLike = "tanh",
    *,
    input_shape: Sequence[int] = (784,),
    kernel_initializer: Initializer | str | None = None,
    distribution: str | None = None,
    gain: float | None = None,
    output_gain: float | None = None,
    seed: int | None = None,
    dtype: DType = None,
    name: str | None = None,
) -> keras.Model:
    r"""Returns a plain autoencoder of any depth, initialized so that it can be trained.

    The widths of the encoder fall from `width` to `bottleneck` in L steps of one ratio, which is at most two,
    and those of the decoder rise in the same steps. Layer i of the encoder's n layers, counted from 0, has

        width (bottleneck / width)^(l / L),    l = floor(i L / n),    L = ceil(log2(width / bottleneck)),

    units, rounded: depth 13, width 64 and bottleneck 16 make 64 64 64 32 32 32 16 32 32 32 64 64 64. A
    linear layer of the inputs' size follows. Kernels have entries of variance `g^2 / fan_in`, where `g` is
    the gain that makes the log-norm of the back-propagated gradient an unbiased random walk over `depth`
    layers of the kernel's own fan-in (`keras_rwinit.gain`). Over changing widths the walk is then unbiased
    exactly for activations of two slopes, and nearly for smooth ones.

    Layers of equal width are one `Dense`, which changes the width, and a `DenseStack`. So the model compiles
    as fast at any depth; `unstack` converts it to plain `Dense` layers. The code is the output of the layer
    `"bottleneck"`: `keras.Model(model.input, model.get_layer("bottleneck").output)` is the encoder.

    Train it at the rate of its size, with `model.compile(**model_zoo.recipe(model, loss="mse"))`. Measured
    with one seed, tanh layers, width 32 and bottleneck 8, ten epochs of the digits: 200 layers end at a loss
    of 0.68, and at 0.90 with Adam's default rate; 40 layers end at 0.53 and 0.51.

    Args:
        depth: Number of hidden layers, at least 1. The bottleneck counts, the linear layer does not. If the
            number is even, the encoder has one more than the decoder.
        width: Units of the first hidden layer, at least 1.
        bottleneck: Units of the narrowest layer, at least 1 and at most `width`.
        activation: Activation of the hidden layers: a name that `keras_rwinit.gain` takes, such as `"tanh"`,
            `"erf"` or `"leaky_relu(0.9)"`, or anything that Keras takes. `"shaped(gelu)"` and the like are
            shaped for `depth`. A layer with weights, such as PReLU, is refused where layers of equal width
            follow one another.
        input_shape: Shape of one input, and of one output; more than one axis is flattened and put back.
            Inputs should have zero mean and unit variance in every dimension, as `keras_rwinit.data.load`
            gives them.
        kernel_initializer: Initializer of all kernels in place of the random walk's, such as
            `"glorot_uniform"` for comparison. Excludes `distribution` and the gains.
        distribution: Distribution of the random walk's kernels: `"normal"`, `"truncated_normal"`,
            `"uniform"`, `"orthogonal"` or `"looks_linear"`; see `keras_rwinit.initializers.RandomWalk`.
            `None`: `"orthogonal"`, which leaves less of the variance of images than `"normal"` at every
            depth (page of results, "A deep autoencoder"). With `"looks_linear"` the network is linear at
            first, and its units come in pairs: a layer passes on half as many numbers as it has units, the
            bottleneck included. In a layer of an odd width the last unit repeats another and is not read at
            first.
        gain: Gain of the hidden kernels in place of the computed ones.
        output_gain: Gain of the last kernel. `None`: 0.3, with which the outputs of tanh layers have a root
            mean square of about 0.1. So a mean squared error starts near that of the best constant.
        seed: Root of the seeds of all layers. `None`: a random root, repeatable after
            `keras.utils.set_random_seed`.
        dtype: Dtype or dtype policy of the layers, such as `"mixed_bfloat16"`. A UserWarning tells if
            the gradient or the activations are expected to leave float16's range.
        name: Name of the model.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: An argument is out of range or of the wrong type, two arguments exclude each
            other, no gain exists for the activation, or the weights exceed the machine's memory.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> model = model_zoo.deep_autoencoder(depth=500, width=32, bottleneck=8, input_shape=(8, 8), seed=1)
        >>> model.compile(**model_zoo.recipe(model, loss="mse"))
        >>> model.get_layer("bottleneck").output.shape, model.output_shape
        ((None, 8), (None, 8, 8))

    References:
        Sussillo & Abbott, arXiv:1412.6558. Hinton & Salakhutdinov, "Reducing the Dimensionality of Data with
        Neural Networks", Science 313, 2006.
    """
    # Arguments
    depth, width = check_count("depth", depth), check_count("width", width)
    activation = keras_activation(activation, depth)
    bottleneck = check_count("bottleneck", bottleneck)
    if bottleneck > width:
        raise ValueError(
            "`bottleneck` must be at most `width`, the units of the first hidden layer. "
            f"Received: bottleneck={bottleneck}, width={width}"
        )
    input_shape = check_input_shape(input_shape)
    features = math.prod(input_shape)
    levels = _levels(depth, width, bottleneck)
    if has_weights(activation) and any(level.layers > 1 for level in levels):
        raise ValueError(
            "`activation` must have no weights of its own, since layers of equal width share it. Use a "
            f"function, such as 'leaky_relu(0.25)' for PReLU. Received: activation={activation!r}"
        )
    check_parameters_fit(
        _count_parameters(levels, features), dtype, f"An autoencoder of depth {depth:,} and width {width:,}"
    )
    # Initializers. Without a fixed gain each kernel gets that of its own fan-in when it is drawn.
    first: Initializer
    hidden: Initializer
    last: Initializer
    if kernel_initializer is None:
        distribution = "orthogonal" if distribution is None else distribution
        mirrored = resolve_distribution(distribution).mirrored
        # The last kernel also undoes the activation before it.
        undone = mirrored_gain(theory_activation(activation), levels[-1].units) if mirrored else 1.0
        for units in {level.units for level in levels}:
            gain = check_gain("gain", gain, units, dtype)
        output_gain = check_gain("output_gain", output_gain, levels[-1].units, dtype, factor=undone)
        if output_gain is None:
            output_gain = _OUTPUT_GAIN
        first = hidden = RandomWalk(activation, distribution, depth, gain)
        # Neither the data nor the reconstruction come in pairs.
        if mirrored:
            first = RandomWalk(activation, distribution, mirrored="outputs")
        last_side: MirroredSide = "inputs" if mirrored else "both"
        last = RandomWalk("linear", distribution, gain=output_gain * undone, mirrored=last_side)
        if computes_in_float16(dtype):
            warn_where_float16_is_too_narrow(*_equivalent_walk(hidden, levels))
    else:
        check_excluded(kernel_initializer, distribution, gain=gain, output_gain=output_gain)
        first = hidden = last = get_initializer(kernel_initializer, "kernel_initializer")

    # Layers. Each level has a seed for its Dense layer and one for its stack, used or not.
    seeds = iter(layer_seeds(seed, 2 * len(levels) + 1))
    chain = ChainBuilder(input_shape, dtype)
    for level in levels:
        initializer = first if level is levels[0] else hidden
        chain.add_dense(level.name, level.units, activation, with_seed(initializer, next(seeds)))
        stack_initializer = with_seed(hidden, next(seeds))
        chain.add_stack(f"{level.name}_stack", level.layers - 1, activation, stack_initializer)
    chain.add_dense("reconstruction", features, None, with_seed(last, next(seeds)))
    if len(input_shape) > 1:
        chain.layers.append(keras.layers.Reshape(input_shape, name="reshape", dtype=dtype))
    return chain.functional(name or f"deep_autoencoder_{depth}x{width}x{bottleneck}")


class _Level(NamedTuple):
    """Hidden layers of equal width, one after another."""

    name: str
    units: int
    layers: int


def _levels(depth: int, width: int, bottleneck: int) -> list[_Level]:
    """Returns the hidden layers, from the inputs to the outputs."""
    steps = max(math.ceil(math.log2(width / bottleneck)), 1)
    units = [round(width * (bottleneck / width) ** (step / steps)) for step in range(steps)]

    def side(name: str, layers: int, order: Sequence[int]) -> list[_Level]:
        # Step l has the layers i = 0 ... n - 1 with floor(i L / n) = l: those from ceil(l n / L) on.
        starts = [-(-step * layers // steps) for step in range(steps + 1)]
        counts = [(units[step], starts[step + 1] - starts[step]) for step in order]
        present = [(size, count) for size, count in counts if count]
        return [_Level(f"{name}_{number}", *level) for number, level in enumerate(present, start=1)]

    decoder = (depth - 1) // 2
    return [
        *side("encoder", depth - 1 - decoder, range(steps)),
        _Level("bottleneck", bottleneck, 1),
        *side("decoder", decoder, range(steps)[::-1]),
    ]


def _count_parameters(levels: Sequence[_Level], features: int) -> int:
    """Returns the number of weights and biases."""
    within = sum((level.layers - 1) * (level.units + 1) * level.units for level in levels)
    sizes = [features, *(level.units for level in levels), features]
    return within + sum((fan_in + 1) * units for fan_in, units in itertools.pairwise(sizes))


def _equivalent_walk(
    initializer: RandomWalk, levels: Sequence[_Level]
) -> tuple[Activation, int, int, float, str]:
    """Returns activation, width, depth, gain and distribution of a walk that spreads as far at one width.

    A step's variance goes as 1 / width, so that width is the harmonic mean of the layers' widths.
    """
    depth = sum(level.layers for level in levels)
    width = max(round(depth / sum(level.layers / level.units for level in levels)), 1)
    activation, distribution = theory_activation(initializer.activation), initializer.distribution
    gain = initializer.gain or gain_or_nearest_width(activation, width, depth, distribution)
    return activation, width, depth, gain, distribution
