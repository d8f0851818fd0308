"""Runs a stack as one Dense layer of Keras, which takes each layer's weights in turn."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import keras

from keras_rwinit._keras.types import Tensor

__all__ = ["ScannedDense"]


class ScannedDense:
    """A quantized Dense layer that computes with weights from outside, layer after layer.

    Keras's Dense knows how to compute with integer kernels; a loop of our own would repeat all of that. The
    object is no Keras layer, so that a layer that holds one does not count its weights as its own.

    Args:
        dense: A built Dense layer. Its own weights are not used.
    """

    def __init__(self, dense: keras.layers.Dense) -> None:
        self._dense = dense

    def run(self, x: Tensor, stacked: Mapping[str, Tensor]) -> Tensor:
        """Returns the last layer's output.

        Args:
            x: Inputs of shape (batch, units).
            stacked: The layers' weights along the first axis, by the names of the Dense layer's variables.
        """

        def layer(index: int | Tensor, h: Tensor) -> Tensor:
            return self.run_layer(index, h, stacked)

        # Keras's `scan` would stack every layer's output on TensorFlow.
        return keras.ops.fori_loop(0, stacked["kernel"].shape[0], layer, x)

    def run_layer(
        self, index: int | Tensor, x: Tensor, stacked: Mapping[str, Tensor], **replaced: object
    ) -> Tensor:
        """Returns the output of one layer.

        Args:
            index: Which layer, from 0.
            x: Its inputs, of shape (batch, units).
            stacked: The layers' weights, as for `run`.
            **replaced: Attributes of the Dense layer in place of its own, such as its `activation`.
        """
        weights = {}
        for name, values in stacked.items():
            weight = keras.ops.take(values, index, axis=0)
            is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(weight.dtype))
            weights[name] = keras.ops.cast(weight, x.dtype) if is_float else weight
        layer = _WithAttributes(self._dense, {**weights, **replaced})
        return keras.ops.cast(layer.quantized_call(x), x.dtype)


class _WithAttributes:
    """A layer with tensors for its variables, and other attributes in place of its own.

    A `StatelessScope` would not do: on TensorFlow, the gradient of a quantized kernel reads the variable, and
    the scope has ended by then.
    """

    def __init__(self, layer: keras.layers.Dense, attributes: Mapping[str, object]) -> None:
        self.__dict__.update({"_kernel" if name == "kernel" else name: v for name, v in attributes.items()})
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._layer, name)
        is_method = isinstance(value, types.MethodType) and value.__self__ is self._layer
        return types.MethodType(value.__func__, self) if is_method else value
