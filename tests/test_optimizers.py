"""Optimizers do to a stack what they do to separate layers; `LayerwiseClipping` clips it as those."""

from __future__ import annotations

import zipfile
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras_helpers import (
    BACKEND,
    EAGERLY,
    SLOW_ON_JAX,
    WIDTH,
    X,
    Y,
    as_model,
    dense_layers,
    make_stack,
    slow_on_jax,
    stack_weights,
    to_numpy,
    weights_of,
)

from keras_rwinit._keras.stacked import mark_stacked
from keras_rwinit.optimizers import Layerwise, LayerwiseClipping

pytestmark = pytest.mark.backends

CLIPNORM = 0.02  # between the gradients of the layers of this network
DEPTH = 3


def train(model: keras.Model, optimizer: Any, epochs: int = 2) -> list[Any]:
    """Trains and returns the weights."""
    model.compile(optimizer, "mse", jit_compile=BACKEND == "jax", **EAGERLY)
    model.fit(X, Y, epochs=epochs, batch_size=3, shuffle=False, verbose=0)
    return weights_of(model)


def assert_same(stacked: list[Any], separate: list[Any]) -> None:
    for one, other in zip(stacked, stack_weights(separate, 2), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        pytest.param(lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1), marks=SLOW_ON_JAX),
        pytest.param(lambda: keras.optimizers.Adam(1e-2, global_clipnorm=0.05), marks=SLOW_ON_JAX),
        pytest.param(
            lambda: keras.optimizers.Adam(1e-2, use_ema=True, gradient_accumulation_steps=2),
            marks=SLOW_ON_JAX,
        ),
        *(
            pytest.param(optimizer, marks=pytest.mark.slow)
            for optimizer in (
                lambda: keras.optimizers.Adam(1e-2),
                lambda: keras.optimizers.RMSprop(1e-2),
                lambda: keras.optimizers.Lion(1e-2),
                lambda: keras.optimizers.Adam(1e-2, clipvalue=1e-3),
            )
        ),
    ],
)
def test_a_stack_is_updated_as_separate_layers_are(optimizer: Any) -> None:
    stack = make_stack(DEPTH)
    plain = dense_layers(stack)
    before = weights_of(stack)
    after = train(as_model(stack), optimizer())
    assert_same(after, train(plain, optimizer()))
    assert np.abs(after[0] - before[0]).max() > 1e-3


@pytest.mark.parametrize("inner", ["sgd", pytest.param("adam", marks=SLOW_ON_JAX)])
def test_layers_are_clipped_as_separate_layers_are(inner: str) -> None:
    """Keras clips a variable at a time, which for separate layers is a layer at a time."""
    stack = make_stack(DEPTH)
    plain = dense_layers(stack)
    separate = train(
        plain, type(keras.optimizers.get(inner))(0.5 if inner == "sgd" else 1e-2, clipnorm=CLIPNORM)
    )
    inner_optimizer = type(keras.optimizers.get(inner))(0.5 if inner == "sgd" else 1e-2)
    assert_same(train(as_model(stack), LayerwiseClipping(inner_optimizer, CLIPNORM)), separate)


@slow_on_jax
def test_a_stack_clipped_as_one_variable_differs() -> None:
    """The twin: with the `clipnorm` of Keras the stack is scaled as a whole."""
    stack = make_stack(DEPTH)
    plain = dense_layers(stack)
    separate = train(plain, keras.optimizers.SGD(0.5, clipnorm=CLIPNORM))
    with pytest.raises(AssertionError):
        assert_same(train(as_model(stack), keras.optimizers.SGD(0.5, clipnorm=CLIPNORM)), separate)


def test_what_it_is_made_of_is_kept() -> None:
    optimizer = LayerwiseClipping(keras.optimizers.Adam(3e-3, beta_1=0.8), 0.7)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert twin.get_config() == optimizer.get_config()
    assert twin.inner_optimizer.beta_1 == 0.8
    optimizer.learning_rate = 0.25
    assert float(to_numpy(optimizer.inner_optimizer.learning_rate)) == 0.25


