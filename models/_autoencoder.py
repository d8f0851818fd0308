"""`deep_autoencoder`: as many layers as one likes, through a bottleneck and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_rwinit._checks import check_count
from keras_rwinit._keras.activations import keras_activation, theory_activation
from keras_rwinit._keras.seeding import layer_seeds, with_seed
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DenseStack
from keras_rwinit.theory.gains import gain_or_nearest_width

from ._arguments import check_excluded, check_input_shape, check_parameters_fit
from ._float16 import warn_where_float16_is_too_narrow

__all__ = ["deep_autoencoder"]

# With 0.1, 0.2, 0.3, 0.5 and 1, at the best of three rates, an epoch of MNIST left 40 orthogonal layers with
# 0.635, 0.632, 0.629, 0.625 and 0.642 of the variance of the pixels, and 40 normal ones with 0.742, 0.752,
# 0.748, 0.771 and 0.864; means of four seeds.
_OUTPUT_GAIN = 0.3


def deep_autoencoder(
    depth: int = 40,
    width: int = 128,
    bottleneck: int = 16,
    activation: Any = "tanh",
    *,
    input_shape: Sequence[int] = (784,),
    kernel_initializer: Any = None,
    distribution: str = "normal",
    gain: float | None = None,
    output_gain: float | None = None,
    seed: int | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> keras.Model:
    r"""A plain autoencoder of any depth, initialized so that it can be trained.

    The encoder's layers fall from `width` to the `bottleneck` in L steps of one ratio, at most two, and the
    decoder's rise in the same steps: layer i of the encoder's n, from 0, has

        width (bottleneck / width)^(l / L),    l = floor(i L / n),    L = ceil(log2(width / bottleneck)),

    units, rounded, and depth 13, width 64 and bottleneck 16 make 64 64 64 32 32 32 16 32 32 32 64 64 64. A
    linear layer of the inputs' size follows. Kernels have entries of variance `g^2 / fan_in`, `g` the gain
    that makes the log-norm of the back-propagated gradient an unbiased random walk over `depth` layers of the
    kernel's own fan-in (`keras_rwinit.gain`); over changing widths the walk of activations of two slopes is
    then unbiased exactly, and of smooth ones nearly.

    Layers of equal width are one `Dense`, which changes the width, and a `DenseStack`: the model compiles as
    fast at any depth, and `unstack` makes plain `Dense` layers of it. The code is the output of the layer
    `"bottleneck"`: `keras.Model(model.input, model.get_layer("bottleneck").output)` is the encoder.

    Args:
        depth: Number of hidden layers, at least 1. The bottleneck is counted, the linear layer is not; of an
            even number the encoder has one more than the decoder.
        width: Units of the first hidden layer, at least 1.
        bottleneck: Units of the narrowest, at least 1 and at most `width`.
        activation: Of the hidden layers: what Keras takes, or a name with a parameter, as in
            `"leaky_relu(0.9)"`.
        input_shape: Shape of one input, and of one output; more than one axis is flattened and put back.
            Inputs should have zero mean and unit variance in every dimension, as `keras_rwinit.data.load`
            gives them.
        kernel_initializer: An initializer for all kernels in place of the random walk's, such as
            `"glorot_uniform"` for comparison. Excludes `distribution` and the gains.
        distribution: Of the random walk's kernels: `"normal"`, `"truncated_normal"`, `"uniform"` or
            `"orthogonal"`.
        gain: Gain of the hidden kernels in place of the computed ones.
        output_gain: Gain of the last kernel. `None`: 0.3, of which tanh layers make outputs of a root mean
            square of about 0.1. A mean squared error then begins about where the best constant has it.
        seed: Root of the seeds of all layers. `None` draws anew, repeatably after
            `keras.utils.set_random_seed`.
        dtype: Dtype or dtype policy of the layers, such as `"mixed_bfloat16"`. Where the gradient or the
            activations are expected to leave float16's range a UserWarning says so.
        name: Of the model.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: An argument is out of range or of the wrong type, two arguments exclude each
            other, no gain exists for the activation, or the weights exceed the machine's memory.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> model = model_zoo.deep_autoencoder(depth=500, width=32, bottleneck=8, input_shape=(8, 8), seed=1)
        >>> model.compile("adam", "mse")
        >>> model.get_layer("bottleneck").output.shape, model.output_shape
        ((None, 8), (None, 8, 8))

    References:
        Sussillo & Abbott, arXiv:1412.6558. Hinton & Salakhutdinov, "Reducing the Dimensionality of Data with
        Neural Networks", Science 313, 2006.
    """
    activation = keras_activation(activation)
    depth, width = check_count("depth", depth), check_count("width", width)
    bottleneck = check_count("bottleneck", bottleneck)
    if bottleneck > width:
        raise ValueError(
            "`bottleneck` must be at most `width`, the units of the first hidden layer. "
            f"Received: bottleneck={bottleneck}, width={width}"
        )
    input_shape = check_input_shape(input_shape)
    features = math.prod(input_shape)
    runs = _runs(depth, width, bottleneck)
    check_parameters_fit(
        _count_parameters(runs, features), dtype, f"An autoencoder of depth {depth:,} and width {width:,}"
    )
    if kernel_initializer is None:
        hidden: Any = RandomWalk(activation, distribution, depth, gain)
        last: Any = RandomWalk(
            "linear", distribution, gain=_OUTPUT_GAIN if output_gain is None else output_gain
        )
        if keras.dtype_policies.get(dtype).compute_dtype == "float16":
            _warn_of_float16(hidden, runs)
    else:
        check_excluded(kernel_initializer, distribution, gain=gain, output_gain=output_gain)
        hidden = last = keras.initializers.get(kernel_initializer)
    seeds = iter(layer_seeds(seed, 2 * len(runs) + 1))

    def dense(units: int, activation: Any, initializer: Any, name: str) -> keras.layers.Dense:
        kernel_initializer = with_seed(initializer, next(seeds))
        return keras.layers.Dense(
            units, activation, kernel_initializer=kernel_initializer, dtype=dtype, name=name
        )

    layers: list[keras.layers.Layer] = []
    if len(input_shape) > 1:
        layers.append(keras.layers.Flatten(name="flatten", dtype=dtype))
    for run in runs:
        layers.append(dense(run.units, activation, hidden, run.name))
        stack_seed = next(seeds)
        if run.layers > 1:
            layers.append(
                DenseStack(
                    run.layers - 1,
                    activation,
                    kernel_initializer=with_seed(hidden, stack_seed),
                    dtype=dtype,
                    name=f"{run.name}_stack",
                )
            )
    layers.append(dense(features, None, last, "reconstruction"))
    if len(input_shape) > 1:
        layers.append(keras.layers.Reshape(input_shape, name="reshape", dtype=dtype))
    inputs = outputs = keras.Input(input_shape, name="inputs")
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name or f"deep_autoencoder_{depth}x{width}x{bottleneck}")


class _Run(NamedTuple):
    """Hidden layers of equal width, one after another."""

    name: str
    units: int
    layers: int


def _runs(depth: int, width: int, bottleneck: int) -> list[_Run]:
    """The hidden layers, from the inputs to the outputs."""
    steps = max(math.ceil(math.log2(width / bottleneck)), 1)
    units = [round(width * (bottleneck / width) ** (step / steps)) for step in range(steps)]

    def side(name: str, layers: int, order: Sequence[int]) -> list[_Run]:
        # Of layers i = 0 ... n - 1, those with floor(i L / n) = l.
        ends = [-(-step * layers // steps) for step in range(steps + 1)]
        counts = [(units[step], ends[step + 1] - ends[step]) for step in order]
        present = [(size, count) for size, count in counts if count]
        return [_Run(f"{name}_{k}", *run) for k, run in enumerate(present, start=1)]

    decoder = (depth - 1) // 2
    return [
        *side("encoder", depth - 1 - decoder, range(steps)),
        _Run("bottleneck", bottleneck, 1),
        *side("decoder", decoder, range(steps)[::-1]),
    ]


def _count_parameters(runs: Sequence[_Run], features: int) -> int:
    """Weights and biases."""
    within = sum((run.layers - 1) * (run.units + 1) * run.units for run in runs)
    sizes = [features, *(run.units for run in runs), features]
    return within + sum((fan_in + 1) * units for fan_in, units in itertools.pairwise(sizes))


def _warn_of_float16(initializer: RandomWalk, runs: Sequence[_Run]) -> None:
    """Warns as for layers of one width whose walk spreads as far: a step's variance goes as 1 / width."""
    depth = sum(run.layers for run in runs)
    width = max(round(depth / sum(run.layers / run.units for run in runs)), 1)
    activation, distribution = theory_activation(initializer.activation), initializer.distribution
    gain = initializer.gain or gain_or_nearest_width(activation, width, depth, distribution)
    warn_where_float16_is_too_narrow(activation, width, depth, gain, distribution)
