"""`stack` and `unstack`: one network in two forms, to the last bit of its weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import (
    BACKEND,
    WIDTH,
    Array,
    X,
    as_model,
    by_layer,
    dense_layers,
    fit,
    make_stack,
    relative_error,
    run,
    stack_weights,
    to_numpy,
    weight_gradients,
    weights_of,
)

from keras_rwinit import model_zoo
from keras_rwinit.layers import DeepSequential, DenseStack

pytestmark = pytest.mark.backends
slow_on_jax = pytest.mark.slow if BACKEND == "jax" else pytest.mark.backends  # it compiles every operation
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="compiles for seconds elsewhere")

layers, regularizers, constraints = keras.layers, keras.regularizers, keras.constraints


def small_mlp(depth: int, activation: str = "tanh", **arguments: Any) -> keras.Model:
    settings: dict[str, Any] = {"width": 20, "input_shape": (WIDTH,), "classes": 3, "seed": 1}
    return model_zoo.deep_mlp(depth, activation=activation, **{**settings, **arguments})


def assert_same_weights(one: list[Array], other: list[Array]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("distribution", [pytest.param("normal", marks=slow_on_jax), "orthogonal"])
@pytest.mark.parametrize(("depth", "activation"), [(1, "relu"), (2, "tanh"), (3, "selu"), (23, "tanh")])
def test_both_forms_are_one_network(depth: int, activation: str, distribution: str) -> None:
    """Weights bit by bit, outputs to 1e-5, gradients to 1e-4."""
    stacked, plain = (
        small_mlp(depth, activation, stacked=form, distribution=distribution) for form in (True, False)
    )
    assert len(by_layer(plain)) == 2 * (depth + 1)
    for one, other in zip(by_layer(stacked), by_layer(plain), strict=True):
        np.testing.assert_array_equal(one, other)
    assert relative_error(run(stacked, X), run(plain, X)) < 1e-5
    of_stacked, of_plain = weight_gradients(stacked, X), weight_gradients(plain, X)
    # Inputs last, then the classifier's and the first layer's.
    for index in (-1, -2, -3, 0, 1):
        assert relative_error(of_stacked[index], of_plain[index]) < 1e-4
    if depth > 1:
        assert relative_error(of_stacked[2], np.stack(of_plain[2:-3:2])) < 1e-4
        assert relative_error(of_stacked[3], np.stack(of_plain[3:-3:2])) < 1e-4


@pytest.mark.slow
@tensorflow_only
def test_both_forms_are_one_network_of_two_hundred_layers() -> None:
    stacked, plain = (small_mlp(200, "relu", stacked=form) for form in (True, False))
    for one, other in zip(by_layer(stacked), by_layer(plain), strict=True):
        np.testing.assert_array_equal(one, other)
    assert relative_error(run(stacked, X), run(plain, X)) < 1e-5
    of_stacked, of_plain = weight_gradients(stacked, X), weight_gradients(plain, X)
    assert relative_error(of_stacked[0], of_plain[0]) < 1e-4
    assert relative_error(of_stacked[2], np.stack(of_plain[2:-3:2])) < 1e-4


@pytest.mark.parametrize("inputs", [WIDTH, 20], ids=["narrow", "square"])
@pytest.mark.parametrize("depth", [1, 2, 3, pytest.param(12, marks=slow_on_jax)])
def test_unstack_and_stack_again(depth: int, inputs: int) -> None:
    """There and back; a first layer as wide as the input could be of the stack, and joins it."""
    x = np.random.default_rng(2).standard_normal((4, inputs)).astype(np.float32)
    model = small_mlp(depth, input_shape=(inputs,))
    plain = model_zoo.unstack(model)
    assert isinstance(plain, DeepSequential)
    assert plain.name == model.name
    assert [layer.name for layer in plain.layers] == [
        *(f"hidden_{d + 1}" for d in range(depth)),
        "classifier",
    ]
    assert all(type(layer) is layers.Dense for layer in plain.layers)
    assert_same_weights(by_layer(plain), by_layer(model))
    assert relative_error(run(plain, x), run(model, x)) < 1e-5
    again = model_zoo.stack(plain)
    assert again.name == model.name
    assert_same_weights(by_layer(again), by_layer(model))
    assert relative_error(run(again, x), run(model, x)) < 1e-5
    stacks = [layer.depth for layer in again.layers if isinstance(layer, DenseStack)]
    longest = depth if inputs == 20 else depth - 1
    assert stacks == ([longest] if longest > 1 else [])
    assert all(kernel is not other for kernel, other in zip(again.weights, model.weights, strict=False))


def test_stacking_leaves_the_original_alone() -> None:
    model = small_mlp(4)
    before = weights_of(model)
    plain = model_zoo.unstack(model)
    plain.set_weights([0.0 * weight for weight in plain.get_weights()])
    assert_same_weights(before, weights_of(model))


def test_runs_of_several_kinds() -> None:
    """Equal neighbors become a stack each; other layers stay between them."""
    chain = DeepSequential(
        [
            layers.Dense(8, "relu"),
            *(layers.Dense(8, "relu") for _ in range(3)),
            *(layers.Dense(8, "tanh") for _ in range(2)),
            layers.Dropout(0.5),
            layers.Dense(8, "tanh"),
            *(layers.Dense(8, "tanh", use_bias=False) for _ in range(2)),
            layers.Dense(2),
        ],
        (WIDTH,),
    )
    stacked = model_zoo.stack(chain)
    kinds = [(type(layer).__name__, getattr(layer, "depth", 0)) for layer in stacked.layers[1:]]
    assert kinds == [
        ("Dense", 0),
        ("DenseStack", 3),
        ("DenseStack", 2),
        ("Dropout", 0),
        ("Dense", 0),
        ("DenseStack", 2),
        ("Dense", 0),
    ]
    assert len({layer.name for layer in stacked.layers}) == len(stacked.layers)
    assert_same_weights(by_layer(stacked), by_layer(chain))
    assert relative_error(run(stacked, X), run(chain, X)) < 1e-5
    assert_same_weights(by_layer(model_zoo.unstack(stacked)), by_layer(chain))


@pytest.mark.parametrize("wrap", [keras.Sequential, None], ids=["sequential", "functional"])
def test_models_of_keras_are_chains_too(wrap: Any) -> None:
    chain = [layers.Dense(WIDTH, "selu") for _ in range(4)]
    if wrap is None:
        inputs = outputs = keras.Input((WIDTH,))
        for layer in chain:
            outputs = layer(outputs)
        model = keras.Model(inputs, outputs)
    else:
        model = wrap([keras.Input((WIDTH,)), *chain])
    stacked = model_zoo.stack(model)
    assert [layer.name for layer in stacked.layers] == ["inputs", "hidden_stack"]
    assert relative_error(run(stacked, X), run(model, X)) < 1e-5


def test_settings_are_carried_over() -> None:
    """Regularizers, constraints, frozen weights and dtype policies, both ways."""
    stack = make_stack(
        3,
        "selu",
        kernel_regularizer=regularizers.L2(0.1),
        bias_regularizer="l1",
        kernel_constraint=constraints.MaxNorm(2.0),
        bias_constraint="non_neg",
        dtype="mixed_bfloat16",
        trainable=False,
    )
    plain = model_zoo.unstack(as_model(stack))
    settings = (
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
    again = next(layer for layer in model_zoo.stack(plain).layers if isinstance(layer, DenseStack))
    for layer in [*plain.layers, again]:
        for name in settings:
            assert layer.get_config()[name] == stack.get_config()[name], name
    assert plain.trainable_weights == again.trainable_weights == []


@tensorflow_only
def test_an_activity_regularizer_keeps_its_loss() -> None:
    """A Dense layer with one stays as it is; that of a stack goes to the last layer."""
    plain = keras.Sequential(
        [keras.Input((WIDTH,)), *(layers.Dense(WIDTH, "tanh", activity_regularizer="l2") for _ in range(2))]
    )
    for _ in range(2):
        plain.add(layers.Dense(WIDTH, "tanh"))
    stacked = model_zoo.stack(plain)
    assert [type(layer) for layer in stacked.layers[1:]] == [layers.Dense, layers.Dense, DenseStack]
    regularized = as_model(make_stack(3, "tanh", activity_regularizer=regularizers.L1(0.1)))
    for model, converted in ((plain, stacked), (regularized, model_zoo.unstack(regularized))):
        run(model, X)
        run(converted, X)
        expected = sum(float(to_numpy(loss)) for loss in model.losses)
        assert expected > 0.01
        assert sum(float(to_numpy(loss)) for loss in converted.losses) == pytest.approx(expected, rel=1e-5)


def test_what_is_no_chain() -> None:
    inputs = keras.Input((WIDTH,))
    hidden = layers.Dense(WIDTH)(inputs)
    branched = keras.Model(inputs, layers.Add()([inputs, hidden]))
    two_inputs = keras.Model([inputs, keras.Input((3,), name="unused")], hidden)
    again = layers.Dense(WIDTH)
    repeated = keras.Model(inputs, again(again(inputs)))
    for model in (branched, two_inputs, repeated):
        for convert in (model_zoo.stack, model_zoo.unstack):
            with pytest.raises(ValueError, match="must be a chain of layers.*Received: model="):
                convert(model)
    with pytest.raises(ValueError, match="no weights yet: build it or call it once"):
        model_zoo.stack(keras.Sequential([layers.Dense(3)]))


def assert_trained_alike(stack: DenseStack, plain: keras.Model) -> None:
    """The losses and weights of one epoch."""
    np.testing.assert_allclose(fit(as_model(stack)), fit(plain), rtol=1e-4)
    for one, other in zip(weights_of(stack), stack_weights(weights_of(plain), 2), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [
        pytest.param("l2", None, marks=pytest.mark.slow),
        (regularizers.L1(0.1), regularizers.L1L2(0.1, 0.2)),
        pytest.param(regularizers.OrthogonalRegularizer(0.1), None, marks=pytest.mark.slow),
        (lambda w: keras.ops.sum(keras.ops.abs(w[0])), "l2"),
    ],
    ids=["l2", "l1", "orthogonal", "function"],
)
def test_regularizers_are_summed_over_the_layers(kernel: Any, bias: Any) -> None:
    stack = make_stack(11, kernel_initializer="he_normal", kernel_regularizer=kernel, bias_regularizer=bias)
    plain = dense_layers(stack, kernel_regularizer=kernel, bias_regularizer=bias)
    assert len(stack.losses) == (1 if bias is None else 2)
    total, expected = (float(keras.ops.convert_to_numpy(sum(one.losses))) for one in (stack, plain))
    assert total > 0.01
    assert total == pytest.approx(expected, rel=1e-5)
    if BACKEND == "tensorflow":  # compiling two models takes JAX seconds
        assert_trained_alike(stack, plain)


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [
        (constraints.MaxNorm(0.5), constraints.MaxNorm(0.1)),
        ("non_neg", "non_neg"),
        pytest.param("unit_norm", None, marks=pytest.mark.slow),
        pytest.param(constraints.MinMaxNorm(0.4, 0.6, axis=1), None, marks=pytest.mark.slow),
    ],
    ids=["max_norm", "non_neg", "unit_norm", "min_max_norm"],
)
def test_constraints_act_on_every_layer(kernel: Any, bias: Any) -> None:
    """They move the weights of each layer by itself, and keep them there in training."""
    stack = make_stack(11, kernel_initializer="he_normal", kernel_constraint=kernel, bias_constraint=bias)
    plain = dense_layers(stack, kernel_constraint=kernel, bias_constraint=bias)
    for weight in [*stack.weights, *plain.weights]:
        before = to_numpy(weight)
        if weight.constraint is not None:
            weight.assign(weight.constraint(weight))
            assert np.abs(to_numpy(weight) - before).max() > 0.01
    for one, other in zip(weights_of(stack), stack_weights(weights_of(plain), 2), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    if BACKEND == "tensorflow":
        assert_trained_alike(stack, plain)
        constrained = keras.constraints.get(kernel)
        for layer in weights_of(stack)[0]:
            np.testing.assert_allclose(to_numpy(constrained(layer)), layer, atol=1e-5)
