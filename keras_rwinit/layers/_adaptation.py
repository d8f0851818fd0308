"""`AdaptableStack`: the kernels of a stack of Dense layers, their low-rank updates and their quantization."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_rwinit._checks import check_count, check_positive
from keras_rwinit._keras.stacked import mark_stacked
from keras_rwinit._keras.types import Initializer, Tensor

from ._drawing import StackedInitializer
from ._per_layer import PerLayerConstraint, PerLayerRegularizer
from ._scanned_dense import ScannedDense

__all__ = ["DENSE_ARGUMENTS", "AdaptableStack", "make_dense"]

DENSE_ARGUMENTS = (
    "activation",
    "use_bias",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "bias_constraint",
    "dtype",
    "trainable",
)
"""Arguments with which a Dense layer and a stack of such layers are made the same; kernels aside."""


class AdaptableStack(keras.layers.Layer):
    """The part of `DenseStack` that holds the kernels and changes their form.

    Args:
        lora_rank, lora_alpha, quantization_config: As for `DenseStack`.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    depth: int
    use_bias: bool
    kernel_initializer: Initializer
    kernel_regularizer: keras.regularizers.Regularizer | None
    kernel_constraint: keras.constraints.Constraint | None

    def __init__(
        self, lora_rank: int | None, lora_alpha: float | None, quantization_config: Any, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.lora_rank = None if lora_rank is None else check_count("lora_rank", lora_rank)
        self.lora_alpha = lora_rank if lora_alpha is None else check_positive("lora_alpha", lora_alpha)
        self.lora_enabled = False
        self.quantization_config = quantization_config
        self._units: int | None = None
        self._scanned: ScannedDense | None = None

    @property
    def kernel(self) -> Any:
        """The kernels, of shape (depth, units, units); with LoRA the sum of both terms, a tensor."""
        if self.lora_rank is None or not self.lora_enabled or self.quantization_mode:
            return getattr(self, "_kernel", None)
        update = keras.ops.matmul(self.lora_kernel_a, self.lora_kernel_b)
        scale = (self.lora_alpha or self.lora_rank) / self.lora_rank
        return keras.ops.add(self._kernel, scale * update)

    @property
    def units(self) -> int | None:
        """Width of the layers; None before `build`."""
        return self._units

    def _add_kernels(self) -> None:
        """Adds the kernels in the form that the dtype policy asks for."""
        if self.quantization_mode:
            self._is_quantized = True
            self._add_quantized_weights(make_dense(self, f"{self.name}_layer"))
        else:
            shape = (self._units, self._units)
            self._kernel = self._add_stacked(
                "kernel", shape, self.kernel_initializer, self.kernel_regularizer, self.kernel_constraint
            )

    def _add_stacked(
        self,
        name: str,
        shape: tuple[int | None, ...],
        initializer: Initializer,
        regularizer: keras.regularizers.Regularizer | None = None,
        constraint: keras.constraints.Constraint | None = None,
        **kwargs: Any,
    ) -> keras.Variable:
        """Adds one variable for the weights of all layers, each of a shape."""
        weight = self.add_weight(
            name=name,
            shape=(self.depth, *shape),
            initializer=StackedInitializer(initializer),
            regularizer=None if regularizer is None else PerLayerRegularizer(regularizer),
            constraint=None if constraint is None else PerLayerConstraint(constraint),
            autocast=False,  # the loop casts one layer at a time; autocast would copy the whole stack
            **kwargs,
        )
        return mark_stacked(weight)

    def _layer(self, number: int) -> keras.layers.Dense:
        """Returns one layer with a copy of its weights."""
        dense = make_dense(self, f"{self.name}_{number}")
        weights = {weight.name: weight for weight in self.weights}
        for variable in dense.variables:
            variable.assign(weights[variable.name].value[number])
        return dense

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Initializer | str = "he_uniform",
        b_initializer: Initializer | str = "zeros",
    ) -> None:
        r"""Freezes the kernels and adds a trainable update of low rank to each, as Keras's Dense does.

        Layer d computes with `W_d + (lora_alpha / rank) A_d B_d` (Hu et al., arXiv:2106.09685). A file keeps
        the kernels and the updates apart, so that training continues where it stopped.

        Args:
            rank: Rank of each update: `lora_kernel_a` has the shape (depth, units, rank), `lora_kernel_b` the
                shape (depth, rank, units).
            lora_alpha: Scale of the updates times `rank`. `None`: `rank`, a scale of 1.
            a_initializer, b_initializer: Any Keras initializers, called once per layer.

        Raises:
            ValueError: The stack is not built, has a kernel constraint or has LoRA already, or an argument is
                out of range.

        Example:
            >>> from keras_rwinit import model_zoo
            >>> model = model_zoo.deep_mlp(depth=201, width=32, input_shape=(64,))
            >>> stack = model.get_layer("hidden_stack")
            >>> stack.enable_lora(rank=4)
            >>> [tuple(w.shape) for w in stack.trainable_weights]
            [(200, 32), (200, 32, 4), (200, 4, 32)]
        """
        rank = check_count("rank", rank)
        alpha = rank if lora_alpha is None else check_positive("lora_alpha", lora_alpha)
        for is_so, reason in (
            (not self.built, "it is not built yet"),
            (self.kernel_constraint is not None, "it has a `kernel_constraint`"),
            (self.lora_enabled, "it has LoRA already, which can be enabled only once"),
        ):
            if is_so:
                raise ValueError(f"LoRA cannot be enabled on the layer {self.name!r}: {reason}.")
        self._tracker.unlock()
        self.lora_kernel_a = self._add_lora_kernel("lora_kernel_a", (self._units, rank), a_initializer)
        self.lora_kernel_b = self._add_lora_kernel("lora_kernel_b", (rank, self._units), b_initializer)
        self._kernel.trainable = False
        self._tracker.lock()
        self.lora_enabled, self.lora_rank, self.lora_alpha = True, rank, alpha
        if self.quantization_mode:
            self._scanned = ScannedDense(make_dense(self, f"{self.name}_layer"))

    def _add_lora_kernel(
        self, name: str, shape: tuple[int | None, ...], initializer: Initializer | str
    ) -> keras.Variable:
        # float32 whatever the policy, as in Dense: half precision would lose small updates.
        return self._add_stacked(
            name, shape, keras.initializers.get(initializer), self.kernel_regularizer, dtype="float32"
        )

    def _quantize_kernels(self, mode: str, config: Any) -> None:
        """Replaces the kernels by integers, each layer's as Keras's Dense does."""
        quantized: list[list[Any]] = []
        with _few_objects_to_collect():
            for number in range(self.depth):
                dense = self._layer(number)
                dense.quantize(mode, config=config)
                quantized.append([keras.ops.convert_to_numpy(variable) for variable in dense.variables])
        del self._kernel
        self._is_quantized, self.quantization_config = True, config
        self.dtype_policy = dense.dtype_policy
        self._add_quantized_weights(dense)
        weights = {weight.name: weight for weight in self.weights}
        for variable, values in zip(dense.variables, zip(*quantized, strict=True), strict=True):
            weights[variable.name].assign(np.stack(values))

    def _add_quantized_weights(self, dense: keras.layers.Dense) -> None:
        """Adds a weight for each variable of a quantized layer that the stack does not have yet."""
        self._scanned = ScannedDense(dense)
        present = {weight.name for weight in self.weights}
        for variable in dense.variables:
            if variable.name != "bias" and variable.name not in present:
                weight = self._add_stacked(
                    variable.name,
                    tuple(variable.shape),
                    keras.initializers.Zeros(),
                    dtype=variable.dtype,
                    trainable=variable.trainable,
                )
                setattr(self, "_kernel" if variable.name == "kernel" else variable.name, weight)

    def _run_quantized(self, x: Tensor) -> Tensor:
        """Returns the last layer's output for inputs of shape (batch, units)."""
        assert self._scanned is not None
        return self._scanned.run(x, self._weight_tensors())

    def _run_quantized_layer(self, index: int | Tensor, x: Tensor, **replaced: object) -> Tensor:
        """Returns the output of one layer, with other attributes in place of its own; see `ScannedDense`."""
        assert self._scanned is not None
        return self._scanned.run_layer(index, x, self._weight_tensors(), **replaced)

    def _weight_tensors(self) -> dict[str, Tensor]:
        return {weight.name: keras.ops.convert_to_tensor(weight) for weight in self.weights}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        # Absent where they do not apply, as in the files of earlier versions.
        if self.lora_rank is not None:
            config.update(lora_rank=self.lora_rank, lora_alpha=self.lora_alpha)
        if self.quantization_config is not None:
            config["quantization_config"] = keras.saving.serialize_keras_object(self.quantization_config)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> AdaptableStack:
        if isinstance(config.get("quantization_config"), dict):
            loaded = keras.saving.deserialize_keras_object(config["quantization_config"])
            config = {**config, "quantization_config": loaded}
        stack: AdaptableStack = super().from_config(config)
        return stack


