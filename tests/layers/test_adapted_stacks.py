"""LoRA and quantization do to a stack what Keras does to its layers one by one; single layers of a stack."""

from __future__ import annotations

import gc
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import (
    BACKEND,
    EAGERLY,
    WIDTH,
    X,
    Y,
    as_model,
    by_layer,
    make_stack,
    relative_error,
    run,
    slow_on_jax,
    to_numpy,
    weight_gradients,
    weights_of,
)

from keras_rwinit import gradient_walk, model_zoo
from keras_rwinit.layers import DenseStack

pytestmark = pytest.mark.backends

DEPTH = 3


def randomize(layer: keras.layers.Layer, seed: int = 3) -> None:
    """Gives the updates values as after training, so that they count."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        if weight.name.startswith("lora"):
            weight.assign(rng.normal(size=weight.shape) / WIDTH)


class TestLora:
    @slow_on_jax
    def test_outputs_and_gradients_are_those_of_dense_layers(self) -> None:
        model = as_model(make_stack(DEPTH))
        stack = model.layers[0]
        stack.enable_lora(2, lora_alpha=3.0)
        assert [tuple(w.shape) for w in (stack.lora_kernel_a, stack.lora_kernel_b)] == [
            (DEPTH, WIDTH, 2),
            (DEPTH, 2, WIDTH),
        ]
        randomize(stack)
        plain = model_zoo.unstack(model)
        assert relative_error(run(model, X), run(plain, X)) < 1e-5
        *gradients, inputs = weight_gradients(model, X)
        *separate, plain_inputs = weight_gradients(plain, X)
        assert relative_error(inputs, plain_inputs) < 1e-4
        assert len(gradients) == 3  # bias and both terms of the update
        for index, gradient in enumerate(gradients):
            assert relative_error(gradient, np.stack(separate[index::3])) < 1e-4

    @slow_on_jax
    def test_the_walk_is_that_of_dense_layers(self) -> None:
        model = as_model(make_stack(DEPTH, lora_rank=2))
        randomize(model.layers[0])
        walks = [gradient_walk(one, X).backward for one in (model, model_zoo.unstack(model))]
        np.testing.assert_allclose(*walks, atol=1e-5)

    def test_the_update_begins_with_nothing(self) -> None:
        stack = make_stack(DEPTH)
        before = run(stack, X)
        stack.enable_lora(2)
        np.testing.assert_allclose(run(stack, X), before, rtol=1e-6)
        a = to_numpy(stack.lora_kernel_a)
        assert not np.array_equal(a[0], a[1])

    @slow_on_jax
    def test_training_leaves_the_kernels_alone_and_a_file_keeps_all(self, tmp_path: Any) -> None:
        model = as_model(make_stack(DEPTH))
        stack = model.layers[0]
        stack.enable_lora(2)
        kernel = to_numpy(stack._kernel)
        model.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=BACKEND == "jax", **EAGERLY)
        losses = model.fit(X, Y, epochs=3, batch_size=5, verbose=0).history["loss"]
        assert losses[-1] < losses[0]
        np.testing.assert_array_equal(to_numpy(stack._kernel), kernel)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for one, other in zip(weights_of(loaded), weights_of(model), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(run(loaded, X), run(model, X), rtol=1e-6)
        losses = [
            m.fit(X, Y, batch_size=5, shuffle=False, verbose=0).history["loss"] for m in (model, loaded)
        ]
        np.testing.assert_allclose(*losses, rtol=1e-6)

    def test_what_dense_refuses_is_refused(self) -> None:
        with pytest.raises(ValueError, match="LoRA cannot be enabled on .* not built"):
            DenseStack(DEPTH).enable_lora(2)
        with pytest.raises(ValueError, match="`kernel_constraint`"):
            make_stack(DEPTH, kernel_constraint="non_neg").enable_lora(2)
        stack = make_stack(DEPTH, lora_rank=2)
        with pytest.raises(ValueError, match="only once"):
            stack.enable_lora(2)
        for rank in (0, 1.5, None):
            with pytest.raises(ValueError, match="`rank` must be an integer of at least 1"):
                make_stack(DEPTH).enable_lora(rank)


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method")  # Keras's own
class TestQuantization:
    @pytest.mark.slow
    @pytest.mark.parametrize("mode", ["int8", "int4"])
    @pytest.mark.parametrize("rank", [None, 2])
    def test_outputs_and_weights_are_those_of_dense_layers(
        self, mode: str, rank: int | None, tmp_path: Any
    ) -> None:
        model = as_model(make_stack(DEPTH, lora_rank=rank))
        stack = model.layers[0]
        randomize(stack)
        exact, plain = run(model, X), model_zoo.unstack(model)
        model.quantize(mode)
        plain.quantize(mode)
        assert stack.dtype_policy.name.startswith(mode)
        assert str(stack.kernel.dtype) == "int8"
        assert relative_error(run(model, X), exact) < (0.05 if mode == "int8" else 0.5)
        np.testing.assert_allclose(run(model, X), run(plain, X), rtol=1e-5, atol=1e-6)
        for one, other in zip(by_layer(model), by_layer(plain), strict=True):
            np.testing.assert_array_equal(one, other)
        # The quantized stack itself comes apart, and together again.
        again = model_zoo.unstack(model)
        np.testing.assert_allclose(run(again, X), run(plain, X), rtol=1e-6)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(run(loaded, X), run(model, X), rtol=1e-6)

    @pytest.mark.slow
    def test_gradients_go_through_it(self) -> None:
        """To the biases and to the inputs, as in Keras's Dense."""
        model = as_model(make_stack(DEPTH))
        model.quantize("int8")
        plain = model_zoo.unstack(model)
        bias, inputs = weight_gradients(model, X)
        *biases, plain_inputs = weight_gradients(plain, X)
        assert relative_error(inputs, plain_inputs) < 1e-4
        assert relative_error(bias, np.stack(biases)) < 1e-4

    @pytest.mark.slow
    def test_a_configuration_of_keras_counts(self, tmp_path: Any) -> None:
        config = keras.quantizers.Int8QuantizationConfig(
            weight_quantizer=keras.quantizers.AbsMaxQuantizer(axis=0), activation_quantizer=None
        )
        model = as_model(make_stack(DEPTH))
        plain = model_zoo.unstack(model)
        for one in (model, plain):
            one.quantize(config=config)
        np.testing.assert_allclose(run(model, X), run(plain, X), rtol=1e-5, atol=1e-6)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(run(loaded, X), run(model, X), rtol=1e-6)

    @slow_on_jax
    def test_int8_and_what_else_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = as_model(make_stack(1))
        before = run(model, X)
        with pytest.warns(UserWarning, match="can be quantized to int8 and int4"):
            model.quantize("float8")
        np.testing.assert_array_equal(run(model, X), before)
        gc.freeze()  # as a server does before it forks
        frozen = gc.get_freeze_count()
        try:
            model.quantize("int8")
            assert gc.get_freeze_count() > frozen // 2  # some of them may be gone
        finally:
            gc.unfreeze()
        freezes: list[int] = []
        monkeypatch.setattr(gc, "freeze", lambda: freezes.append(1))
        as_model(make_stack(1)).quantize("int8")
        assert freezes
        assert str(model.layers[0].kernel.dtype) == "int8"
        assert 0.0 < relative_error(run(model, X), before) < 0.05
        with pytest.raises(ValueError, match="already quantized"):
            model.layers[0].quantize("int8")

    @pytest.mark.slow
    def test_deep_mlp_keeps_no_float_kernels(self) -> None:
        model = model_zoo.deep_mlp(depth=6, width=WIDTH, input_shape=(WIDTH,), seed=0)
        model.quantize("int8")
        assert all(w.dtype == "int8" for w in model.weights if w.name == "kernel")


