"""Builds the chains of layers that `deep_mlp` and `deep_autoencoder` consist of."""

from __future__ import annotations

import keras

from keras_rwinit._keras.activations import own_activation
from keras_rwinit._keras.seeding import layer_initializers
from keras_rwinit._keras.types import ActivationLike, Initializer
from keras_rwinit.layers import DeepSequential, DenseStack

from ._arguments import DType

__all__ = ["ChainBuilder"]


class ChainBuilder:
    """Collects layers that follow one another, all of one dtype, and makes a model of them.

    Args:
        input_shape: Shape of one input; a Flatten layer comes first if it has more than one axis.
        dtype: Dtype or dtype policy of the layers.
    """

    def __init__(self, input_shape: tuple[int, ...], dtype: DType) -> None:
        self.input_shape, self.dtype = input_shape, dtype
        self.layers: list[keras.layers.Layer] = []
        if len(input_shape) > 1:
            self.layers.append(keras.layers.Flatten(name="flatten", dtype=dtype))

    def add_dense(
        self,
        name: str,
        units: int,
        activation: ActivationLike,
        kernel_initializer: Initializer,
        bias_initializer: Initializer | str = "zeros",
    ) -> None:
        """Adds a Dense layer, with its own copy of an activation that has weights."""
        self.layers.append(
            keras.layers.Dense(
                units,
                own_activation(activation),
                kernel_initializer=kernel_initializer,
                bias_initializer=bias_initializer,
                dtype=self.dtype,
                name=name,
            )
        )

    def add_dense_layers(
        self,
        first: int,
        count: int,
        units: int,
        activation: ActivationLike,
        kernel_initializer: Initializer,
        bias_initializer: Initializer,
    ) -> None:
        """Adds `count` Dense layers, named from `hidden_<first>` on, with the weights of a stack of them."""
        # DenseStack draws its layers from the same initializers.
        kernels = layer_initializers(kernel_initializer, count)
        biases = layer_initializers(bias_initializer, count)
        for number, (kernel, bias) in enumerate(zip(kernels, biases, strict=True), start=first):
            self.add_dense(f"hidden_{number}", units, activation, kernel, bias)

    def add_stack(
        self,
        name: str,
        depth: int,
        activation: ActivationLike,
        kernel_initializer: Initializer,
        bias_initializer: Initializer | str = "zeros",
        remat: int | str | None = None,
    ) -> None:
        """Adds a DenseStack, or nothing if `depth` is 0."""
        if depth:
            self.layers.append(
                DenseStack(
                    depth,
                    activation,
                    kernel_initializer=kernel_initializer,
                    bias_initializer=bias_initializer,
                    remat=remat,
                    dtype=self.dtype,
                    name=name,
                )
            )

    def functional(self, name: str) -> keras.Model:
        """Returns a functional model of the layers."""
        inputs = outputs = keras.Input(self.input_shape, name="inputs")
        for layer in self.layers:
            outputs = layer(outputs)
        return keras.Model(inputs, outputs, name=name)

    def sequential(self, name: str) -> DeepSequential:
        """Returns a `DeepSequential` of the layers; Keras's own models recurse through theirs."""
        return DeepSequential(self.layers, self.input_shape, name=name)
