"""The search space around the analytic optimum, for any of keras-tuner's tuners."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.errors import FailedTrialError

from keras_rwinit._checks import check_count, check_input_shape, check_positive, check_seed
from keras_rwinit._keras.names import check_activation_name, check_optimizer_name
from keras_rwinit.models import model_zoo
from keras_rwinit.theory.distributions import resolve_distribution

from ._axes import (
    Axis,
    Domain,
    HyperparameterValue,
    first_value,
    geometric_mean,
    make_search_axis,
)
from ._budget import check_budget, largest_depth, widths_within
from ._forecast import TrialForecast, forecast_trial
from ._losses import check_loss
from ._network import compile_network, draw_network
from ._point import Point

__all__ = ["DeepMLPHyperModel", "DivergedTrialError"]


class DivergedTrialError(FailedTrialError):
    """A trial whose loss left the finite numbers.

    `DeepMLPHyperModel.fit` raises it. A keras-tuner tuner then marks the trial as failed and goes on.

    Example:
        >>> import keras_tuner, numpy as np
        >>> from keras_rwinit import tuning
        >>> space = tuning.DeepMLPHyperModel(
        ...     (4,), depth=1, width=4, activation="linear", optimizer="sgd", learning_rate=1e30, seed=0
        ... )
        >>> hp = keras_tuner.HyperParameters()
        >>> model = space.build(hp)
        >>> model.run_eagerly = True  # compiling takes longer than these steps
        >>> try:
        ...     space.fit(hp, model, np.ones((2, 4)), np.zeros(2), epochs=3, verbose=0)
        ... except tuning.DivergedTrialError as error:
        ...     print(error)
        diverged: loss is not finite in epoch 2
    """


class DeepMLPHyperModel(keras_tuner.HyperModel):
    r"""`deep_mlp` as a keras-tuner hypermodel whose default values are the analytic optimum.

    At gain ratios of 1 its networks are those of `model_zoo.deep_mlp`, weight by weight. The hyperparameters
    are `gain_ratio`, which multiplies the gain that `keras_rwinit.gain` computes for the trial's own
    activation, width and depth, and `width`. Others are added where a range or a choice is given. Every
    argument from `gain_ratio` to `optimizer` takes a number or name (fixed), a tuple `(low, high)` (a range,
    sampled on a log scale except for `width` and `depth`) or a list (a choice).

    A gain ratio r tilts the walk of the gradient by `ln r` nats a layer. With `"looks_linear"` kernels,
    which the default draws for ReLU, the network is linear at first and the walk has no spread: there r
    also multiplies the length of the signal at each layer.

    The default gain ratios are 1. The default width and depth are the widest and the shallowest, which keep
    the predicted walk narrowest. keras-tuner's GridSearch starts there by itself, and so does
    `tuning.search`.

    Args:
        input_shape: Shape of one input.
        classes: Number of classes; with a `loss`, of targets that the network predicts.
        gain_ratio: Gain of the hidden kernels over the analytic one, above 0; must contain 1.
        width: Units of every hidden layer.
        depth: Number of hidden layers.
        activation: Activation of the hidden layers: a name that `keras_rwinit.gain` takes. `"shaped(gelu)"`
            and the like are shaped for each trial's own depth.
        distribution: Distribution of the kernels. `None`: the one that `deep_mlp` takes for the activation,
            with which networks train at any depth.
        input_gain_ratio: Gain of the first kernel over the one that `deep_mlp` gives it, which is that of the
            other hidden kernels, or 1 with `"looks_linear"`; must contain 1.
        output_gain_ratio: Gain of the classifier's kernel over the one that `deep_mlp` gives it; must contain
            1.
        learning_rate: Learning rate of the optimizer. `None`: `1.92 / (depth width)`, at most 0.001, for each
            trial's own depth and width; see `model_zoo.learning_rate`.
        optimizer: Keras optimizer id.
        max_parameters: Largest number of weights and biases. With a fixed depth it limits `width`. With a
            range of depths, only `width` is a hyperparameter and the depth is the largest that fits, as in
            comparisons at a fixed number of parameters.
        same_parameters_as: A pair (depth, width) or a built model whose number of parameters is the
            largest, in place of `max_parameters`.
        loss: Loss of a regression by its Keras name, such as `"mse"`. `None`: the crossentropy of labels,
            with accuracy as a metric.
        dtype: Dtype or dtype policy of the layers. `None`: Keras's global policy.
        seed: Random seed of every network built. `None`: a new one for each, so that the networks of
            `executions_per_trial` differ.
        name: Name of the hypermodel.
        tunable: See `keras_tuner.HyperModel`. `tuning.search` requires True.

    Raises:
        ValueError: An argument is wrong, a range is empty, or no width fits the budget.

    Example:
        >>> import keras_tuner
        >>> from keras_rwinit import tuning
        >>> space = tuning.DeepMLPHyperModel(
        ...     (64,), width=(16, 128), depth=(10, 400), same_parameters_as=(100, 64)
        ... )
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
        gain_ratio: Domain[float] = (0.8, 1.25),
        width: Domain[int] = (16, 64),
        depth: Domain[int] = 100,
        activation: Domain[str] = "relu",
        distribution: Domain[str] | None = None,
        input_gain_ratio: Domain[float] = 1.0,
        output_gain_ratio: Domain[float] = 1.0,
        learning_rate: Domain[float] | None = None,
        optimizer: Domain[str] = "adam",
        max_parameters: int | None = None,
        same_parameters_as: tuple[int, int] | keras.Model | None = None,
        loss: str | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        seed: int | None = None,
        name: str | None = None,
        tunable: bool = True,
    ) -> None:
        super().__init__(name, tunable)
        self.input_shape = check_input_shape(input_shape)
        self.classes, self.seed = check_count("classes", classes), check_seed(seed)
        self.loss, self.dtype = check_loss(loss), _check_dtype(dtype)

        # Size: width and depth, which a budget may tie to each other
        inputs = math.prod(self.input_shape)
        self.budget = check_budget(max_parameters, same_parameters_as, inputs, self.classes)
        self.depth = make_search_axis("depth", depth, check_count, min)
        self.width = make_search_axis("width", width, check_count, max)
        if self.budget is not None:
            if self.depth.kind == "choice":
                raise ValueError(
                    "With `max_parameters` or `same_parameters_as`, the depth follows from the width: give "
                    f"`depth` as a number or a range (low, high). Received: depth={depth!r}"
                )
            self.width = widths_within(self.width, self.depth, inputs, self.classes, self.budget)

        # Gains, names and the learning rate
        self.gain_ratio = _ratio_axis("gain_ratio", gain_ratio)
        self.input_gain_ratio = _ratio_axis("input_gain_ratio", input_gain_ratio)
        self.output_gain_ratio = _ratio_axis("output_gain_ratio", output_gain_ratio)
        self.activation = _name_axis("activation", activation, self._check_activation)
        self.distribution = _distribution_axis(distribution)
        self.optimizer = _name_axis("optimizer", optimizer, check_optimizer_name)
        self.learning_rate = _learning_rate_axis(learning_rate)
        # Width at whose learning rate all trials train. `None`: each at that of its own width.
        self.rate_width: int | None = None

    def _check_activation(self, name: str, argument: str) -> str:
        return check_activation_name(name, argument, depth=self.depth.default)

    @property
    def _axes(self) -> list[Axis[Any]]:
        """The axes in the order in which `point` declares them."""
        return [
            self.gain_ratio,
            self.width,
            self.depth,
            self.input_gain_ratio,
            self.output_gain_ratio,
            self.activation,
            self.distribution,
            self.optimizer,
            self.learning_rate,
        ]

    @property
    def tuned(self) -> list[str]:
        """Names of the hyperparameters that are not fixed."""
        follows = "depth" if self.budget is not None else None
        return [axis.name for axis in self._axes if axis.kind != "fixed" and axis.name != follows]

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Registers all hyperparameters, without building a network."""
        self.point(hp)

    def point(self, hp: keras_tuner.HyperParameters) -> Point:
        """Returns the point of the space at the values in `hp`; registers what `hp` does not have yet."""
        # A search's random numbers go to the hyperparameters in this order: it is part of what a seed means.
        gain_ratio = self.gain_ratio.declare(hp, always=True)
        width = self.width.declare(hp, always=True)
        if self.budget is None or self.depth.kind == "fixed":
            depth = self.depth.declare(hp)
        else:
            depth = largest_depth(width, math.prod(self.input_shape), self.classes, self.budget)
        input_gain_ratio = self.input_gain_ratio.declare(hp)
        output_gain_ratio = self.output_gain_ratio.declare(hp)
        activation = self.activation.declare(hp)
        distribution = self.distribution.declare(hp)
        optimizer = self.optimizer.declare(hp)
        learning_rate = self.learning_rate.declare(hp)
        if learning_rate is None:
            # A trial is short: it trains at the rate with which a decaying schedule starts.
            learning_rate = model_zoo.learning_rate(max(depth, 1), self.rate_width or width, decays=True)
        return Point(
            gain_ratio=gain_ratio,
            width=width,
            depth=depth,
            activation=activation,
            distribution=distribution,
            input_gain_ratio=input_gain_ratio,
            output_gain_ratio=output_gain_ratio,
            learning_rate=learning_rate,
            optimizer=optimizer,
        )

    def parameters(self, point: Point) -> int:
        """Returns the number of weights and biases of the network at a point, of one layer at least."""
        # A depth of 0 says that not even one layer of this width fits the budget.
        depth = max(point.depth, 1)
        return model_zoo.count_parameters(depth, point.width, math.prod(self.input_shape), self.classes)

    def forecast(self, point: Point) -> TrialForecast:
        """Returns what theory predicts at a point, and why the point cannot work if so; builds nothing."""
        if self.budget is not None and (point.depth < 1 or self.parameters(point) > self.budget):
            reason = f"width {point.width:,} exceeds the budget of {self.budget:,} parameters"
            return TrialForecast(math.nan, math.nan, math.nan, reason)
        try:
            return forecast_trial(point, self.dtype)
        except ValueError as error:  # the activation has no gain at this width and depth
            return TrialForecast(math.nan, math.nan, math.nan, str(error))

    def build(self, hp: keras_tuner.HyperParameters, seed: int | None = None) -> keras.Model:
        """Returns the network at the values of `hp`, compiled.

        Raises:
            UntrainableTrialError: (a FailedTrialError and ValueError) Theory rules the point out. Nothing
                is built.
        """
        point = self.point(hp)
        return compile_network(self, point, draw_network(self, point, seed))

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Calls `model.fit`, and ends it as soon as the loss is not finite.

        Raises:
            DivergedTrialError: (a FailedTrialError) The loss or a metric was not finite.
        """
        callbacks = [*(kwargs.pop("callbacks", None) or []), _StopWhenDiverged()]
        history = model.fit(*args, callbacks=callbacks, **kwargs)
        for name, values in history.history.items():
            finite = np.isfinite(values)
            if not finite.all():
                epoch = history.epoch[int(np.argmin(finite))] + 1
                raise DivergedTrialError(f"diverged: {name} is not finite in epoch {epoch}")
        return history

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments to rebuild this space, as JSON values and tuples."""
        return {
            "input_shape": self.input_shape,
            "classes": self.classes,
            **{axis.name: axis.domain for axis in self._axes},
            "max_parameters": self.budget,
            "loss": self.loss,
            "dtype": self.dtype,
            "seed": self.seed,
        }

    def describe(self, values: Mapping[str, HyperparameterValue]) -> dict[str, Any]:
        """Returns point, forecast and number of parameters at keras-tuner's `values`."""
        hp = keras_tuner.HyperParameters()
        hp.values = dict(values)
        point = self.point(hp)
        return {
            **dataclasses.asdict(point),
            **dataclasses.asdict(self.forecast(point)),
            "parameters": self.parameters(point),
        }