class TestSingleLayers:
    def test_one_after_another_they_are_the_stack(self) -> None:
        stack = make_stack(DEPTH)
        h = keras.ops.convert_to_tensor(X)
        for layer in stack:
            assert isinstance(layer, keras.layers.Dense)
            h = layer(h)
        np.testing.assert_allclose(to_numpy(h), run(stack, X), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(to_numpy(stack[-1].kernel), to_numpy(stack.kernel)[-1])

    def test_they_are_copies(self) -> None:
        stack = make_stack(DEPTH)
        before = run(stack, X)
        stack[1].kernel.assign(np.zeros((WIDTH, WIDTH)))
        np.testing.assert_array_equal(run(stack, X), before)

    def test_length_units_and_repr(self) -> None:
        stack = DenseStack(DEPTH, name="hidden")
        assert (len(stack), stack.units) == (DEPTH, None)
        with pytest.raises(ValueError, match="build it or call it once"):
            stack[0]
        stack.build((None, WIDTH))
        assert stack.units == WIDTH
        assert repr(stack) == f"<DenseStack name=hidden, depth={DEPTH}, units={WIDTH}, built=True>"

    @pytest.mark.parametrize("index", [DEPTH, -DEPTH - 1, 10**30])
    def test_no_such_layer(self, index: int) -> None:
        with pytest.raises(IndexError, match=f"The stack has {DEPTH} layers. Received: index="):
            make_stack(DEPTH)[index]
        with pytest.raises(TypeError):
            make_stack(DEPTH)["0"]  # type: ignore[index]


@slow_on_jax
def test_a_clone_of_an_unseeded_model_draws_its_own_weights() -> None:
    """As a clone of Keras's layers does; one with a seed has the same weights."""
    for stacked in (True, False):
        for seed, same in ((None, False), (1, True)):
            model = model_zoo.deep_mlp(
                depth=3, width=4, input_shape=(4,), stacked=stacked, seed=seed, bias_stddev=0.1
            )
            clone = (
                keras.models.clone_model(model) if stacked else type(model).from_config(model.get_config())
            )
            # The last bias is the classifier's, which has no random initializer.
            for one, other in zip(weights_of(model)[:-1], weights_of(clone)[:-1], strict=True):
                assert np.array_equal(one, other) == same