_FROZEN_BY_PYTHON = 1000  # objects at most: Python 3.12 begins with some hundred


@contextlib.contextmanager
def _few_objects_to_collect() -> Iterator[None]:
    """Keeps existing objects out of the garbage collections that Dense runs as it drops its kernel."""
    # `unfreeze` would also release what the caller has frozen, as servers do before they fork.
    if gc.get_freeze_count() > _FROZEN_BY_PYTHON:
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def make_dense(
    stack: AdaptableStack, name: str, kernel_initializer: Initializer | None = None
) -> keras.layers.Dense:
    """Returns a built Dense layer with the settings of a stack's layers and weights of its own.

    It has no activity regularizer: that of a stack sees the output of the last layer only.

    Args:
        stack: A built stack.
        name: Name of the layer.
        kernel_initializer: Initializer of its kernel. `None`: that of the stack.
    """
    config = stack.get_config()
    dense = keras.layers.Dense(
        stack.units,
        name=name,
        kernel_initializer=kernel_initializer or config["kernel_initializer"],
        lora_rank=stack.lora_rank if stack.lora_enabled else None,
        lora_alpha=stack.lora_alpha if stack.lora_enabled else None,
        quantization_config=stack.quantization_config,
        **{key: config[key] for key in DENSE_ARGUMENTS},
    )
    dense.build((None, stack.units))
    dense.lora_alpha = stack.lora_alpha  # `build` sets it to the rank
    return dense
