"""`gradient_walk` and `initialize` on models of many kinds, against plain automatic differentiation."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, by_layer, to_numpy
from numpy.typing import NDArray
from oracle_cases import OUTPUT, TINY, Case, Problem, Size
from oracle_gradients import Oracle, Tap
from oracle_models import CASES
from state_helpers import assert_unchanged, snapshot

from keras_rwinit import gradient_walk, initialize

Floats = NDArray[Any]
LARGEST_SPAN = 1.5  # nats


def build(case: Case, size: Size, seed: int = 1) -> Problem:
    keras.utils.set_random_seed(seed)
    return case.build(size)


def build_plain(case: Case, size: Size, model: keras.Model) -> Problem:
    """The network that the oracle runs, with the weights of `model`."""
    plain = build(case, size._replace(plain=True))
    copy_weights(case, model, plain.model)
    return plain


def copy_weights(case: Case, model: keras.Model, plain: keras.Model) -> None:
    plain.set_weights(model.get_weights() if case.names else by_layer(model))


def randomize(model: keras.Model) -> None:
    """Gives biases, scales and adapters other values than their first ones."""
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        value = to_numpy(variable)
        if value.ndim < 2 or not value.any():
            variable.assign(value + 0.2 * rng.normal(size=value.shape))


ELSEWHERE = {"gradient": ("masked tokens", "subclassed, casts by the back end")}


def parameters(test: str, names: Collection[str], by_default: Collection[str]) -> list[Any]:
    def marks(name: str) -> Iterator[pytest.MarkDecorator]:
        # On the other back ends each of them takes seconds to compile.
        if name not in (by_default if BACKEND == "tensorflow" else ELSEWHERE.get(test, ())):
            yield pytest.mark.slow
            yield pytest.mark.exhaustive
        if CASES[name].backends:
            yield pytest.mark.backends
        if test in CASES[name].fails:
            yield pytest.mark.xfail(strict=True, reason=CASES[name].fails[test])

    return [pytest.param(name, id=name, marks=list(marks(name))) for name in names]


SPLIT = ("dense and PReLU", "batch normalization in training", "group normalization, residual")
BY_DEFAULT = [name for name, case in CASES.items() if case.default]
CHAINS = [name for name, case in CASES.items() if not case.no_chain]


@pytest.mark.parametrize("name", parameters("gradient", CASES, BY_DEFAULT))
def test_the_gradient_is_that_of_keras(name: str) -> None:
    case = CASES[name]
    problem = build(case, TINY)
    if case.randomize:
        randomize(problem.model)
    before = snapshot(problem.model)
    walk = gradient_walk(
        problem.model, problem.x, problem.y, sample_weight=problem.sample_weight, training=case.training
    )
    assert_unchanged(before, snapshot(problem.model))
    taps = Oracle(build_plain(case, TINY, problem.model), training=case.training).run()
    assert len(walk.layer_names) == len(taps) >= 3
    if case.names:
        found = [re.sub(r"#\d+", "", one).split("/")[-1] for one in walk.layer_names]
        assert found == [tap.name for tap in taps]
    for found, part in ((walk.backward, "delta"), (walk.forward, "outputs")):
        expected = [tap.norms(getattr(tap, part), problem.examples) for tap in taps]
        np.testing.assert_allclose(np.exp(found), np.stack(expected, 1), rtol=1e-5, atol=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the oracle of one back end is enough")
@pytest.mark.parametrize(
    "name",
    ["SwiGLU blocks", *(pytest.param(name, marks=pytest.mark.slow) for name in SPLIT)],
)
def test_the_oracle_agrees_with_a_model_split_at_its_layers(name: str) -> None:
    """The gradient at the outputs of linear layers needs no taps."""
    import tensorflow as tf

    case = CASES[name]
    problem = build(case, TINY)
    randomize(problem.model)
    taps = Oracle(build_plain(case, TINY, problem.model), training=case.training).run()
    model, x, y, sample_weight = problem.tensors()
    layers = [layer for layer in model.layers if hasattr(layer, "kernel") and layer.name != OUTPUT]
    split = keras.Model(model.inputs, [[layer.output for layer in layers], model.output])
    with tf.GradientTape() as tape:
        hidden, outputs = split(x, training=case.training)
        loss = model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight)
    deltas = dict(zip([layer.name for layer in layers], tape.gradient(loss, hidden), strict=True))
    for tap in taps:
        np.testing.assert_allclose(
            tap.delta / problem.examples, deltas[tap.name], rtol=1e-5, atol=1e-7 * np.abs(tap.delta).max()
        )


def chains(taps: list[Tap]) -> dict[str, list[Tap]]:
    """The calls of layers whose paths differ in numbers alone, where there are three or more."""
    groups: dict[str, list[Tap]] = defaultdict(list)
    for tap in taps:
        groups[re.sub(r"\d+", "", tap.layer.path)].append(tap)
    return {name: group for name, group in groups.items() if len(group) > 2}


def spans(name: str, *, with_data: bool = False, drawn: bool = True) -> dict[str, tuple[float, float]]:
    """The range over each chain of `ln RMS` and of `ln|delta|`, means over networks and examples, in nats."""
    case = CASES[name]
    signals: dict[str, list[Floats]] = defaultdict(list)
    gradients: dict[str, list[Floats]] = defaultdict(list)
    problem = build(case, case.wide)
    plain = build_plain(case, case.wide, problem.model)
    oracle = Oracle(plain, training=case.training)
    before = snapshot(problem.model)
    # The calibration removes what one network differs from another by.
    for seed in range(min(case.seeds, 2) if with_data else case.seeds):
        if drawn:
            initialize(problem.model, problem.x if with_data else None, seed=seed)
        copy_weights(case, problem.model, plain.model)
        for chain, calls in chains(oracle.run()).items():
            signals[chain].append(np.log([tap.rms() for tap in calls]))
            norms = np.stack([tap.norms(tap.delta, problem.examples) for tap in calls])
            with np.errstate(divide="ignore"):
                logs = np.log(norms)
            gradients[chain].append(np.where(np.isfinite(logs), logs, np.nan))
    kernels = {f"value {v.path} {n}" for n, v in enumerate(problem.model.variables) if len(v.shape) > 1}
    after = snapshot(problem.model)
    assert_unchanged(*({key: part[key] for key in part.keys() - kernels} for part in (before, after)))
    return {
        chain: (
            float(np.ptp(np.mean(signals[chain], axis=0))),
            float(np.ptp(np.nanmean(np.concatenate(gradients[chain], axis=1), axis=1))),
        )
        for chain in signals
    }


@pytest.mark.parametrize("name", parameters("theory", CHAINS, ("dense, tanh", "masked tokens", "DenseStack")))
def test_initialize_keeps_signal_and_gradient(name: str) -> None:
    found = spans(name)
    assert found
    assert max(max(pair) for pair in found.values()) < LARGEST_SPAN, found


@pytest.mark.parametrize("name", parameters("data", CHAINS, ("subclassed, casts by the back end",)))
def test_calibration_keeps_signal_and_gradient(name: str) -> None:
    found = spans(name, with_data=True)
    assert found
    assert max(max(pair) for pair in found.values()) < LARGEST_SPAN, found


def test_kernels_of_keras_do_not_keep_them() -> None:
    """Relu halves the variance at each layer, which glorot_uniform does not make up for."""
    ((signal, gradient),) = spans("dense, relu", drawn=False).values()
    assert signal > LARGEST_SPAN
    assert gradient > LARGEST_SPAN
