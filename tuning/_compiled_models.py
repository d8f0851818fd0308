"""Keeps the compiled models of earlier trials: a trial of the same shapes trains one of them anew."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import keras_tuner
import numpy as np
from numpy.typing import NDArray

from keras_rwinit.training.loop import steps_per_execution

from ._losses import metric_name
from ._network import compile_network, draw_network
from ._point import Point
from .hypermodel import DeepMLPHyperModel, DivergedTrialError
from .settings import SearchOptions

__all__ = ["CompiledModels"]

# A model of 100 layers of width 64 has 0.4 million parameters; with Adam it takes 12 bytes for each.
_MOST_MODELS = 8
_MOST_PARAMETERS = 2**23
_GARBAGE = 2**23  # parameters that wait for the garbage collector, at most


class CompiledModels:
    """Models for the trials of one search, built and compiled once for all trials of the same shapes.

    Depth, width, activation and optimizer decide what a back end compiles. Gains, distribution, learning
    rate and seed only decide values: for them, the weights and the optimizer's state of a kept model are
    assigned. Nothing else of an earlier trial remains, so that a trial gives the same score with a new model
    and with a kept one.

    The models of a subclass of `DeepMLPHyperModel`, or of a space whose `build` or `fit` was replaced, may
    have any state: each of its trials builds its own.

    Args:
        hypermodel: Space of the search.
        options: Its options.
        steps: Training steps of an epoch.
    """

    def __init__(self, hypermodel: DeepMLPHyperModel, options: SearchOptions, steps: int) -> None:
        self.hypermodel, self.options, self.steps = hypermodel, options, steps
        self.kept: dict[Point, _CompiledModel] = {}  # the one used last comes last
        self.garbage = 0

    @contextmanager
    def lend(self, hp: keras_tuner.HyperParameters, seed: int) -> Iterator[keras.Model]:
        """Lends the compiled, untrained network of a trial.

        Raises:
            UntrainableTrialError: (a FailedTrialError) Theory rules the network out. Nothing is built.
        """
        if not _is_unchanged(self.hypermodel):
            gc.collect()
            model = self.hypermodel.build(hp, seed=seed)
            metric = metric_name(self.options.objective)
            if metric not in ("loss", "accuracy"):
                # As keras-tuner's own tuners do with their `metrics`.
                model.compile(model.optimizer, model.loss, metrics=[metric])
            yield model
            return
        point = self.hypermodel.point(hp)
        shapes = _shapes(point)
        compiled = self._take(shapes, point, seed)
        try:
            yield compiled.model
        except DivergedTrialError:
            self._keep(shapes, compiled)
            raise
        except BaseException:
            # Training was cut off: on JAX the variables may have lost their values.
            self.garbage += _GARBAGE
            raise
        self._keep(shapes, compiled)

    def _take(self, shapes: Point, point: Point, seed: int) -> _CompiledModel:
        """Returns a kept model with a trial's own weights, or a new one."""
        # First, since theory may rule it out: no kept model goes for a network that is not built.
        network = draw_network(self.hypermodel, point, seed)
        if shapes not in self.kept:
            self._make_room(network.count_params())
            return _CompiledModel(self._compile(point, network))
        self._collect_garbage()
        compiled = self.kept.pop(shapes)
        compiled.reset(network, point.learning_rate)
        self.garbage += network.count_params()
        return compiled

    def _keep(self, shapes: Point, compiled: _CompiledModel) -> None:
        if compiled.is_resettable:
            self.kept[shapes] = compiled
        else:
            self.garbage += _GARBAGE

    def _compile(self, point: Point, network: keras.Model) -> keras.Model:
        """Compiles a trial's network, with the metric that the search compares, and returns it."""
        model = compile_network(self.hypermodel, point, network)
        metric = metric_name(self.options.objective)
        metrics = ["accuracy"] if self.hypermodel.loss is None else []
        if metric not in ("loss", "accuracy"):
            metrics = [metric]
        at_once = 1
        # Not on TensorFlow, which would warn of retracing: few calls would train each of many networks.
        if keras.backend.backend() == "jax":
            at_once = steps_per_execution(model, self.options.batch_size, self.steps)
        model.compile(model.optimizer, model.loss, metrics=metrics, steps_per_execution=at_once)
        return model

    def _make_room(self, parameters: int) -> None:
        """Drops the models used longest ago, until one of `parameters` parameters fits beside the others."""
        while self.kept and (
            len(self.kept) >= _MOST_MODELS
            or parameters + sum(kept.parameters for kept in self.kept.values()) > _MOST_PARAMETERS
        ):
            del self.kept[next(iter(self.kept))]
            self.garbage += _GARBAGE
        self._collect_garbage()

    def _collect_garbage(self) -> None:
        """Frees networks that are no longer used, whose layers refer to each other.

        Not `keras.utils.clear_session`, which also resets the caller's Keras: policy, traceback filtering,
        logging and custom object scopes.
        """
        # Not at every trial: it takes as long as several of TensorFlow's epochs of a small network.
        if self.garbage >= _GARBAGE:
            gc.collect()
            self.garbage = 0


class _CompiledModel:
    """A compiled model, and the state of its optimizer before the first step."""

    def __init__(self, model: keras.Model) -> None:
        self.model, self.parameters = model, model.count_params()
        if not model.optimizer.built:  # the one that scales the loss, which Keras builds at the first step
            model.optimizer.build(model.trainable_variables)
        self.initial = [_InitialValue(variable) for variable in model.optimizer.variables]

    @property
    def is_resettable(self) -> bool:
        """Whether all of the state can be reset: an optimizer of Keras's own has none but its variables."""
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        return type(inner).__module__.startswith("keras.") and len(optimizer.variables) == len(self.initial)

    def reset(self, network: keras.Model, learning_rate: float) -> None:
        """Gives the model the weights of an untrained network, and the optimizer its first state."""
        for variable, drawn in zip(self.model.variables, network.variables, strict=True):
            variable.assign(drawn)
        optimizer = self.model.optimizer
        for variable, initial in zip(optimizer.variables, self.initial, strict=True):
            variable.assign(initial.array())
        # A variable too, so that nothing is compiled again.
        optimizer.learning_rate = learning_rate


class _InitialValue:
    """The value of a variable before training; one number if all entries are equal, as in most optimizers."""

    def __init__(self, variable: keras.Variable) -> None:
        array: NDArray[np.generic] = keras.ops.convert_to_numpy(variable)
        self.shape = array.shape
        constant = array.size > 0 and bool((array == array.flat[0]).all())
        self.value = np.copy(array.flat[0] if constant else array)

    def array(self) -> NDArray[np.generic]:
        """Returns the value, as an array of its own."""
        return np.array(np.broadcast_to(self.value, self.shape))


def _shapes(point: Point) -> Point:
    """Returns what a compiled model depends on: a point without what only decides values."""
    return dataclasses.replace(
        point,
        gain_ratio=1.0,
        distribution=None,
        input_gain_ratio=1.0,
        output_gain_ratio=1.0,
        learning_rate=1.0,
    )


def _is_unchanged(hypermodel: DeepMLPHyperModel) -> bool:
    """Returns whether a space builds and trains its networks as `DeepMLPHyperModel` does."""
    build, fit = (getattr(method, "__func__", None) for method in (hypermodel.build, hypermodel.fit))
    # keras-tuner wraps `build` in each instance.
    wrapped = getattr(keras_tuner.HyperModel, "_build_wrapper", None)
    return (
        type(hypermodel) is DeepMLPHyperModel
        and build in (DeepMLPHyperModel.build, wrapped)
        and fit is DeepMLPHyperModel.fit
    )
