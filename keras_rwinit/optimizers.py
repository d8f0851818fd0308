"""Optimizers that see the layers of a stack one by one: `LayerwiseClipping` and `Layerwise`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_rwinit._checks import check_fits_dtype, check_positive
from keras_rwinit._keras.stacked import is_stacked
from keras_rwinit._keras.types import Tensor
from keras_rwinit._layer_updates import LayerUpdates, OptimizerSpec

__all__ = ["Layerwise", "LayerwiseClipping"]

# What `Layerwise` does itself: it works entry by entry or on all weights at once.
_OWN_SETTINGS = (
    "weight_decay",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


@keras.saving.register_keras_serializable(package="keras_rwinit")
class LayerwiseClipping(keras.optimizers.Optimizer):
    r"""Clips the gradient of each layer's kernel and bias by its norm, then calls another optimizer.

    Scales the gradient `G` of each weight of each layer by `min(1, clipnorm / |G|)`, where `|G|` is its
    Euclidean norm, and passes it to `inner_optimizer`. This is the clipping of Pascanu et al., which Keras's
    optimizers apply to each variable. The kernels of a `DenseStack` are one variable, and the `clipnorm` of a
    Keras optimizer would scale it as a whole; here each of its layers is clipped as if it were a Dense layer.

    No other setting needs this: momentum, Adam's moments, weight decay, averages, `clipvalue` and
    `global_clipnorm` work entry by entry or on all weights at once, and do the same to a stack as to
    separate layers. Optimizers that treat a variable as a whole (Lamb, Adafactor, Muon) treat a stack as one
    weight, unless `Layerwise` is around them; both go together, `LayerwiseClipping(Layerwise("muon"))`.

    Args:
        inner_optimizer: A Keras optimizer, its name or its config, without `clipnorm`.
        clipnorm: Largest norm of a layer's gradient, above 0.
        name: Name of this optimizer.

    Raises:
        ValueError: `clipnorm` is not above 0, or, as the optimizer meets the variables, beyond the range of
            their dtype; or the inner optimizer clips by norm itself, as another LayerwiseClipping does,
            scales the loss or accumulates gradients.

    Example:
        >>> import keras, keras_rwinit
        >>> from keras_rwinit import model_zoo
        >>> model = model_zoo.deep_mlp(depth=200, width=32, input_shape=(64,))
        >>> adam = keras.optimizers.Adam(1e-4)
        >>> model.compile(keras_rwinit.optimizers.LayerwiseClipping(adam, clipnorm=1.0), "mse")

    References:
        Pascanu, Mikolov & Bengio, arXiv:1211.5063, algorithm 1.
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str | dict[str, Any],
        clipnorm: float = 1.0,
        name: str | None = None,
    ) -> None:
        # The base class's `clipnorm` would clip whole variables.
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = keras.optimizers.get(inner_optimizer)
        if self.inner_optimizer is None:
            raise ValueError("`inner_optimizer` must be a Keras optimizer or its name. Received: None")
        if isinstance(self.inner_optimizer, LayerwiseClipping) or self.inner_optimizer.clipnorm is not None:
            raise ValueError(
                "The inner optimizer clips by norm already; give it no `clipnorm`. "
                f"Received: inner_optimizer={self.inner_optimizer!r}"
            )
        if isinstance(self.inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "Gradients are clipped once their scale has been taken out: put the LossScaleOptimizer "
                f"around LayerwiseClipping. Received: inner_optimizer={self.inner_optimizer!r}"
            )
        for setting in ("gradient_accumulation_steps", "loss_scale_factor"):
            if getattr(self.inner_optimizer, setting) is not None:
                raise ValueError(
                    f"The inner optimizer's `{setting}` would be applied after clipping; leave it out. "
                    f"Received: {setting}={getattr(self.inner_optimizer, setting)!r}"
                )
        self._largest_norm = check_positive("clipnorm", clipnorm)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        for dtype in {keras.backend.standardize_dtype(variable.dtype) for variable in variables}:
            if keras.backend.is_float_dtype(dtype):
                check_fits_dtype("clipnorm", self._largest_norm, dtype)
        super().build(variables)
        self.inner_optimizer.build(variables)

    @property
    def variables(self) -> list[keras.Variable]:
        return [*self._variables, *self.inner_optimizer.variables]

    def apply(
        self, grads: Sequence[Tensor | None], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """Clips the gradients and lets the inner optimizer update the variables."""
        if trainable_variables is None and not self.built:
            raise ValueError(
                "To apply gradients without naming their variables, build the optimizer first: call "
                "`build(variables)`, or pass `trainable_variables`. Received: None"
            )
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        if not self.built:
            self.build(variables)
        # `overwrite_with_gradient` marks values that replace a variable, such as float8 scales.
        clipped = [
            gradient
            if gradient is None or getattr(variable, "overwrite_with_gradient", False)
            else _clip(gradient, self._largest_norm, is_stacked(variable))
            for gradient, variable in zip(grads, variables, strict=True)
        ]
        self.inner_optimizer.apply(clipped, variables)

    @property
    def learning_rate(self) -> Tensor | keras.optimizers.schedules.LearningRateSchedule:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float | keras.optimizers.schedules.LearningRateSchedule) -> None:
        self.inner_optimizer.learning_rate = value

    @property
    def iterations(self) -> keras.Variable:
        return self.inner_optimizer.iterations

    def scale_loss(self, loss: Tensor) -> Tensor:
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[keras.Variable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Stores the variables without the inner optimizer's, which Keras saves with that optimizer."""
        for index, variable in enumerate(self._variables):
            store[str(index)] = keras.ops.convert_to_numpy(variable)

    def load_own_variables(self, store: dict[str, Any]) -> None:
        for index, variable in enumerate(self._variables):
            variable.assign(store[str(index)])

    def get_config(self) -> dict[str, Any]:
        return {
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "clipnorm": self._largest_norm,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> LayerwiseClipping:
        inner = keras.saving.deserialize_keras_object(config["inner_optimizer"], custom_objects)
        return cls(**{**config, "inner_optimizer": inner})


def _clip(gradient: Tensor, norm: float, stacked: bool) -> Tensor:
    """Returns a gradient with a norm of at most `norm`, each layer's of a stacked one."""
    gradient = keras.ops.convert_to_tensor(gradient)
    axes = tuple(range(1 if stacked else 0, len(gradient.shape)))
    # Squares overflow from 256 on in float16, and from 1e19 in float32.
    narrow = keras.backend.standardize_dtype(gradient.dtype) in ("float16", "bfloat16")
    wide = keras.ops.cast(gradient, "float32") if narrow else gradient
    largest = keras.ops.max(keras.ops.abs(wide), axes, keepdims=True)
    largest = keras.ops.where(largest > 0.0, largest, keras.ops.ones_like(largest))
    share = keras.ops.sqrt(keras.ops.sum(keras.ops.square(wide / largest), axes, keepdims=True))
    # |G| = largest * share; min(1, norm / |G|) without the product, which may overflow in turn.
    factor = keras.ops.minimum(norm / largest / share, keras.ops.ones_like(share))
    return keras.ops.cast(wide * factor, gradient.dtype)


@keras.saving.register_keras_serializable(package="keras_rwinit")
class Layerwise(keras.optimizers.Optimizer):
    r"""Lets another optimizer update each layer of a stack as if it had a variable of its own.

    Three of Keras's optimizers look at a variable as a whole: Lamb at its norm, Adafactor at its mean square
    and its axes, Muon at its singular values and its number of axes. The kernels of a `DenseStack` are one
    variable of three axes, its biases one of two. With `Layerwise` around them, these optimizers train a
    stack as they train separate Dense layers, up to rounding. One vectorized step updates all layers.

    Keras's other optimizers (SGD, RMSprop, Adam and its kin, Adagrad, Adadelta, Ftrl, Lion) compute entry by
    entry and need no `Layerwise`.

    Args:
        inner_optimizer: A Keras optimizer, its name or its config. Its learning rate and settings become
            those of this optimizer. For `clipnorm` put `LayerwiseClipping` around `Layerwise`.
        name: Name of this optimizer.

    Raises:
        ValueError: The inner optimizer clips by norm, wraps another optimizer, or does not update its
            variables independently of each other by `update_step` alone (Nadam, ScheduleFreeAdamW).

    Example:
        >>> import keras, keras_rwinit
        >>> from keras_rwinit import model_zoo
        >>> model = model_zoo.deep_mlp(depth=200, width=32, input_shape=(64,))
        >>> muon = keras.optimizers.Muon(1e-3, exclude_layers=["classifier"])
        >>> model.compile(keras_rwinit.optimizers.Layerwise(muon), "mse")

    References:
        You et al., arXiv:1904.00962 (Lamb); Shazeer & Stern, arXiv:1804.04235 (Adafactor); Liu et al.,
        arXiv:2502.16982 (Muon).
    """

    def __init__(
        self, inner_optimizer: keras.optimizers.Optimizer | str | dict[str, Any], name: str | None = None
    ) -> None:
        inner = keras.optimizers.get(inner_optimizer)
        wrappers = (keras.optimizers.LossScaleOptimizer, LayerwiseClipping, Layerwise)
        if inner is None or isinstance(inner, wrappers):
            raise ValueError(
                "`inner_optimizer` must be a Keras optimizer or its name, and no wrapper: those go around "
                f"Layerwise. Received: inner_optimizer={inner!r}"
            )
        if inner.clipnorm is not None:
            raise ValueError(
                "The inner optimizer would clip whole variables: leave out its `clipnorm` and use "
                f"LayerwiseClipping(Layerwise(...), clipnorm=...). Received: clipnorm={inner.clipnorm!r}"
            )
        spec = OptimizerSpec.of(inner)
        super().__init__(
            learning_rate=spec.learning_rate,
            name=name,
            **{setting: getattr(inner, setting) for setting in _OWN_SETTINGS},
        )
        self._spec = spec

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        plain = [variable for variable in variables if not is_stacked(variable)]
        self._updates = LayerUpdates(self, self._spec, plain)
        for variable in variables:
            if is_stacked(variable):
                self._updates.add(self._get_variable_index(variable), variable)

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        index = self._get_variable_index(variable)
        self._updates.update(index, gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        # Muon decays what it takes for matrices at another rate.
        if not self._spec.has_own_weight_decay:
            super()._apply_weight_decay(variables)
            return
        for variable in variables:
            if self._use_weight_decay(variable):
                self._updates.decay(self._get_variable_index(variable), variable)

    def get_config(self) -> dict[str, Any]:
        learning_rate = super().get_config()["learning_rate"]
        return {"inner_optimizer": self._spec.serialize(learning_rate), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Layerwise:
        inner = keras.saving.deserialize_keras_object(config["inner_optimizer"], custom_objects)
        return cls(**{**config, "inner_optimizer": inner})
