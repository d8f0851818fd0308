"""`DeepSequential`: a `keras.Sequential` of any number of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_rwinit._keras.layer_kinds import LayerKind, register_layer_kind
from keras_rwinit._keras.types import Tensor

__all__ = ["DeepSequential"]


@keras.saving.register_keras_serializable(package="keras_rwinit")
class DeepSequential(keras.Model):
    """Applies any number of layers one after another.

    `keras.Sequential` and functional models recurse once per layer while they are built, and raise
    RecursionError at about a thousand layers. `DeepSequential` loops over its layers instead. Its constructor
    builds it, its `layers` are the layers it was given, and it saves, loads and trains like any model.

    Args:
        layers: Layers in order, at least one, each once. Each has one input and one output.
        input_shape: Shape of one input, without the batch.
        name: Name of the model.
        **kwargs: Other arguments of `keras.Model`, such as `dtype` and `trainable`.

    Raises:
        ValueError: `layers` is empty, holds something else than layers, or holds a layer twice.

    Example:
        >>> import keras, keras_rwinit
        >>> model = keras_rwinit.layers.DeepSequential(
        ...     [keras.layers.Dense(8) for _ in range(200)], input_shape=(8,)
        ... )
        >>> len(model.layers), model.count_params()
        (200, 14400)
    """

    def __init__(
        self,
        layers: Sequence[keras.layers.Layer],
        input_shape: Sequence[int | None],
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if not layers:
            raise ValueError("DeepSequential needs at least one layer. Received: layers=[]")
        for layer in layers:
            if not isinstance(layer, keras.layers.Layer):
                raise ValueError(f"`layers` must be Keras layers. Received: {layer!r}")
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError(
                "`layers` must hold each layer once, since a model counts and saves a layer once. Build a "
                f"functional model to apply a layer again. Received: {[layer.name for layer in layers[:9]]}"
            )
        self.chain = list(layers)
        self.build((None, *input_shape))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if getattr(self, "built", False):
            return
        self._input_shape = tuple(input_shape)
        for layer in self.chain:
            if not layer.built:
                layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
            # Keras builds an activation layer where its layer is called first, which may be inside a trace.
            activation = getattr(layer, "activation", None)
            if isinstance(activation, keras.layers.Layer) and not activation.built:
                activation.build(input_shape)
        self.built: bool = True

    def call(self, inputs: Tensor) -> Tensor:
        for layer in self.chain:
            inputs = layer(inputs)
        return inputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        for layer in self.chain:
            input_shape = layer.compute_output_shape(input_shape)
        return tuple(input_shape)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the input, the batch (None) included."""
        return self._input_shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Shape of the output, the batch (None) included."""
        return self.compute_output_shape(self._input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            "layers": [keras.saving.serialize_keras_object(layer) for layer in self.chain],
            "input_shape": self._input_shape[1:],
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> DeepSequential:
        layers = [
            keras.saving.deserialize_keras_object(layer, custom_objects=custom_objects)
            for layer in config["layers"]
        ]
        return cls(**{**config, "layers": layers})


register_layer_kind(DeepSequential, LayerKind(chained="chain"))

# Keras's legacy HDF5 files name a model's class without its package.
keras.saving.get_custom_objects()["DeepSequential"] = DeepSequential
