"""How alike examples are in a measured walk, the verdicts on it, repeated kernels and `assert_healthy`."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import to_numpy

from keras_rwinit import GradientWalk, gradient_walk, model_zoo
from keras_rwinit._probing.pairs import MOST_RANKED, centered_ranks, gram_matrices, mean_correlations
from keras_rwinit.diagnostics import WalkCorrelation
from keras_rwinit.theory.correlation import predict_correlation
from keras_rwinit.theory.ranks import effective_rank

L = keras.layers
backends = pytest.mark.backends  # the gradients are the back end's

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 8))


def log_norms(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.linalg.norm(vectors.astype(float), axis=1)))


def mean_cosine(vectors: np.ndarray) -> float:
    """Pair by pair."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float(np.mean([a @ b for a, b in itertools.combinations(unit, 2)]))


def measure(vectors: np.ndarray) -> tuple[float, float]:
    norms = log_norms(vectors)[None]
    (correlation,), (rank,) = (
        mean_correlations(vectors[None], norms),
        centered_ranks(gram_matrices(vectors[None], norms)),
    )
    return float(correlation), float(rank)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("features", [3, 70_000])
def test_correlation_and_rank_of_a_batch(scale: float, features: int) -> None:
    vectors = np.random.default_rng(1).normal(0.5, 1.0, size=(6, features)).astype(np.float32)
    correlation, rank = measure(vectors * np.float32(scale))
    exact = vectors.astype(float)
    assert correlation == pytest.approx(mean_cosine(exact), abs=1e-6)
    assert rank == pytest.approx(effective_rank(exact - exact.mean(axis=0)), rel=1e-4)


def test_rows_without_direction_are_left_out() -> None:
    vectors = RNG.normal(size=(5, 4))
    with_others = np.concatenate([vectors[:2], np.zeros((1, 4)), vectors[2:], np.full((1, 4), np.inf)])
    # Singular values that are zero come out of a Gram matrix as 1e-8.
    assert measure(with_others) == pytest.approx(measure(vectors), rel=1e-6)
    assert np.isnan(measure(np.zeros((3, 4)))).all()
    assert np.isnan(measure(vectors[:1])).all()
    # Equal rows differ in no direction.
    correlation, rank = measure(np.ones((3, 4)))
    assert correlation == pytest.approx(1.0)
    assert np.isnan(rank)


def test_layers_are_measured_each_for_itself() -> None:
    """Of three layers, the second has a dead example and the third no other."""
    layers = np.random.default_rng(2).normal(size=(3, 5, 4)).astype(np.float32)
    layers[1, 2] = 0.0
    layers[2, 1:] = 0.0
    norms = np.array([log_norms(layer) for layer in layers])
    correlations, ranks = mean_correlations(layers, norms), centered_ranks(gram_matrices(layers, norms))
    for layer, correlation, rank in zip(layers, correlations, ranks, strict=True):
        assert (correlation, rank) == pytest.approx(measure(layer), nan_ok=True)
    assert correlations[1] == pytest.approx(mean_cosine(layers[1, [0, 1, 3, 4]].astype(float)), abs=1e-6)
    assert np.isnan(correlations[2])


def test_the_rank_is_of_examples_from_all_of_a_large_batch() -> None:
    """Sorted by class, as a test set may be: the first ones differ in one direction alone."""
    vectors = np.concatenate([np.outer(np.arange(1.0, 41.0), np.eye(4)[0]), RNG.normal(size=(40, 4))])
    gram = gram_matrices(vectors[None], log_norms(vectors)[None])
    assert gram.shape == (1, MOST_RANKED, MOST_RANKED)
    assert measure(vectors)[1] > 1.5


