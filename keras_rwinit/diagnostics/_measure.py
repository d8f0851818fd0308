r"""`gradient_walk`: measures `ln|delta|` at every layer of a model, example by example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np

from keras_rwinit._keras.execution import uncompiled
from keras_rwinit._keras.names import check_loss_name
from keras_rwinit._keras.types import ArrayTree
from keras_rwinit._probing.examples import check_examples, first_batch
from keras_rwinit._probing.measure import ModelMeasurement, measure_layers, warn_unseen
from keras_rwinit._probing.measurements import CallKey, LayerCall, LayerMeasurement
from keras_rwinit._probing.objective import LossLike, make_objective
from keras_rwinit._tracing.calls import observe
from keras_rwinit._tracing.checks import check_model, check_shapes
from keras_rwinit._tracing.contexts import KernelContext, trace_contexts
from keras_rwinit._tracing.trace import trace

from ._correlation import measure_correlation
from ._prediction import predict_model
from ._record import GradientWalk
from ._repeats import find_repeats
from ._waiting import find_first_gradients

__all__ = ["gradient_walk"]


def gradient_walk(
    model: keras.Model,
    x: ArrayTree,
    y: ArrayTree = None,
    loss: LossLike = None,
    *,
    sample_weight: ArrayTree = None,
    training: bool = False,
    trained: bool = False,
) -> GradientWalk:
    r"""Measures the log-norm of the back-propagated gradient at every layer of a model that has a kernel.

    `delta_d` of an example is the gradient at its pre-activations `a_d` of layer d,

        delta_d = dL / da_d,    delta_d = f'(a_d) * (W_{d+1}^T delta_{d+1}) in a chain of Dense layers.

    L is the number of examples times the loss of the batch that `model.compute_loss` computes, the loss
    that `fit` reports: with sample weights, masks, loss weights, losses that layers add, and regularization.
    A loss that is a mean over examples leaves each example its own loss in L; for one with
    `reduction="sum"`, L is the sum times the number of examples.

    `ln|delta_d|` does a random walk from the last hidden layer to the first (Sussillo & Abbott,
    section 2). It is found by the back end's automatic differentiation, in float32, or in float64 where
    the model computes in float64 or a norm comes near the ends of float32. `Dense`, convolutions of
    every kind, `EinsumDense` and attention are measured at their pre-activations, a `DenseStack` layer by
    layer; layers of other kinds (recurrent, `TimeDistributed`, your own) at their output, also where they
    wrap a `DenseStack`. A layer of your own is measured if its kernel is the attribute `kernel` or the only
    matrix that its inputs can be multiplied by, or if it is made of such layers. Layers whose outputs no
    other kernel uses are output layers and are not measured, unless there are no others.

    Nothing of the model changes: not its weights, nor its optimizer, seeds or compiled functions. The
    model runs once, forward and backward, operation by operation: rematerialization and compiled functions
    are off for the calling thread, and other threads may use the model meanwhile. On JAX they may call it,
    but not `fit`, `evaluate` or `predict` it, for which Keras takes the weights out of the model. The
    weights of an activation layer such as `PReLU()` that no call has built yet are made, as by the model's
    first call. Where a layer sees several parts of each example as a batch (windows of an image), one `delta`
    is that of all parts of the example.

    Args:
        model: A built Keras model of any kind.
        x: Inputs, in the structure the model takes, shape (examples, ...), finite. `None` stands for an
            optional input that is left out. A model whose `call` needs several arguments takes them in a
            tuple, list or dictionary. Or a data set as `fit` takes it (a `tf.data.Dataset`, a `PyDataset`, a
            `DataLoader` of PyTorch, a generator): its first batch is used, with targets and weights.
        y: Targets, in the structure of the outputs. `None`: the gradient of a random direction of the
            outputs, the same direction for every example, instead of a loss's.
        loss: Keras loss or its name, or one for each output. `None`: what the model was compiled with.
        sample_weight: Weights of the examples, or of their time steps, as `fit` takes them.
        training: Whether the model runs as in training: batch normalization by the batch, and dropout.
            `delta` of an example is then part of a gradient that other examples take part in. A model with
            `BatchNormalization` that has seen no data normalizes only with True.
        trained: Whether the model has been trained. The verdict then tells only what stops a training at any
            time; see `GradientWalk.verdict`. It changes nothing that is measured.

    Returns:
        A `GradientWalk`.

    Warns:
        UserWarning: Some layers cannot be measured, because the back end runs them in a loop of its own, or
            because their examples cannot be told apart. The rest is measured.

    Raises:
        ValueError: The model is not built or has no kernel, none of its layers can be measured, `x` is
            empty, not finite, too large for the model's dtype or does not fit the model, there are targets
            and no loss, or they do not fit it, or none of the outputs is of a floating dtype, as after an
            argmax.
        RuntimeError: On JAX, `fit`, `evaluate` or `predict` has the weights; use `GradientWalkCallback`.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit import gradient_walk, model_zoo
        >>> model = model_zoo.deep_mlp(depth=50, width=100, seed=0)
        >>> walk = gradient_walk(model, np.random.default_rng(0).normal(size=(4, 784)))
        >>> walk.backward.shape, walk.verdict
        ((4, 50), 'fine')

    References:
        Sussillo & Abbott, Random Walk Initialization for Training Very Deep Feedforward Networks,
        arXiv:1412.6558.
    """
    check_model(model)
    input_shape = getattr(model, "input_shape", None)
    x, y, sample_weight = first_batch(x, y, sample_weight, input_shape=input_shape)
    inputs, examples = check_examples("x", x)
    check_shapes(model, inputs)
    if isinstance(loss, str):
        check_loss_name(loss)
    objective = make_objective(
        model, y, loss, examples, x=inputs, sample_weight=sample_weight, training=training
    )

    # The lock of `observe` is held throughout: all measurements are of one model.
    with observe(model):
        contexts, _ = trace_contexts(trace(model, inputs))

        def measure() -> ModelMeasurement:
            measured = measure_layers(model, inputs, objective, training=training)
            return replace(measured, layers=_leave_out_outputs(measured.layers, contexts))

        with uncompiled():
            measured = measure()
            hidden = measured.layers
            if not hidden:
                raise _NothingMeasuredError(model, measured.unseen)
            warn_unseen(measured)
            first = find_first_gradients(model, inputs, objective, training, hidden, measure)
        repeats = find_repeats(contexts)
        initial_statistics = 0 if training else _count_initial_statistics(model)
    correlation = measure_correlation(inputs, hidden)
    theory = predict_model(contexts, correlation.inputs, len(hidden))
    correlation = replace(correlation, prediction=theory.correlation)
    return GradientWalk(
        _unique_names([measurement.layer_call for measurement in hidden]),
        np.stack([measurement.backward for measurement in hidden], axis=1),
        np.stack([measurement.forward for measurement in hidden], axis=1),
        np.array([measurement.weight_gradient for measurement in hidden]),
        first.dead,
        theory.walk,
        measured.dtype,
        first.waits,
        first.backward,
        correlation,
        np.array([measurement.layer_call.key in repeats for measurement in hidden]),
        trained,
        initial_statistics,
        theory.reason,
    )


def _count_initial_statistics(model: keras.Model) -> int:
    """Counts the batch normalizations that know nothing of the data but would use it in training."""
    return sum(
        layer.built
        and layer.trainable  # one that is not uses its moving statistics in training, too
        and not np.any(keras.ops.convert_to_numpy(layer.moving_mean.value))
        and bool(np.all(keras.ops.convert_to_numpy(layer.moving_variance.value) == 1.0))
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    )


class _NothingMeasuredError(ValueError):
    """A model has no layer that can be measured."""

    def __init__(self, model: keras.Model, unseen: dict[str, str]) -> None:
        layers = "; ".join(f"{path} {reason}" for path, reason in unseen.items())
        super().__init__(
            f"No layer of the model can be measured. Received: model={model.name!r}; {layers}"
            if unseen
            else "The model has no layer with a kernel to measure: no Dense, EinsumDense, convolutional or "
            f"recurrent layer, and no layer of your own with one kernel. Received: model={model.name!r}"
        )


def _leave_out_outputs(
    measurements: list[LayerMeasurement], contexts: Sequence[KernelContext]
) -> list[LayerMeasurement]:
    """Returns the measurements of layers that feed another kernel; all of them if none does."""
    outputs = {CallKey.of(context) for context in contexts if not context.followed}
    hidden = [one for one in measurements if one.layer_call.key not in outputs]
    return hidden or measurements


def _unique_names(layer_calls: Sequence[LayerCall]) -> tuple[str, ...]:
    """Returns a name for each call, with the layer's path where layers of different models share a name."""
    uses = Counter(layer_call.name for layer_call in layer_calls)
    return tuple(
        layer_call.name if uses[layer_call.name] == 1 else layer_call.full_name for layer_call in layer_calls
    )