class _StopWhenDiverged(keras.callbacks.Callback):
    """Ends training as soon as Keras reports a loss that is not finite."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True


def _check_dtype(dtype: str | keras.DTypePolicy | None) -> str | None:
    """Returns the name of a dtype policy, which settings can keep."""
    try:
        return None if dtype is None else str(keras.dtype_policies.get(dtype).name)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`dtype` must be a dtype or a policy such as 'mixed_bfloat16'. Received: {dtype!r}"
        ) from error


def _ratio_axis(name: str, domain: Domain[float]) -> Axis[float]:
    return make_search_axis(name, domain, check_positive, lambda values: 1.0)


def _name_axis(name: str, domain: Domain[str], check: Callable[[str, str], str]) -> Axis[str]:
    return make_search_axis(name, domain, lambda argument, value: check(value, argument), first_value)


def _distribution_axis(domain: Domain[str] | None) -> Axis[Any]:
    if domain is None:
        return Axis("distribution", "fixed", (None,), None)
    return _name_axis("distribution", domain, _check_distribution)


def _learning_rate_axis(domain: Domain[float] | None) -> Axis[Any]:
    if domain is None:
        return Axis("learning_rate", "fixed", (None,), None)
    choose_default = geometric_mean if isinstance(domain, tuple) else first_value
    return make_search_axis("learning_rate", domain, check_positive, choose_default)


def _check_distribution(name: str, argument: str) -> str:
    resolve_distribution(name)
    return str(name)
