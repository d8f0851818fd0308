"""Measures a model at every kernel, in the dtype and in the way of execution that show the most."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from keras_rwinit._keras.execution import double_precision, uncompiled
from keras_rwinit._keras.types import ArrayTree
from keras_rwinit._tracing.calls import observe
from keras_rwinit._tracing.kernels import kernels_of, matrices_of, skip_reason
from keras_rwinit._tracing.trace import trace

from .measurements import LayerMeasurement
from .objective import Objective
from .probe import Probe
from .targets import ObjectiveError

__all__ = ["ModelMeasurement", "measure_layers", "warn_unseen"]

_NOT_CALLED = "was not called: the model does without it here, or a function that was traced before holds it"
_UNNAMED = "has several matrices: call the one that is the kernel `self.kernel`, or use a layer for each"
_FLOAT32_RANGE = 70.0  # nats; the smallest normal number is at -87, and entries are smaller than norms
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class ModelMeasurement:
    """What was measured at the layers of a model.

    Args:
        layers: The measurements in the order of the calls.
        dtype: Dtype of the computation.
        unseen: Paths of the layers with a call that could not be measured, and why.
    """

    layers: list[LayerMeasurement]
    dtype: str
    unseen: dict[str, str]


def warn_unseen(measurement: ModelMeasurement, stacklevel: int = 2) -> None:
    """Warns, once for all of them, of the layers that could not be measured."""
    reasons = sorted(set(measurement.unseen.values()))
    for_each = [
        f"{', '.join(path for path, reason in measurement.unseen.items() if reason == one)} ({one})"
        for one in reasons
    ]
    if for_each:
        warnings.warn(
            f"Some layers could not be measured, and the rest is: {'; '.join(for_each)}.",
            stacklevel=stacklevel + 1,
        )


def measure_layers(
    model: keras.Model, inputs: ArrayTree, objective: Objective, *, training: bool = False
) -> ModelMeasurement:
    """Runs `model` on `inputs`, differentiates `objective` of its outputs, and measures every layer call.

    It computes in float32, or in float64 if the model does, so that models of low precision are measured
    without their rounding; again in float64 if a norm comes near the ends of float32. A model with a
    layer that can compute in neither runs as it is. Norms are summed in float64. Nothing is compiled or
    rematerialized, and no variable changes. Other threads may use the model meanwhile; on JAX they may call
    it, but not train, evaluate or predict.

    Args:
        model: A built model.
        inputs: NumPy arrays in the structure of the model's inputs.
        objective: A sum over examples of something of the model's outputs.
        training: Whether the model runs as in training.

    Raises:
        ObjectiveError: (a ValueError) The objective cannot be computed of the outputs.
        ValueError: The inputs leave the range of the dtype inside the model.
        RuntimeError: On JAX, another thread has the weights; see `observe`.
    """

    def run(dtype: str | None) -> ModelMeasurement:
        with double_precision() if dtype == "float64" else contextlib.nullcontext():
            measured = _run_inline_if_needed(model, inputs, objective, training, dtype)
            return replace(measured, unseen={**_find_unnamed(model), **measured.unseen})

    with observe(model):
        dtypes = {str(variable.dtype) for variable in model.trainable_variables}
        own_dtype = "float64" if "float64" in dtypes else str(model.compute_dtype)
        # Quantized kernels are integers, which no other dtype makes more precise.
        if any(getattr(layer.dtype_policy, "quantization_mode", None) for layer in model._flatten_layers()):
            return run(None)
        largest = _largest(inputs)
        dtype = "float64" if own_dtype == "float64" or largest > _FLOAT32_MAX else "float32"
        try:
            measurement = run(dtype)
        except ObjectiveError:
            raise
        except Exception as error:  # of a layer's own code, which may insist on its own dtype
            if own_dtype == dtype:
                raise
            try:
                measurement = run(None)
            except Exception:
                raise error from None
        if dtype == "float32" and any(_is_near_the_ends(one) for one in measurement.layers):
            # A layer that knows no float64 keeps the float32 measurement.
            with contextlib.suppress(Exception):
                measurement = run("float64")
        if largest > _FLOAT32_MAX and not all(np.isfinite(one.forward).all() for one in measurement.layers):
            raise ValueError(
                "`x` must be small enough for the signals to stay within the range of the model's dtype. "
                f"Received: values up to {largest:.3g}; scale them, for example to unit variance."
            )
        return measurement


def _largest(inputs: ArrayTree) -> float:
    arrays = (array for array in keras.tree.flatten(inputs) if array is not None)
    return max((float(np.abs(array).max()) for array in arrays if array.dtype.kind == "f"), default=0.0)


def _is_near_the_ends(measurement: LayerMeasurement) -> bool:
    """Returns whether float32 may have lost a norm; the exact zero of a dead unit (-inf) is no loss."""
    values = np.concatenate([measurement.forward, measurement.backward])
    return bool((np.abs(values[values > -np.inf]) > _FLOAT32_RANGE).any())


def _run_inline_if_needed(
    model: keras.Model, inputs: ArrayTree, objective: Objective, training: bool, dtype: str | None
) -> ModelMeasurement:
    """Measures, and on JAX once more operation by operation if compiled functions hide layers."""

    def run(inline: bool) -> ModelMeasurement:
        with uncompiled(inline=inline):
            probe = Probe(model, inputs, objective, training, dtype)
            layers = probe.measure()
            unseen = {**_find_missing(model, inputs, probe.not_called), **probe.unseen}
            return ModelMeasurement(layers, dtype or str(model.compute_dtype), unseen)

    if keras.backend.backend() != "jax":
        return run(False)
    try:
        first = run(False)
    except ObjectiveError:
        raise
    except Exception as error:
        # What runs in a loop or a compiled function may not be differentiable there.
        try:
            return run(True)
        except Exception:
            raise error from None
    if first.unseen:
        with contextlib.suppress(Exception):
            return run(True)
    return first


def _find_unnamed(model: keras.Model) -> dict[str, str]:
    """Returns the paths of layers with several matrices of which none is known to be the kernel, and why."""
    layers = model._flatten_layers()
    skipped = {id(inner) for layer in layers if skip_reason(layer) for inner in layer._flatten_layers()}
    return {
        layer.path: _UNNAMED
        for layer in layers
        if id(layer) not in skipped and not kernels_of(layer) and len(matrices_of(layer)) > 1
    }


def _find_missing(
    model: keras.Model, inputs: ArrayTree, not_called: Sequence[keras.layers.Layer]
) -> dict[str, str]:
    """Returns the paths of layers that were not called although the model seems to apply them, and why."""
    if not not_called:
        return {}
    missing = {id(layer): layer for layer in not_called}
    # A wrapper stands for the layer that it wraps.
    missing |= {id(kernel.layer): layer for layer in not_called for kernel in kernels_of(layer)}
    steps = (step for step in trace(model, inputs).steps if id(step.operation) in missing)
    return {missing[id(step.operation)].path: _NOT_CALLED for step in steps}