@backends
def test_correlations_are_those_of_the_activations_and_gradients() -> None:
    """Against the chain rule in NumPy."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), L.Dense(6, "relu"), L.Dense(5, "relu"), L.Dense(3)])
    y = RNG.normal(size=(12, 3))
    walk = gradient_walk(model, X, y, "mse")
    kernels = [to_numpy(layer.kernel).astype(float) for layer in model.layers]
    first = np.maximum(X @ kernels[0], 0.0)
    second = np.maximum(first @ kernels[1], 0.0)
    delta = (second > 0.0) * ((second @ kernels[2] - y) @ kernels[2].T)
    deltas = [(first > 0.0) * (delta @ kernels[1].T), delta]
    found = walk.correlation
    assert found is not None
    assert found.inputs == pytest.approx(mean_cosine(X), abs=1e-6)
    assert found.inputs_rank == pytest.approx(effective_rank(X - X.mean(axis=0)), rel=1e-6)
    alive = [h[np.linalg.norm(h, axis=1) > 0.0] for h in (first, second)]
    np.testing.assert_allclose(found.forward, [mean_cosine(h) for h in alive], atol=1e-5)
    ranks = [effective_rank(h - h.mean(axis=0)) for h in alive]
    np.testing.assert_allclose(found.effective_rank, ranks, rtol=1e-4)
    alive = [d[np.linalg.norm(d, axis=1) > 0.0] for d in deltas]
    np.testing.assert_allclose(found.backward, [mean_cosine(d) for d in alive], atol=1e-5)


@backends
def test_gradients_of_a_linear_network_are_parallel() -> None:
    """With one direction of the outputs for all examples, and with that of a single output."""
    model = keras.Sequential([keras.Input((8,)), L.Dense(6), L.Dense(5), L.Dense(1)])
    correlation = gradient_walk(model, X).correlation
    assert correlation is not None
    np.testing.assert_allclose(correlation.backward, 1.0, atol=1e-6)


def test_relu_chains_bring_the_prediction() -> None:
    model = model_zoo.deep_mlp(30, 64, "relu", distribution="normal", input_shape=(8,), seed=1)
    walk = gradient_walk(model, X)
    found = walk.correlation
    assert found is not None
    assert found.prediction is not None
    expected = predict_correlation("relu", 64, 30, correlation=found.inputs)
    np.testing.assert_allclose(found.prediction.mean, expected.mean, atol=1e-12)
    # The mean over the pairs of one network spreads less than a single pair.
    assert (np.abs(found.forward - expected.mean) < 4.0 * expected.std).all()
    assert found.prediction.gain == walk.prediction.gain  # type: ignore[union-attr]
    assert f"predicted {expected.mean[-1]:.4f} ± {expected.std[-1]:.4f}" in walk.summary()


def walk_of(forward: float, rank: float, inputs: float = 0.0, inputs_rank: float = 20.0) -> GradientWalk:
    """A level walk of ten layers, whose last five are as given."""
    layers = 10
    late = np.arange(layers) >= 5
    correlation = WalkCorrelation(
        np.where(late, forward, 0.5), np.zeros(layers), np.where(late, rank, 15.0), inputs, inputs_rank
    )
    names = tuple(f"h{layer}" for layer in range(1, layers + 1))
    level = np.zeros((4, layers))
    return GradientWalk(names, level, level, level[0], level[0], correlation=correlation)


COLLAPSED = "inputs collapsed from h6 (layer 6 of 10) on"
ALIKE = "inputs alike from h6 (layer 6 of 10) on"


@pytest.mark.parametrize(
    ("alike", "verdict"),
    [
        ((0.995, 1.5), COLLAPSED),
        ((0.995, np.nan), COLLAPSED),  # they do not differ by what float32 tells
        ((0.985, 1.5), ALIKE),  # not yet parallel
        ((0.995, 8.0), ALIKE),  # parallel, with most directions left
        ((0.96, 10.0), ALIKE),
        ((0.96, 11.0), "fine"),
        ((0.94, 1.5), "fine"),
        ((0.985, 1.5, 0.96, 20.0), "fine"),  # the inputs were alike
        ((0.999999, 14.0), "fine"),  # sigmoid layers: a large mean, and all differences left
        ((0.995, 1.5, 0.992, 20.0), "fine"),  # and these parallel
        ((0.995, 1.0, 0.5, 1.0), "fine"),  # and of one dimension
        ((0.995, 1.5, np.nan, np.nan), "fine"),  # a single example
    ],
)
def test_the_verdict_on_inputs_that_become_alike(alike: tuple[float, ...], verdict: str) -> None:
    walk = walk_of(*alike)
    assert walk.verdict == verdict
    assert walk.advice.startswith("Training may start slowly") == (verdict == ALIKE)
    assert dataclasses.replace(walk, trained=True).verdict == "fine"


def test_a_faulty_gradient_comes_first() -> None:
    walk = walk_of(0.999, 1.2)
    vanishing = np.broadcast_to(np.linspace(-20.0, 0.0, 10), (4, 10))
    faulty = dataclasses.replace(walk, backward=vanishing, first_backward=vanishing)
    assert faulty.verdict.startswith("vanishing from")
    assert "initialize(model, x)" in faulty.advice


def test_assert_healthy_says_what_where_and_what_to_try() -> None:
    walk_of(0.9, 10.0).assert_healthy()
    assert walk_of(0.9, 10.0).advice == ""
    walk = walk_of(0.995, 1.5)
    with pytest.raises(
        AssertionError, match=r"inputs collapsed from h6 \(layer 6 of 10\) on.\nThe activation shaped for"
    ):
        walk.assert_healthy()
    assert "The verdict is about the start of training" in (text := walk.summary())
    assert f"Try: {walk.advice}" in text
    assert "about the start of training" not in dataclasses.replace(walk, trained=True).summary()
    dead = dataclasses.replace(walk, backward=np.full((4, 10), -np.inf), first_backward=None, waits=None)
    with pytest.raises(
        AssertionError, match=r"dead from h10 .* on.\nUse an activation that always has a slope"
    ):
        dead.assert_healthy()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"activation": "relu", "distribution": "normal"}, "inputs collapsed"),
        pytest.param({"activation": "relu", "distribution": "looks_linear"}, "fine", marks=pytest.mark.slow),
        pytest.param({"activation": "tanh", "distribution": "orthogonal"}, "fine", marks=pytest.mark.slow),
        pytest.param(
            {"activation": "shaped(relu, depth=200)", "distribution": "orthogonal"},
            "fine",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_deep_networks_are_judged_by_their_two_inputs(options: dict[str, str], word: str) -> None:
    """At width 32; of 128 the ReLU network has a correlation of 0.999 too."""
    model = model_zoo.deep_mlp(200, 32, **options, input_shape=(8,), seed=0)
    walk = gradient_walk(model, X)
    assert walk.verdict.startswith(word)
    assert (word == "fine") == (not walk.advice)


@pytest.mark.slow
def test_a_relu_network_of_200_layers_of_width_128_is_not_fine() -> None:
    model = model_zoo.deep_mlp(200, 128, "relu", distribution="normal", seed=0)
    walk = gradient_walk(model, np.random.default_rng(0).normal(size=(32, 784)))
    assert walk.verdict.startswith("inputs collapsed from hidden_stack[")


def chain(initializer: Any, *middle: Any) -> keras.Model:
    layers = [L.Dense(8, "relu", kernel_initializer=initializer, name=f"d{number}") for number in range(4)]
    return keras.Sequential([keras.Input((8,)), *layers, *middle, L.Dense(2)])


def copy_kernel(source: Any, target: Any) -> None:
    target.kernel.assign(source.kernel)


@backends
def test_kernels_that_repeat() -> None:
    """Keras gives a seeded initializer's kernel to every layer that it is passed to."""
    model = chain("he_normal")
    assert not gradient_walk(model, X).repeats.any()
    for layer in model.layers[1:4]:
        copy_kernel(model.layers[0], layer)
    walk = gradient_walk(model, X)
    np.testing.assert_array_equal(walk.repeats, [False, True, True, True])
    assert "kernels repeat at 3 of 4 layers, the first is d1 (layer 2 of 4)" in walk.verdict
    with pytest.raises(AssertionError, match="Give each layer an initializer of its own"):
        walk.assert_healthy()


