"""Very deep networks with the right gain in every kernel, and recipes that train them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_rwinit._checks import check_count, check_positive
from keras_rwinit._keras.activations import keras_activation, theory_activation
from keras_rwinit._keras.seeding import layer_initializers, layer_seeds, with_seed
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DeepSequential, DenseStack
from keras_rwinit.layers.dense_stack import check_remat
from keras_rwinit.theory import gain as computed_gain

from ._arguments import check_excluded, check_input_shape, check_parameters_fit, count_parameters
from ._autoencoder import deep_autoencoder
from ._float16 import warn_where_float16_is_too_narrow
from ._presets import Preset, presets
from ._stacking import stack, unstack

__all__ = [
    "Preset",
    "count_parameters",
    "deep_autoencoder",
    "deep_mlp",
    "from_preset",
    "presets",
    "stack",
    "unstack",
]


def deep_mlp(
    depth: int = 100,
    width: int = 100,
    activation: Any = "relu",
    *,
    input_shape: Sequence[int] = (784,),
    classes: int = 10,
    classifier_activation: Any = None,
    kernel_initializer: Any = None,
    distribution: str = "normal",
    gain: float | None = None,
    input_gain: float | None = None,
    output_gain: float | None = None,
    bias_stddev: float | None = None,
    stacked: bool = True,
    remat: int | str | None = None,
    seed: int | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> keras.Model:
    r"""A plain feed-forward classifier of any depth, initialized so that it can be trained.

    The layers: depth 1 is `Dense(width, activation)` and the linear `Dense(classes)` on top; depth 2
    has one more `Dense(width, activation)` between them; depth d has d - 1 more. Hidden kernels have
    entries of variance `g^2 / fan_in`, `g` the gain that makes the log-norm of the back-propagated
    gradient an unbiased random walk at this width and depth (`keras_rwinit.gain`).

    Args:
        depth: Number of hidden layers, at least 1. The classifier is not counted.
        width: Units of every hidden layer, at least 1.
        activation: Of the hidden layers: what Keras takes, or a name with a parameter, as in
            `"leaky_relu(0.9)"`.
        input_shape: Shape of one input; more than one axis is flattened. Inputs should have zero mean
            and unit variance in every dimension, as `keras_rwinit.data.load` gives them.
        classes: Units of the classifier, at least 1.
        classifier_activation: Of the classifier; None for logits, `"softmax"` for probabilities.
        kernel_initializer: An initializer for all kernels in place of the random walk's, such as
            `"glorot_uniform"` for comparison. Excludes `distribution` and the gains.
        distribution: Of the random walk's kernels: `"normal"`, `"truncated_normal"`, `"uniform"`
            or `"orthogonal"`.
        gain: Gain of the hidden kernels in place of the computed one.
        input_gain: Gain of the first kernel. `None`: that of the hidden kernels. A smaller one leaves the
            first layers of a saturating activation nearly linear: there the gradient's log-norm, unbiased
            otherwise, gains up to about `ln(gain / input_gain)` nats.
        output_gain: Gain of the classifier's kernel. `None`: that of a linear layer.
        bias_stddev: Standard deviation of the hidden layers' normal biases. `None`: biases of zero, with
            which any two inputs of a ReLU network become parallel with depth. Biases that outweigh the
            inputs, as with an `input_gain` far below `bias_stddev`, choose the active units alike for all
            inputs, and the log-norm of the difference of two inputs then does the gradient's own unbiased
            walk: a ReLU unit is active with probability one half as before, and the gain is unchanged.
            (That of activations without two slopes does change, and is computed as for zero biases.) An
            `output_gain` of about one over the `input_gain` makes the logits differ by about one. The
            classifier's biases are then such that inputs of zero give logits of zero: what all inputs
            share would outweigh their differences.
        stacked: True: a functional model with one `DenseStack` for all but the first hidden layer.
            False: a `DeepSequential` of plain `Dense` layers. Both are the same network: the same
            seed gives the same weights and outputs; `stack` and `unstack` convert.
        remat: Of the `DenseStack`: `"sqrt"` keeps the activations of `2 sqrt(depth)` layers for the gradient
            in place of `depth`, for one more forward pass.
        seed: Root of the seeds of all layers. `None` draws anew, repeatably after
            `keras.utils.set_random_seed`.
        dtype: Dtype or dtype policy of the layers, such as `"mixed_bfloat16"`. Where
            `predict_walk` expects the gradient or the activations to leave float16's range a UserWarning
            says so; scale the loss there (`keras.optimizers.LossScaleOptimizer`).
        name: Of the model.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: An argument is out of range or of the wrong type, two arguments exclude each
            other, no gain exists for the activation, or the weights exceed the machine's memory.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> model = model_zoo.deep_mlp(depth=500, width=32, input_shape=(64,), seed=1)
        >>> model.compile("sgd", "mse")
        >>> f"{model.count_params():,}"
        '529,354'

    References:
        Sussillo & Abbott, arXiv:1412.6558.
    """
    depth, width = check_count("depth", depth), check_count("width", width)
    if check_remat(remat) is not None and not stacked:
        raise ValueError(
            f"`remat` is the DenseStack's; leave it out with stacked=False. Received: remat={remat!r}"
        )
    classes = check_count("classes", classes)
    input_shape = check_input_shape(input_shape)
    activation = keras_activation(activation)
    check_parameters_fit(
        count_parameters(depth, width, math.prod(input_shape), classes),
        dtype,
        f"A network of depth {depth:,} and width {width:,}",
    )
    first, hidden, last = _initializers(
        activation,
        depth,
        width,
        kernel_initializer,
        distribution,
        gain,
        input_gain,
        output_gain,
        seed,
    )
    if kernel_initializer is None and keras.dtype_policies.get(dtype).compute_dtype == "float16":
        warn_where_float16_is_too_narrow(
            theory_activation(activation), width, depth, hidden.gain, distribution
        )
    first_bias, hidden_bias = _bias_initializers(bias_stddev, seed)
    layers: list[keras.layers.Layer] = []
    if len(input_shape) > 1:
        layers.append(keras.layers.Flatten(name="flatten", dtype=dtype))

    def dense(units: int, activation: Any, kernel: Any, name: str, bias: Any = "zeros") -> keras.layers.Dense:
        return keras.layers.Dense(
            units, activation, kernel_initializer=kernel, bias_initializer=bias, dtype=dtype, name=name
        )

    layers.append(dense(width, activation, first, "hidden_1", first_bias))
    name = name or f"deep_mlp_{depth}x{width}"
    classifier = dense(classes, classifier_activation, last, "classifier")
    if not stacked:
        kernels = layer_initializers(hidden, depth - 1)
        biases = layer_initializers(hidden_bias, depth - 1)
        layers += [
            dense(width, activation, kernel, f"hidden_{index}", bias)
            for index, (kernel, bias) in enumerate(zip(kernels, biases, strict=True), start=2)
        ]
    elif depth > 1:
        layers.append(
            DenseStack(
                depth - 1,
                activation,
                kernel_initializer=hidden,
                bias_initializer=hidden_bias,
                remat=remat,
                dtype=dtype,
                name="hidden_stack",
            )
        )
    model: keras.Model
    if stacked:
        inputs = outputs = keras.Input(input_shape, name="inputs")
        for layer in [*layers, classifier]:
            outputs = layer(outputs)
        model = keras.Model(inputs, outputs, name=name)
    else:
        model = DeepSequential([*layers, classifier], input_shape, name=name)
    if bias_stddev is not None:
        _center(layers, classifier, input_shape)
    return model


def _initializers(
    activation: Any,
    depth: int,
    width: int,
    kernel_initializer: Any,
    distribution: str,
    gain: float | None,
    input_gain: float | None,
    output_gain: float | None,
    seed: int | None,
) -> tuple[Any, Any, Any]:
    """Initializers of the first, the other hidden and the classifier's kernels."""
    first_seed, hidden_seed, last_seed = layer_seeds(seed, 3)
    if kernel_initializer is None:
        if gain is None:
            gain = computed_gain(theory_activation(activation), width, depth, distribution)
        if input_gain is None:
            input_gain = gain
        return (
            RandomWalk(activation, distribution, depth, input_gain, first_seed),
            RandomWalk(activation, distribution, depth, gain, hidden_seed),
            RandomWalk("linear", distribution, gain=output_gain, seed=last_seed),
        )
    check_excluded(
        kernel_initializer, distribution, gain=gain, input_gain=input_gain, output_gain=output_gain
    )
    initializer = keras.initializers.get(kernel_initializer)
    return (
        with_seed(initializer, first_seed),
        with_seed(initializer, hidden_seed),
        with_seed(initializer, last_seed),
    )


