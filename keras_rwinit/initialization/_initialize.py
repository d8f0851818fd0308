"""`initialize`: redraws every kernel of a Keras model, each with the gain that its context requires."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.fans import assemble_kernel
from keras_rwinit._keras.seeding import layer_seeds
from keras_rwinit._keras.types import ArrayTree, Tensor
from keras_rwinit._probing.examples import check_examples
from keras_rwinit._tracing.checks import check_model, check_shapes
from keras_rwinit._tracing.contexts import KernelContext, trace_contexts
from keras_rwinit._tracing.kernels import Kernel, skip_reason
from keras_rwinit._tracing.trace import trace
from keras_rwinit.theory.distributions import Distribution, draw_kernel, resolve_distribution

from ._calibration import Calibration, calibrate
from ._report import InitializationReport, InitializedKernel
from ._rules import GainRule, gain_rule

__all__ = ["initialize"]


def initialize(
    model: keras.Model, x: ArrayTree = None, distribution: str = "normal", seed: int | None = None
) -> InitializationReport:
    r"""Redraws every kernel of a Keras model in place, each with the gain that its context requires.

    A kernel gets entries of variance

        Var W = gain^2 / fan_in

    with the gain that `keras_rwinit.gain` computes for the activation that feeds it (Sussillo & Abbott,
    arXiv:1412.6558, section 3), its own fan-in and the model's depth. Activations are seen through
    normalization, pooling, dropout, reshaping and concatenation, in nested models and layers made of
    layers:

    - Kernels fed by data or by a sum get the linear gain.
    - After a normalization, and where an activation has no gain for the model's depth (GELU, SiLU), the
      gain is that of one step with pre-activations of unit variance.
    - The last kernel of a branch that is added to a shortcut is scaled by one over the square root of the
      number of such sums, so that the sum keeps its variance over depth up to a factor below e (Hanin &
      Rolnick, arXiv:1803.01719; Arpit et al., arXiv:1910.09309). Where the branch ends in a normalization
      the scale would be undone, and the kernel keeps its gain.
    - Convolutions padded with zeros make up for what is lost at the edges; transposed ones with strides
      count the inputs that an output really has.
    - Embeddings, recurrent kernels and weights that are not trainable are left as they are.

    With a batch `x` it then calibrates. Kernels that read the data are scaled to pre-activations of mean
    square one. Kernels that follow each other directly are scaled by a common factor until the measured
    walk of the gradient is unbiased. The output kernels are scaled to outputs (before their activation)
    of root mean square 0.1, so that a loss begins near that of a constant prediction.

    The optimizer of a compiled model is set back to its beginning (all but the learning rate); biases and
    everything else stay as they were.

    Args:
        model: A built Keras model of any kind.
        x: Inputs to calibrate with, shape (examples, ...), finite, in the structure the model takes.
            `None`: the gains are the theory's.
        distribution: Distribution of the kernels: `"normal"`, `"truncated_normal"`, `"uniform"` or
            `"orthogonal"`.
        seed: Root of the seeds of all kernels. `None`: a random root, repeatable after
            `keras.utils.set_random_seed`.

    Returns:
        An `InitializationReport`.

    Raises:
        ValueError: The model is not built or has no kernel, `x` is empty, not finite or does not fit the
            model, or another argument is wrong. The model is then as it was.

    Example:
        >>> import keras, keras_rwinit
        >>> inputs = keras.Input((8,))
        >>> outputs = keras.layers.Dense(3)(keras.layers.Dense(100, "relu")(inputs))
        >>> model = keras.Model(inputs, outputs)
        >>> report = keras_rwinit.initialize(model, seed=0)
        >>> [round(kernel.gain, 3) for kernel in report.kernels]
        [1.067, 1.432]

    References:
        Sussillo & Abbott, Random Walk Initialization for Training Very Deep Feedforward Networks,
        arXiv:1412.6558.
    """
    check_model(model)
    law = resolve_distribution(distribution)
    inputs = None
    if x is not None:
        inputs, _ = check_examples("x", x)
        check_shapes(model, inputs)
    contexts, output = trace_contexts(trace(model, inputs))

    # A kernel that is applied several times has the gain of its first place.
    drawn: dict[int, KernelContext] = {}
    for context in contexts:
        if context.kernel.variable.trainable:
            drawn.setdefault(id(context.kernel.variable), context)
    if not drawn:
        raise ValueError(
            "The model has no kernel to draw: no Dense, EinsumDense or convolutional layer, and no weight "
            f"called `kernel`, that is trainable. Received: model={model.name!r}"
        )

    # All that can fail on wrong arguments comes before the first change.
    rules = {key: gain_rule(context, output.layers - 1, output.sums, law) for key, context in drawn.items()}
    optimizer_values = _initial_optimizer_values(model)
    seeds = iter(layer_seeds(seed, sum(max(context.kernel.stacked, 1) for context in drawn.values())))
    with _restore_on_error(model):
        for key, context in drawn.items():
            context.kernel.variable.assign(_draw_values(context.kernel, rules[key].gain, law, seeds))
        calibration = Calibration()
        if inputs is not None:
            shares = {key: rule.share for key, rule in rules.items()}
            calibration = calibrate(model, inputs, contexts, shares)
        for variable, value in optimizer_values:
            variable.assign(value)
    return InitializationReport(
        tuple(
            _describe(context, rules[key], calibration.factors.get(key, 1.0))
            for key, context in drawn.items()
        ),
        tuple(_skipped_weights(model, drawn)),
        calibration.drift,
        calibration.drift_before,
    )


def _draw_values(kernel: Kernel, gain: float, law: Distribution, seeds: Iterator[int]) -> NDArray[np.float32]:
    """Draws new values of a kernel; each layer of a stack takes a seed of its own."""
    shape = kernel.shape
    rows = math.prod(shape[axis] for axis in kernel.contracted)
    # The distribution draws for `rows` inputs; a strided transposed convolution has fewer.
    scale = gain * math.sqrt(rows / kernel.fan_in)

    def draw() -> NDArray[np.float32]:
        matrix = draw_kernel(law, np.random.default_rng(next(seeds)), rows, math.prod(shape) // rows)
        return assemble_kernel(scale * matrix, shape, kernel.contracted).astype(np.float32)

    return np.stack([draw() for _ in range(kernel.stacked)]) if kernel.stacked else draw()


def _describe(context: KernelContext, rule: GainRule, correction: float) -> InitializedKernel:
    kernel = context.kernel
    return InitializedKernel(
        kernel.variable.path,
        tuple(int(size) for size in kernel.variable.shape),
        kernel.fan_in,
        context.signal.activation.name,
        rule.gain * correction,
        correction,
        rule.why + ("; position guessed" if context.guessed else ""),
    )


def _skipped_weights(model: keras.Model, drawn: Mapping[int, KernelContext]) -> Iterator[tuple[str, str]]:
    """Yields path and reason of each weight of two or more axes that was not drawn."""
    reasons: dict[int, str] = {}
    for layer in model._flatten_layers():
        if skip_reason(layer):
            reasons |= {id(variable): skip_reason(layer) for variable in layer.variables}
    for variable in model.weights:
        if id(variable) in drawn or len(variable.shape) < 2:
            continue
        if id(variable) in reasons:
            yield variable.path, reasons[id(variable)]
        elif not variable.trainable:
            yield variable.path, "not trainable"
        elif "bias" in variable.name:
            yield variable.path, "a bias"
        else:
            yield variable.path, "not the kernel of a layer that the model was seen to apply"


@contextmanager
def _restore_on_error(model: keras.Model) -> Iterator[None]:
    """Gives a model and its optimizer their state back if anything goes wrong, Ctrl-C included."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.trainable_variables, *(optimizer.variables if optimizer else ())]
    before = [(variable, keras.ops.copy(variable.value)) for variable in variables]
    try:
        yield
    except BaseException:
        for variable, value in before:
            variable.assign(value)
        raise


def _initial_optimizer_values(model: keras.Model) -> Sequence[tuple[keras.Variable, Tensor]]:
    """Returns the optimizer's variables but the learning rate, with the values of a new one."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return []
    try:
        new = type(optimizer).from_config(optimizer.get_config())
        # Weights that were trainable when the optimizer was built may have been frozen since.
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        new.build(getattr(inner, "_trainable_variables", model.trainable_variables))
        pairs = list(zip(optimizer.variables, new.variables, strict=True))
    except Exception as error:  # of an optimizer from outside Keras
        raise ValueError(
            "The optimizer cannot be reset: it cannot be rebuilt from its `get_config`. "
            f"Received: {type(optimizer).__name__}, and {type(error).__name__}: {error}. Initialize the "
            "model before you compile it."
        ) from error
    return [(old, fresh.value) for old, fresh in pairs if old.name != "learning_rate"]
