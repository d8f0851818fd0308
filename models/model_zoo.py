"""Very deep networks with the right gain in every kernel, and recipes that train them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_rwinit._checks import (
    check_count,
    check_fits_dtype,
    check_input_shape,
    check_positive,
    did_you_mean,
)
from keras_rwinit._keras.activations import keras_activation, theory_activation
from keras_rwinit._keras.names import get_initializer
from keras_rwinit._keras.seeding import layer_seeds, with_seed
from keras_rwinit._keras.types import ActivationLike, Initializer
from keras_rwinit.data.datasets import DATASETS
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers.dense_stack import check_remat
from keras_rwinit.theory import gain as computed_gain
from keras_rwinit.theory.distributions import MirroredSide, resolve_distribution

from ._arguments import (
    DType,
    check_excluded,
    check_gain,
    check_parameters_fit,
    computes_in_float16,
)
from ._autoencoder import deep_autoencoder
from ._builder import ChainBuilder
from ._float16 import warn_where_float16_is_too_narrow
from ._parameters import count_parameters
from ._presets import Preset, TrainingRecipe, presets
from ._recipe import learning_rate, recipe
from ._stacking import stack, unstack
from .kernel_defaults import kernel_defaults

__all__ = [
    "Preset",
    "TrainingRecipe",
    "count_parameters",
    "deep_autoencoder",
    "deep_mlp",
    "from_preset",
    "learning_rate",
    "presets",
    "recipe",
    "stack",
    "unstack",
]


def deep_mlp(
    depth: int = 100,
    width: int = 100,
    activation: ActivationLike = "relu",
    *,
    input_shape: Sequence[int] = (784,),
    classes: int = 10,
    classifier_activation: ActivationLike = None,
    kernel_initializer: Initializer | str | None = None,
    distribution: str | None = None,
    gain: float | None = None,
    input_gain: float | None = None,
    output_gain: float | None = None,
    bias_stddev: float | None = None,
    stacked: bool = True,
    remat: int | str | None = None,
    seed: int | None = None,
    dtype: DType = None,
    name: str | None = None,
) -> keras.Model:
    r"""Returns a plain feed-forward classifier of any depth, initialized so that it can be trained.

    The layers are `depth` times `Dense(width, activation)`, and a linear `Dense(classes)` on top. Hidden
    kernels have entries of variance `g^2 / fan_in`, where `g` is the gain that makes the log-norm of the
    back-propagated gradient an unbiased random walk at this width and depth (`keras_rwinit.gain`).

    With its defaults and `model.compile(**model_zoo.recipe(model), metrics=["accuracy"])` the network learns
    at every depth from 20 to 1000, with ReLU and with tanh (`benchmarks/results/depths.csv`).

    For a regression, `classes` is the number of targets, and the recipe takes a loss:
    `model_zoo.recipe(model, loss="mse")`. Standardize the targets. Networks with `"looks_linear"` kernels, as
    for ReLU, are linear functions at first and give smooth fits. With a saturating activation, such as tanh,
    take `input_gain=0.03, output_gain=1.0` (`examples/regression.py`).

    Args:
        depth: Number of hidden layers, at least 1. The classifier is not counted.
        width: Units of every hidden layer, at least 1.
        activation: Activation of the hidden layers: a name that `keras_rwinit.gain` takes, such as `"tanh"`,
            `"erf"` or `"leaky_relu(0.9)"`, or anything that Keras takes. `"shaped(relu)"`, `"shaped(gelu)"`
            and the like are shaped for `depth`, so that inputs stay apart; see
            `keras_rwinit.theory.shape_activation`.
        input_shape: Shape of one input; more than one axis is flattened. Inputs should have zero mean
            and unit variance in every dimension, as `keras_rwinit.data.load` gives them.
        classes: Units of the classifier, at least 1; the targets of a regression.
        classifier_activation: Activation of the classifier; None for logits, `"softmax"` for probabilities.
        kernel_initializer: Initializer of all kernels in place of the random walk's, such as
            `"glorot_uniform"` for comparison. Excludes `distribution` and the gains.
        distribution: Distribution of the random walk's kernels: `"normal"` (the paper's),
            `"truncated_normal"`, `"uniform"`, `"orthogonal"` or `"looks_linear"`; see
            `keras_rwinit.initializers.RandomWalk`. `None`: one that trains at any depth, which is
            `"looks_linear"` for activations with `f(a) - f(-a) = c a` (relu, leaky_relu, gelu, silu,
            softplus) and `"orthogonal"` for all others. Both have an `output_gain` of 3. With orthogonal
            kernels, curved activations such as tanh have an `input_gain` of 0.3, but not shaped ones. With
            `bias_stddev`, with which units do not come in pairs, `None` is `"normal"`.
        gain: Gain of the hidden kernels in place of the computed one.
        input_gain: Gain of the first kernel. `None`: the gain of the hidden kernels, 1 with
            `"looks_linear"`, or 0.3 where `distribution` says so. A smaller one leaves the first layers of a
            saturating activation nearly linear, so that the network is a smoother function at first and errs
            less in examples that it has not seen. In those layers the gradient's log-norm grows by up to
            about `ln(gain / input_gain)` nats, which `gradient_walk` reports; elsewhere it stays unbiased.
        output_gain: Gain of the classifier's kernel, with `"looks_linear"` that of the linear network which
            the model is at first. `None`: the gain of a linear layer, or 3 if `distribution` is None as well.
        bias_stddev: Standard deviation of the hidden layers' normal biases. `None`: all biases are zero, and
            any two inputs of a ReLU network become parallel with depth. If the biases outweigh the inputs,
            as with an `input_gain` far below `bias_stddev`, the same units are active for all inputs, and
            the log-norm of the difference of two inputs does the unbiased walk of the gradient. A ReLU unit
            is active with probability one half with and without biases, so that the gain is the same. (For
            activations without two slopes it is not; it is computed as for zero biases.) An `output_gain`
            of about `1 / input_gain` makes the logits differ by about one. The classifier's biases are set
            such that inputs of zero give logits of zero: the part that all inputs share would outweigh
            their differences.
        stacked: True: a functional model with one `DenseStack` for all but the first hidden layer.
            False: a `DeepSequential` of plain `Dense` layers. Both are the same network: the same
            seed gives the same weights and outputs; `stack` and `unstack` convert.
        remat: `remat` of the `DenseStack`: `"sqrt"` keeps the activations of `2 sqrt(depth)` layers for the
            gradient instead of `depth`, for one more forward pass.
        seed: Root of the seeds of all layers. `None`: a random root, repeatable after
            `keras.utils.set_random_seed`.
        dtype: Dtype or dtype policy of the layers, such as `"mixed_bfloat16"`. A UserWarning tells if
            the gradient or the activations are expected to leave float16's range; scale the loss there
            (`keras.optimizers.LossScaleOptimizer`).
        name: Name of the model.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: An argument is out of range or of the wrong type, two arguments exclude each
            other, no gain exists for the activation, or the weights exceed the machine's memory.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> model = model_zoo.deep_mlp(depth=500, width=32, input_shape=(64,), seed=1)
        >>> model.compile(**model_zoo.recipe(model), metrics=["accuracy"])
        >>> f"{model.count_params():,}"
        '529,354'

    References:
        Sussillo & Abbott, arXiv:1412.6558.
    """
    # Arguments, before anything is computed: a wrong one may ask for more than the memory.
    depth, width = check_count("depth", depth), check_count("width", width)
    if check_remat(remat) is not None and not stacked:
        raise ValueError(
            f"`remat` is the DenseStack's; leave it out with stacked=False. Received: remat={remat!r}"
        )
    classes = check_count("classes", classes)
    input_shape = check_input_shape(input_shape)
    activation = keras_activation(activation, depth)
    features = math.prod(input_shape)
    check_parameters_fit(
        count_parameters(depth, width, features, classes),
        dtype,
        f"A network of depth {depth:,} and width {width:,}",
    )
    # Initializers
    if kernel_initializer is None:
        known = theory_activation(activation, width)
        defaults = kernel_defaults(known, width, distribution, random_biases=bias_stddev is not None)
        distribution = defaults.distribution
        mirrored = resolve_distribution(distribution).mirrored
        if mirrored and bias_stddev is not None:
            raise ValueError(
                "`bias_stddev` gives each unit a bias of its own, and 'looks_linear' needs pairs of equal "
                f"units; use distribution='normal'. Received: bias_stddev={bias_stddev!r}"
            )
        # The classifier's kernel also undoes the activation before it.
        undone = computed_gain(known, width, depth, distribution=distribution) if mirrored else 1.0
        gain = check_gain("gain", gain, width, dtype)
        input_gain = check_gain("input_gain", input_gain, features, dtype)
        output_gain = check_gain("output_gain", output_gain, width, dtype, factor=undone)
        if gain is None:
            gain = computed_gain(known, width, depth, distribution=distribution)
        if input_gain is None:
            input_gain = gain if defaults.input_gain is None else defaults.input_gain
        if output_gain is None:
            output_gain = defaults.output_gain
        kernels = _random_walk(
            activation,
            distribution,
            depth,
            gain,
            input_gain,
            None if output_gain is None else output_gain * undone,
            seed,
            mirrored=mirrored,
        )
        if computes_in_float16(dtype):
            warn_where_float16_is_too_narrow(known, width, depth, gain, distribution)
    else:
        check_excluded(
            kernel_initializer, distribution, gain=gain, input_gain=input_gain, output_gain=output_gain
        )
        kernels = _reseeded(kernel_initializer, seed)
    biases = _bias_initializers(bias_stddev, seed, dtype)

    # Layers. The first is not part of the stack: its kernel has the inputs' fan-in.
    chain = ChainBuilder(input_shape, dtype)
    chain.add_dense("hidden_1", width, activation, kernels.first, biases.first)
    if stacked:
        chain.add_stack("hidden_stack", depth - 1, activation, kernels.hidden, biases.hidden, remat)
    else:
        chain.add_dense_layers(2, depth - 1, width, activation, kernels.hidden, biases.hidden)
    chain.add_dense("classifier", classes, classifier_activation, kernels.last)

    # Model
    name = name or f"deep_mlp_{depth}x{width}"
    model = chain.functional(name) if stacked else chain.sequential(name)
    if bias_stddev is not None:
        _center_logits(chain)
    return model


class _Initializers(NamedTuple):
    """Initializers of the first hidden layer, the other hidden layers, and the classifier."""

    first: Initializer
    hidden: Initializer
    last: Initializer


def _random_walk(
    activation: ActivationLike,
    distribution: str,
    depth: int,
    gain: float,
    input_gain: float,
    output_gain: float | None,
    seed: int | None,
    *,
    mirrored: bool,
) -> _Initializers:
    # Seeds are numbered the same with and without a stack, so that both forms draw the same weights.
    first_seed, hidden_seed, last_seed = layer_seeds(seed, 3)
    # Neither data nor logits come in pairs.
    first_side: MirroredSide = "outputs" if mirrored else "both"
    last_side: MirroredSide = "inputs" if mirrored else "both"
    return _Initializers(
        RandomWalk(activation, distribution, depth, input_gain, first_seed, mirrored=first_side),
        RandomWalk(activation, distribution, depth, gain, hidden_seed),
        RandomWalk("linear", distribution, gain=output_gain, seed=last_seed, mirrored=last_side),
    )


def _reseeded(kernel_initializer: Initializer | str, seed: int | None) -> _Initializers:
    """Returns copies of one initializer, each with a seed of its own."""
    initializer = get_initializer(kernel_initializer, "kernel_initializer")
    return _Initializers(*(with_seed(initializer, layer_seed) for layer_seed in layer_seeds(seed, 3)))


def _bias_initializers(stddev: float | None, seed: int | None, dtype: DType) -> _Initializers:
    zeros = keras.initializers.Zeros()
    if stddev is None:
        return _Initializers(zeros, zeros, zeros)
    stddev = check_positive("bias_stddev", stddev)
    check_fits_dtype("bias_stddev", stddev, str(keras.dtype_policies.get(dtype).variable_dtype))
    normal = keras.initializers.RandomNormal(stddev=stddev)
    # The kernels have the first three seeds.
    _, _, _, first_seed, hidden_seed = layer_seeds(seed, 5)
    return _Initializers(with_seed(normal, first_seed), with_seed(normal, hidden_seed), zeros)


def _center_logits(chain: ChainBuilder) -> None:
    """Sets the classifier's biases such that inputs of zero give logits of zero."""
    *hidden, classifier = chain.layers
    outputs = keras.ops.zeros((1, *chain.input_shape))
    for layer in hidden:
        outputs = layer(outputs)
    centered = -keras.ops.matmul(outputs, classifier.kernel)[0]
    if not keras.ops.all(keras.ops.isfinite(centered)):
        raise ValueError(
            "With these gains and `bias_stddev` the activations leave the range of the dtype. "
            f"Received: dtype={classifier.dtype_policy.name!r}"
        )
    classifier.bias.assign(centered)