@pytest.mark.slow
def test_a_saved_model_goes_on_with_its_moments(tmp_path: Any) -> None:
    def build() -> keras.Model:
        model = as_model(make_stack(DEPTH))
        model.compile(LayerwiseClipping("adam", CLIPNORM), "mse", jit_compile=BACKEND == "jax")
        return model

    model = build()
    model.fit(X, Y, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with h5py.File(zipfile.ZipFile(tmp_path / "model.keras").open("model.weights.h5")) as file:
        sizes: list[int] = []
        file["optimizer"].visititems(
            lambda name, entry: sizes.append(entry.size) if hasattr(entry, "size") else None
        )
    assert max(sizes) == DEPTH * WIDTH**2
    assert sizes.count(DEPTH * WIDTH**2) == 2  # the moments of the kernel, once
    losses = [m.fit(X, Y, epochs=2, shuffle=False, verbose=0).history["loss"] for m in (model, loaded)]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert int(to_numpy(loaded.optimizer.iterations)) == 4


@slow_on_jax
@pytest.mark.slow
def test_loss_scaling_goes_around_it() -> None:
    """Gradients are clipped once their scale of 32768 has been taken out: float16 trains as float32."""
    losses = []
    for policy in ("float32", "mixed_float16"):
        stack = make_stack(DEPTH, dtype=policy)
        model = as_model(stack)
        optimizer: Any = LayerwiseClipping(keras.optimizers.SGD(0.5), CLIPNORM)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, "mse", jit_compile=BACKEND == "jax", **EAGERLY)
        losses.append(model.fit(X, Y, epochs=4, batch_size=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=2e-2)
    assert losses[1][-1] < losses[1][0]


@pytest.mark.parametrize("clipnorm", [0.0, -1.0, float("nan"), "1", None])
def test_bad_norms(clipnorm: Any) -> None:
    with pytest.raises(ValueError, match="`clipnorm` must be .* Received: clipnorm="):
        LayerwiseClipping("sgd", clipnorm)


@pytest.mark.parametrize(
    "setting", [{"gradient_accumulation_steps": 2}, {"loss_scale_factor": 1000.0}], ids=str
)
def test_what_would_come_after_the_clipping_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))}` would be applied after clipping"):
        LayerwiseClipping(keras.optimizers.SGD(0.1, **setting))


@pytest.mark.parametrize("size", [0.0, 1e-30, 0.5, 3.0, 1e30])
def test_the_clipped_gradient_has_the_norm_asked_for(size: float) -> None:
    """At any size, where its square would overflow too; a smaller one is left as it is."""
    variable = keras.Variable(np.zeros((2, 2), "float32"))
    optimizer = LayerwiseClipping(keras.optimizers.SGD(1.0), 2.0)
    gradient = size * np.array([[0.6, 0.0], [0.0, 0.8]], "float32")
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    expected = -gradient * (1.0 if size <= 2.0 else 2.0 / size)
    np.testing.assert_allclose(to_numpy(variable.value), expected, rtol=1e-6)


@pytest.mark.skipif(BACKEND == "jax", reason="has no float64 by default")
def test_float64_is_kept() -> None:
    variable = keras.Variable(np.zeros(3), dtype="float64")
    gradient = np.array([1.0, 2.0, 2.0]) * (1.0 + 1e-12)
    LayerwiseClipping(keras.optimizers.SGD(1.0), 1e3).apply(
        [keras.ops.convert_to_tensor(gradient, dtype="float64")], [variable]
    )
    np.testing.assert_array_equal(to_numpy(variable.value), -gradient)


def test_weights_can_be_excluded_from_weight_decay() -> None:
    variables = [keras.Variable(np.ones(2, "float32"), name=name) for name in ("kernel", "bias")]
    optimizer = LayerwiseClipping(keras.optimizers.AdamW(0.1, weight_decay=0.5))
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.apply([keras.ops.zeros(2)] * 2, variables)
    kernel, bias = (to_numpy(variable.value) for variable in variables)
    assert (kernel < 1.0).all()
    np.testing.assert_array_equal(bias, np.ones(2))


def test_clipping_twice_is_refused() -> None:
    for inner in (keras.optimizers.SGD(clipnorm=1.0), LayerwiseClipping("sgd")):
        with pytest.raises(ValueError, match="clips by norm already"):
            LayerwiseClipping(inner)
    with pytest.raises(ValueError, match="put the LossScaleOptimizer around"):
        LayerwiseClipping(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))


def test_a_norm_that_the_dtype_does_not_hold() -> None:
    optimizer = LayerwiseClipping("sgd", clipnorm=1e-300)
    with pytest.raises(ValueError, match="`clipnorm` must leave the weights in the range of float32"):
        optimizer.build([keras.Variable(np.zeros((2, 2)), dtype="float32")])


WHOLE = [
    lambda: keras.optimizers.Muon(1e-2, weight_decay=0.1, adam_weight_decay=0.3),
    lambda: keras.optimizers.Lamb(1e-2, global_clipnorm=0.05),
    lambda: keras.optimizers.Adafactor(1e-2, use_ema=True),
]


class TestLayerwise:
    def test_one_step_of_each_layer(self) -> None:
        """Lamb divides by the norm of a layer's own step: layers of any scale move by the same share."""
        scales = np.array([1.0, 1e3, 1e-3], "float32")[:, None]
        start = scales * np.array([[3.0, 4.0]], "float32")
        variable = mark_stacked(keras.Variable(start))
        gradient = keras.ops.convert_to_tensor(np.ones((3, 2), "float32"))
        Layerwise(keras.optimizers.Lamb(0.1)).apply([gradient], [variable])
        step = np.linalg.norm(to_numpy(variable.value) - start, axis=1)
        np.testing.assert_allclose(step, 0.1 * 5.0 * scales[:, 0], rtol=1e-4)

    @pytest.mark.slow
    @pytest.mark.parametrize("inner", WHOLE, ids=["muon", "lamb", "adafactor"])
    def test_a_stack_is_updated_as_separate_layers_are(self, inner: Any) -> None:
        """And without it, it is not."""
        stack = make_stack(DEPTH)
        plain = dense_layers(stack)
        alone = make_stack(DEPTH)
        separate = train(plain, inner())
        assert_same(train(as_model(stack), Layerwise(inner())), separate)
        if BACKEND != "jax":  # compiles for seconds
            with pytest.raises(AssertionError):
                assert_same(train(as_model(alone), inner()), separate)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "inner",
        [
            lambda: keras.optimizers.Adam(1e-2, gradient_accumulation_steps=2),
            lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)),
            lambda: keras.optimizers.Adagrad(1e-2),
            lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
        ],
    )
    def test_any_optimizer_goes_in(self, inner: Any) -> None:
        stack = make_stack(DEPTH)
        plain = dense_layers(stack)
        assert_same(train(as_model(stack), Layerwise(inner())), train(plain, inner()))

    @pytest.mark.slow
    def test_a_model_of_stacks_and_plain_layers_goes_on_after_loading(self, tmp_path: Any) -> None:
        model = keras.Sequential([keras.Input((WIDTH,)), make_stack(DEPTH), keras.layers.Dense(WIDTH)])
        model.compile(
            LayerwiseClipping(Layerwise(keras.optimizers.Muon(1e-2)), 0.5),
            "mse",
            jit_compile=BACKEND == "jax",
            **EAGERLY,
        )
        model.fit(X, Y, epochs=2, verbose=0)
        model.optimizer.learning_rate = 3e-3
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        if EAGERLY:
            loaded.run_eagerly = True
        assert float(to_numpy(loaded.optimizer.learning_rate)) == pytest.approx(3e-3)
        losses = [m.fit(X, Y, epochs=2, shuffle=False, verbose=0).history["loss"] for m in (model, loaded)]
        np.testing.assert_allclose(*losses, rtol=1e-6)
        assert losses[0][1] < losses[0][0]

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's graphs")
    @pytest.mark.slow
    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_in_graphs(self, jit_compile: bool) -> None:
        stack = make_stack(DEPTH)
        plain = dense_layers(stack)
        model = as_model(stack)
        model.compile(Layerwise(keras.optimizers.Muon(1e-2)), "mse", jit_compile=jit_compile)
        model.fit(X, Y, epochs=2, batch_size=3, shuffle=False, verbose=0)
        assert_same(weights_of(model), train(plain, keras.optimizers.Muon(1e-2)))

    def test_what_it_is_made_of_is_kept(self) -> None:
        optimizer = Layerwise(keras.optimizers.Muon(3e-3, exclude_layers=["classifier"]))
        optimizer.learning_rate = 0.25
        twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
        assert twin.get_config() == optimizer.get_config()
        assert twin.get_config()["inner_optimizer"]["config"]["learning_rate"] == 0.25

    @pytest.mark.parametrize(
        ("inner", "message"),
        [
            (lambda: None, "no wrapper"),
            (lambda: LayerwiseClipping("sgd"), "no wrapper"),
            (lambda: Layerwise("sgd"), "no wrapper"),
            (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "no wrapper"),
            (lambda: keras.optimizers.Lamb(clipnorm=1.0), "clip whole variables"),
            (keras.optimizers.Nadam, "Nadam keeps more state"),
        ],
    )
    def test_what_it_cannot_divide_is_refused(self, inner: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Layerwise(inner())

    def test_a_state_that_begins_with_the_weights_is_refused(self) -> None:
        with pytest.raises(ValueError, match="ScheduleFreeAdamW keeps more state"):
            Layerwise(keras.optimizers.ScheduleFreeAdamW()).build(make_stack(DEPTH).trainable_variables)
