r"""The gradient's walk, measured: `ln|delta|` at every layer of a model, example by example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_rwinit._probing.objective import check_examples, make_objective
from keras_rwinit._probing.probe import LayerCall, observe
from keras_rwinit._tracing.checks import check_model, check_shapes
from keras_rwinit._tracing.contexts import trace_contexts
from keras_rwinit._tracing.trace import trace

from ._prediction import predict_model_walk
from ._record import GradientWalk

if TYPE_CHECKING:
    pass

__all__ = ["gradient_walk"]


def gradient_walk(
    model: keras.Model, x: Any, y: Any = None, loss: Any = None, *, training: bool = False
) -> GradientWalk:
    r"""Measures the log-norm of the back-propagated gradient at every layer of a model that has a kernel.

    For every example, `delta_d` is the gradient of that example's loss with respect to the
    pre-activations of layer d, by the back end's automatic differentiation in float64 (or, where a layer
    cannot compute in float64, in the model's own dtype). `Dense`, convolutions of every kind, `EinsumDense`
    and attention are seen at their pre-activations, a `DenseStack` layer by layer; layers of other kinds
    (recurrent, `TimeDistributed`, your own) at their output. The layers whose outputs no other kernel uses
    are output layers and not measured, unless there are no others.

    Nothing of the model changes: not its weights, nor its optimizer, seeds or compiled functions. The
    model runs once, forward and back, operation by operation.

    Args:
        model: A built Keras model of any kind.
        x: Inputs, in the structure the model takes, shape (examples, ...), finite.
        y: Targets, in the structure of the outputs. `None`: the gradient of a random direction of the
            outputs, the same direction for every example, instead of a loss's.
        loss: Keras loss or its name, or one for each output. `None`: what the model was compiled with.
        training: Whether the model runs as in training: batch normalization by the batch, and dropout.
            `delta` of an example is then part of a gradient that other examples take part in.

    Returns:
        A `GradientWalk`.

    Raises:
        ValueError: The model is not built or has no kernel, `x` is empty, not finite or does not fit the
            model, there are targets and no loss, or they do not fit it.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit import gradient_walk, model_zoo
        >>> model = model_zoo.deep_mlp(depth=50, width=100, seed=0)
        >>> walk = gradient_walk(model, np.random.default_rng(0).normal(size=(4, 784)))
        >>> walk.backward.shape, walk.verdict
        ((4, 50), 'fine')
    """
    check_model(model)
    inputs, examples = check_examples("x", x)
    check_shapes(model, inputs)
    objective = make_objective(model, y, loss, examples)
    observations, dtype = observe(model, inputs, objective, training)
    contexts, _ = trace_contexts(trace(model, inputs))
    last = {(id(p.step.operation), p.call) for p in contexts if not p.followed}
    hidden = [seen for seen in observations if seen.layer_call.step_key not in last]
    hidden = hidden or observations
    if not hidden:
        raise ValueError(
            "The model has no layer with a kernel to measure: no Dense, EinsumDense, convolutional or "
            f"recurrent layer, and no weight called `kernel`. Received: model={model.name!r}"
        )
    prediction = predict_model_walk(contexts)
    return GradientWalk(
        _names([seen.layer_call for seen in hidden]),
        np.stack([seen.backward for seen in hidden], axis=1),
        np.stack([seen.forward for seen in hidden], axis=1),
        np.array([seen.weight_gradient for seen in hidden]),
        np.array([seen.dead for seen in hidden]),
        prediction if prediction is not None and len(prediction.mean) == len(hidden) else None,
        dtype,
    )


def _names(layer_calls: Sequence[LayerCall]) -> tuple[str, ...]:
    """A name a site, by the layer's path where layers of different models share one."""
    plain = Counter(layer_call.name for layer_call in layer_calls)
    return tuple(
        layer_call.name if plain[layer_call.name] == 1 else layer_call.full_name for layer_call in layer_calls
    )
