"""The search space around the analytic optimum, for any of keras-tuner's tuners."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_rwinit.models.model_zoo import count_parameters, deep_mlp
from keras_tuner.errors import FailedTrialError

from keras_rwinit._checks import check_count, check_positive, check_seed
from keras_rwinit._keras.activations import theory_activation
from keras_rwinit.theory import gain as computed_gain
from keras_rwinit.theory.distributions import resolve_distribution
from keras_rwinit.training.loop import compile_classifier

from ._forecast import TrialForecast, UntrainableTrialError, forecast_trial
from ._space import Axis, Point, axis, center, check_budget, check_learning_rate, deepest, widths_within

__all__ = ["DeepMLPHyperModel", "DivergedTrialError"]


class DivergedTrialError(FailedTrialError):
    """A trial whose loss left the finite numbers."""


class DeepMLPHyperModel(keras_tuner.HyperModel):
    r"""`deep_mlp` as a keras-tuner hypermodel whose default values are the analytic optimum.

    Its hyperparameters are `gain_ratio`, which multiplies the gain that `keras_rwinit.gain` computes for the
    trial's own activation, width and depth, and `width`; others join them where a range or a choice is
    given. Every argument below down to `optimizer` takes a number or name (fixed), a tuple `(low, high)` (a
    range; spaced by logarithms but for `width` and `depth`) or a list (a choice).

    The defaults are gain ratios of 1 and, of the rest, what keeps the predicted walk narrowest: the widest
    and shallowest network. keras-tuner's GridSearch starts there by itself, and so does `tuning.search`.

    Args:
        input_shape: Shape of one input.
        classes: Number of classes.
        gain_ratio: Gain of the hidden kernels over the analytic one, above 0; must contain 1.
        width: Units of every hidden layer.
        depth: Number of hidden layers.
        activation: Of the hidden layers, a name.
        distribution: Of the kernels.
        input_gain_ratio: Gain of the first kernel over that of the other hidden ones; must contain 1.
        output_gain_ratio: Gain of the classifier's kernel over that of a linear layer; must contain 1.
        learning_rate: Of the optimizer. `None`: 0.03 / depth, at most 0.001.
        optimizer: Keras optimizer id.
        max_parameters: Budget of weights and biases. Given a fixed depth it limits `width`; given a
            range of depths, `width` alone is a hyperparameter and the depth is the largest that fits, as in
            comparisons at a fixed number of parameters.
        same_parameters_as: The budget as a pair (depth, width) or a built model, in place of a number.
        dtype: Dtype or dtype policy of the layers. `None`: Keras's global policy.
        seed: Of every network built. `None` draws anew, so that `executions_per_trial` differ.
        name: Of the hypermodel.
        tunable: See `keras_tuner.HyperModel`; `tuning.search` takes no space that is not tunable.

    Raises:
        ValueError: An argument is wrong, a range is empty, or no width fits the budget.

    Example:
        >>> import keras_tuner
        >>> from keras_rwinit import tuning
        >>> space = tuning.DeepMLPHyperModel((64,), depth=(10, 400), same_parameters_as=(100, 64))
        >>> hp = keras_tuner.HyperParameters()
        >>> hp.Fixed("width", 100)
        100
        >>> space.point(hp).depth, space.build(hp).count_params() <= 418_634
        (41, True)
        >>> sorted(hp.values.items())
        [('gain_ratio', 1.0), ('width', 100)]

    References:
        Sussillo & Abbott, arXiv:1412.6558, section 4, compares depths at a fixed number of parameters.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (784,),
        classes: int = 10,
        *,
        gain_ratio: Any = (0.8, 1.25),
        width: Any = (16, 128),
        depth: Any = 100,
        activation: Any = "relu",
        distribution: Any = "normal",
        input_gain_ratio: Any = 1.0,
        output_gain_ratio: Any = 1.0,
        learning_rate: Any = None,
        optimizer: Any = "adam",
        max_parameters: int | None = None,
        same_parameters_as: Any = None,
        dtype: str | None = None,
        seed: int | None = None,
        name: str | None = None,
        tunable: bool = True,
    ) -> None:
        super().__init__(name, tunable)
        if not isinstance(input_shape, Sequence) or isinstance(input_shape, str) or not input_shape:
            raise ValueError(
                f"`input_shape` must be a tuple of sizes, as in (784,). Received: {input_shape!r}"
            )
        self.input_shape = tuple(check_count("input_shape", size) for size in input_shape)
        self.classes, self.seed = check_count("classes", classes), check_seed(seed)
        try:
            self.dtype = None if dtype is None else str(keras.dtype_policies.get(dtype).name)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`dtype` must be a dtype or a policy such as 'mixed_bfloat16'. Received: {dtype!r}"
            ) from error
        inputs = math.prod(self.input_shape)
        self.budget = check_budget(max_parameters, same_parameters_as, inputs, self.classes)
        self.depth = axis("depth", depth, check_count, min)
        self.width = axis("width", width, check_count, max)
        if self.budget is not None:
            if self.depth.kind == "choice":
                raise ValueError(
                    "On a budget the depth follows from the width: give `depth` as a number or a range "
                    f"(low, high). Received: depth={depth!r}"
                )
            self.width = widths_within(self.width, self.depth, inputs, self.classes, self.budget)
        ratios = {
            "gain_ratio": gain_ratio,
            "input_gain_ratio": input_gain_ratio,
            "output_gain_ratio": output_gain_ratio,
        }
        self.others: dict[str, Axis] = {
            name: axis(name, given, check_positive, lambda values: 1.0) for name, given in ratios.items()
        }
        names = {
            "activation": (activation, _check_activation),
            "distribution": (distribution, _check_distribution),
            "optimizer": (optimizer, _check_optimizer),
        }
        self.others |= {
            name: axis(name, given, check, lambda values: values[0]) for name, (given, check) in names.items()
        }
        self.others["learning_rate"] = axis("learning_rate", learning_rate, check_learning_rate, center)

    @property
    def tuned(self) -> list[str]:
        """Names of the hyperparameters that are not fixed."""
        axes = [self.others["gain_ratio"], self.width]
        axes += [] if self.budget is not None else [self.depth]
        axes += [item for name, item in self.others.items() if name != "gain_ratio"]
        return [item.name for item in axes if item.kind != "fixed"]

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Registers all hyperparameters, without building a network."""
        self.point(hp)

    def point(self, hp: keras_tuner.HyperParameters) -> Point:
        """The point of the space that the values in `hp` describe."""
        values = {"gain_ratio": self.others["gain_ratio"].value(hp, always=True)}
        values["width"] = self.width.value(hp, always=True)
        if self.budget is None or self.depth.kind == "fixed":
            values["depth"] = self.depth.value(hp)
        else:
            values["depth"] = deepest(values["width"], math.prod(self.input_shape), self.classes, self.budget)
        values |= {name: item.value(hp) for name, item in self.others.items() if name != "gain_ratio"}
        if values["learning_rate"] is None:
            values["learning_rate"] = min(0.03 / max(values["depth"], 1), 1e-3)
        return Point(**values)

    def parameters(self, point: Point) -> int:
        """Weights and biases of the network at a point."""
        return count_parameters(point.depth, point.width, math.prod(self.input_shape), self.classes)

    def forecast(self, point: Point) -> TrialForecast:
        """What theory says of a point, its reason set if the point cannot work; builds nothing."""
        if self.budget is not None and (point.depth < 1 or self.parameters(point) > self.budget):
            reason = f"width {point.width:,} exceeds the budget of {self.budget:,} parameters"
            return TrialForecast(math.nan, math.nan, math.nan, reason)
        try:
            return forecast_trial(point, self.dtype)
        except ValueError as error:  # no gain exists there
            return TrialForecast(math.nan, math.nan, math.nan, str(error))

    def build(self, hp: keras_tuner.HyperParameters, seed: int | None = None) -> keras.Model:
        """The network at the values of `hp`, compiled.

        Raises:
            UntrainableTrialError: (a FailedTrialError and ValueError) Theory rules the point out. Nothing
                is built.
        """
        point = self.point(hp)
        forecast = self.forecast(point)
        if forecast.reason is not None:
            raise UntrainableTrialError(forecast.reason)
        linear = computed_gain("linear", point.width, None, point.distribution)
        model = deep_mlp(
            point.depth,
            point.width,
            point.activation,
            input_shape=self.input_shape,
            classes=self.classes,
            distribution=point.distribution,
            gain=forecast.gain,
            input_gain=forecast.gain * point.input_gain_ratio,
            output_gain=linear * point.output_gain_ratio,
            seed=self.seed if seed is None else seed,
            dtype=self.dtype,
        )
        return compile_classifier(model, point.optimizer, point.learning_rate)

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """`model.fit`, ended as soon as the loss is not finite.

        Raises:
            DivergedTrialError: (a FailedTrialError) It was not: what it reached before does not count.
        """
        callbacks = [*(kwargs.pop("callbacks", None) or []), _StopWhenDiverged()]
        history = model.fit(*args, callbacks=callbacks, **kwargs)
        for name, values in history.history.items():
            if not np.all(np.isfinite(values)):
                epoch = history.epoch[int(np.argmin(np.isfinite(values)))] + 1
                raise DivergedTrialError(f"diverged: {name} is not finite in epoch {epoch}")
        return history

    def get_config(self) -> dict[str, Any]:
        """Arguments that make an equal space, ready for JSON but for tuples."""
        return {
            "input_shape": self.input_shape,
            "classes": self.classes,
            "width": self.width.given,
            "depth": self.depth.given,
            **{name: item.given for name, item in self.others.items()},
            "max_parameters": self.budget,
            "dtype": self.dtype,
            "seed": self.seed,
        }

    def describe(self, values: dict[str, Any]) -> dict[str, Any]:
        """Point, prognosis and number of parameters at keras-tuner's `values`."""
        hp = keras_tuner.HyperParameters()
        hp.values = dict(values)
        point = self.point(hp)
        return {
            **dataclasses.asdict(point),
            **dataclasses.asdict(self.forecast(point)),
            "parameters": self.parameters(point),
        }


class _StopWhenDiverged(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True


def _check_activation(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be a name, as in 'tanh'. Received: {value!r}")
    theory_activation(value)
    try:
        keras.activations.get(value)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be one of Keras's, such as relu, tanh, elu or selu. Received: {value!r}"
        ) from error
    return value


def _check_distribution(name: str, value: Any) -> str:
    resolve_distribution(value)
    return str(value)


def _check_optimizer(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be a name, as in 'adam'. Received: {value!r}")
    try:
        keras.optimizers.get(value)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be one of Keras's, such as adam, sgd, rmsprop or lion. Received: {value!r}"
        ) from error
    return str(value)