# Arguments of the random-walk initializer, which another `kernel_initializer` replaces.
_RANDOM_WALK_ARGUMENTS = ("distribution", "gain", "input_gain", "output_gain")


def from_preset(name: str, **overrides: Any) -> keras.Model:
    """Returns the network of a preset, untrained.

    Args:
        name: A key of `presets`, which the model gets as its name.
        **overrides: Arguments of `deep_mlp`, except `name`, that replace the preset's. A
            `kernel_initializer` replaces the preset's distribution and gains too.

    Returns:
        The model, not compiled. `presets[name].recipe` is the training that the preset is known for: data
        set, optimizer, learning rate, batch size and epochs, all for its own depth and width. For other
        sizes there is `recipe(model)`, which returns what `model.compile` takes.

    Raises:
        ValueError: The name is unknown, or an override is wrong.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> model_zoo.from_preset("digits_tanh_1000", depth=20, seed=0).name
        'digits_tanh_1000'
    """
    if not isinstance(name, str) or name not in presets:
        raise ValueError(
            f"`name` must be one of {', '.join(presets)}. Received: name={name!r}"
            f"{did_you_mean(name, presets)}"
        )
    preset = presets[name]
    config = {"name": name, "classes": DATASETS[preset.recipe.dataset].classes, **preset.config}
    if overrides.get("kernel_initializer") is not None:
        config = {key: value for key, value in config.items() if key not in _RANDOM_WALK_ARGUMENTS}
    return deep_mlp(**{**config, **overrides})