def test_kernels_that_repeat_in_a_stack() -> None:
    model = model_zoo.deep_mlp(6, 8, "tanh", input_shape=(8,), seed=0)
    stack = model.get_layer("hidden_stack")
    values = to_numpy(stack.kernel).copy()
    values[3] = values[1]
    stack.kernel.assign(values)
    np.testing.assert_array_equal(np.flatnonzero(gradient_walk(model, X).repeats), [4])


def test_kernels_that_may_repeat() -> None:
    """Identities, a layer that is called twice, and two towers that start alike."""
    inputs = keras.Input((8,))
    shared = L.Dense(8, "relu")
    twice = keras.Model(inputs, L.Dense(2)(shared(shared(inputs))))
    left, right = L.Dense(8, "relu"), L.Dense(8, "relu")
    towers = keras.Model(inputs, L.Dense(2)(L.Add()([left(inputs), right(inputs)])))
    copy_kernel(left, right)
    for model in (chain("identity"), twice, towers):
        assert not gradient_walk(model, X).repeats.any()


def test_files_keep_what_is_known_of_pairs(tmp_path: Path) -> None:
    walk = gradient_walk(model_zoo.deep_mlp(6, 16, "relu", input_shape=(8,), seed=0), X)
    walk = dataclasses.replace(walk, repeats=np.arange(6) == 2)
    walk.save(tmp_path / "walk.json")
    again = GradientWalk.load(tmp_path / "walk.json")
    assert again.to_dict() == walk.to_dict()
    assert again.correlation is not None
    assert again.correlation.prediction is not None
    assert again.verdict == walk.verdict
    assert again.repeats.dtype == bool
    assert not again.trained
    dataclasses.replace(walk, trained=True).save(tmp_path / "trained.json")
    assert GradientWalk.load(tmp_path / "trained.json").trained
    single = gradient_walk(chain("he_normal"), X[:1])
    single.save(tmp_path / "single.json")
    assert "correlation of examples" not in GradientWalk.load(tmp_path / "single.json").summary()


def test_a_walk_of_an_earlier_version_has_no_correlation() -> None:
    path = Path(__file__).parents[1] / "compatibility/files/walks/with_prediction.json"
    walk = GradientWalk.load(path)
    assert walk.correlation is None
    assert not walk.repeats.any()
    assert not walk.trained
    assert "cos h" not in walk.summary()
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="measure it again"):
        walk.plot(correlation=True)


def test_parts_that_do_not_fit_together_are_refused() -> None:
    three = np.zeros(3)
    with pytest.raises(ValueError, match=r"`forward` and `backward` must have one number for each layer"):
        WalkCorrelation(three, np.zeros(2), three, 0.0, 1.0)
    with pytest.raises(ValueError, match="`correlation` must have 10 layers. Received: 3"):
        dataclasses.replace(walk_of(0.5, 3.0), correlation=WalkCorrelation(three, three, three, 0.0, 1.0))