def _bias_initializers(stddev: float | None, seed: int | None) -> tuple[Any, Any]:
    """Initializers of the first and the other hidden biases."""
    zeros = keras.initializers.Zeros()
    if stddev is None:
        return zeros, zeros
    normal = keras.initializers.RandomNormal(stddev=check_positive("bias_stddev", stddev))
    # The first three are the kernels'.
    _, _, _, first_seed, hidden_seed = layer_seeds(seed, 5)
    return with_seed(normal, first_seed), with_seed(normal, hidden_seed)


def _center(hidden: Sequence[Any], classifier: keras.layers.Dense, input_shape: tuple[int, ...]) -> None:
    """Sets the classifier's biases such that inputs of zero give logits of zero."""
    outputs = keras.ops.zeros((1, *input_shape))
    for layer in hidden:
        outputs = layer(outputs)
    classifier.bias.assign(-keras.ops.matmul(outputs, classifier.kernel)[0])


def from_preset(name: str, **overrides: Any) -> keras.Model:
    """The network of a preset.

    Args:
        name: A key of `presets`.
        **overrides: Arguments of `deep_mlp` to use in place of the preset's.

    Returns:
        The model, not compiled. `presets[name].recipe` says how to train it.

    Raises:
        ValueError: The name is unknown, or an override is wrong.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> model_zoo.from_preset("digits_tanh_1000", depth=20, seed=0).name
        'digits_tanh_1000'
    """
    if not isinstance(name, str) or name not in presets:
        raise ValueError(f"`name` must be one of {', '.join(presets)}. Received: name={name!r}")
    return deep_mlp(**{"name": name, **presets[name].config, **overrides})
