"""`gradient_walk` on models that are no chains of Dense layers, against models cut in two at the layer."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import gradients, to_numpy
from numpy.typing import NDArray

from keras_rwinit import gradient_walk, initialize
from keras_rwinit._probing.objective import random_direction
from keras_rwinit.layers import DenseStack

backends = pytest.mark.backends  # where a back end's gradients or dtypes take part
slow_elsewhere = [pytest.mark.slow] if keras.backend.backend() != "tensorflow" else []

Array = NDArray[Any]
L = keras.layers
EXAMPLES = 3
# Sums of some hundred float32 products, through two or three layers.
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-4}


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(EXAMPLES, *shape)).astype("float32")


def log_norm(values: Array) -> Array:
    return np.log(np.linalg.norm(values.reshape(len(values), -1).astype(float), axis=1))


KERNEL_LAYERS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "Dense": (lambda **k: L.Dense(5, **k), (7,)),
    "Dense on sequences": (lambda **k: L.Dense(5, **k), (4, 7)),
    "EinsumDense": (lambda **k: L.EinsumDense("abc,cde->abde", (4, 2, 5), **k), (4, 7)),
    "Conv1D": (lambda **k: L.Conv1D(5, 3, padding="causal", **k), (8, 2)),
    "Conv2D": (lambda **k: L.Conv2D(5, 3, strides=2, **k), (8, 8, 2)),
    "Conv3D": (lambda **k: L.Conv3D(2, 2, **k), (4, 4, 4, 2)),
    "Conv2DTranspose": (lambda **k: L.Conv2DTranspose(5, 3, strides=2, **k), (4, 4, 2)),
    "DepthwiseConv2D": (lambda **k: L.DepthwiseConv2D(3, **k), (6, 6, 2)),
    "SeparableConv2D": (lambda **k: L.SeparableConv2D(5, 3, **k), (6, 6, 2)),
}


@pytest.mark.parametrize("kind", KERNEL_LAYERS)
def test_pre_activations_of_every_kind_of_layer(kind: str) -> None:
    """The layer without its activation, and what follows it, give the gradient between the two."""
    make, shape = KERNEL_LAYERS[kind]
    keras.utils.set_random_seed(1)
    layer, rest = make(activation="tanh"), [L.Flatten(), L.Dense(4, "elu"), L.Dense(2)]
    model = keras.Sequential([keras.Input(shape), layer, *rest])
    x = data(*shape)
    walk = gradient_walk(model, x)
    linear = make()
    linear.build((None, *shape))
    linear.set_weights(layer.get_weights())
    a = to_numpy(linear(x))

    def objective(tensors: Any) -> Any:
        h = keras.ops.tanh(tensors[0])
        for following in rest:
            h = following(h)
        return random_direction(h)

    (delta,) = gradients(objective, [a])
    np.testing.assert_allclose(walk.backward[:, 0], log_norm(delta), **CLOSE)
    np.testing.assert_allclose(walk.forward[:, 0], log_norm(np.tanh(a)), **CLOSE)
    assert walk.layer_names == (layer.name, rest[1].name)


@backends
def test_gradients_of_the_weights() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(3, 3, activation="relu"),
            L.Flatten(),
            L.Dense(4, "tanh"),
            L.Dense(2),
        ]
    )
    x, y = data(6, 6, 2), data(2, seed=1)
    walk = gradient_walk(model, x, y, "mse")
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")][:2]

    def loss(tensors: Any) -> Any:
        scope = keras.StatelessScope([(v, t) for v, t in zip(kernels, tensors, strict=True)])
        with scope:
            return keras.ops.mean(keras.losses.mean_squared_error(y, model(x)))

    for found, gradient in zip(
        walk.weight_gradient, gradients(loss, [to_numpy(k) for k in kernels]), strict=True
    ):
        assert found == pytest.approx(np.log(np.linalg.norm(gradient)), abs=1e-4)


@backends
def test_a_stack_is_seen_layer_by_layer() -> None:
    stack = DenseStack(4, "tanh", kernel_initializer="he_normal", bias_initializer="random_normal")
    stacked = keras.Sequential([keras.Input((6,)), stack, L.Dense(2)])
    plain = keras.Sequential([keras.Input((6,)), *(L.Dense(6, "tanh") for _ in range(4)), L.Dense(2)])
    kernel, bias, *last = stacked.get_weights()
    plain.set_weights([w for pair in zip(kernel, bias, strict=True) for w in pair] + last)
    one, other = gradient_walk(stacked, data(6)), gradient_walk(plain, data(6))
    for field in ("backward", "forward", "weight_gradient", "dead"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), **CLOSE)
    assert one.layer_names == tuple(f"{stack.name}[{index}]" for index in range(4))


class Residual(L.Layer):
    """A layer made of layers."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner, self.outer = L.Dense(units, "relu", name="inner"), L.Dense(units, name="outer")

    def call(self, x: Any) -> Any:
        return x + self.outer(self.inner(x))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        # Of six units all are below zero in one example of 64, which then has no gradient; of 24 never.
        self.blocks = [Residual(24, name=f"block_{index}") for index in range(2)]
        self.top = L.Dense(2, name="top")

    def call(self, x: Any, training: bool = False) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.top(keras.ops.relu(x))


@backends
def test_subclassed_models_and_layers_of_layers() -> None:
    model = Subclassed()
    model(data(24))
    walk = gradient_walk(model, data(24))
    # Names that several layers share are told apart by their paths.
    ends = [name.split("/", 1)[1] for name in walk.layer_names]
    assert ends == ["block_0/inner", "block_0/outer", "block_1/inner", "block_1/outer"]
    assert np.isfinite(walk.backward).all()
    # A sum passes the gradient on to its terms as it is; the last block's outer layer is one of them.
    top = to_numpy(model.top.kernel).astype(float)
    h = to_numpy(model.blocks[1](model.blocks[0](data(24))))
    direction = np.random.default_rng(14126558).standard_normal(2)
    np.testing.assert_allclose(walk.backward[:, -1], log_norm((h > 0) * (top @ direction)), **CLOSE)


@backends
def test_an_activation_that_reads_a_variable_is_measured_as_it_is_now() -> None:
    """No compiled loop of the first measurement, which would keep the old value, serves the second."""
    slope = keras.Variable(1.0)
    model = keras.Sequential([keras.Input((6,)), DenseStack(4, lambda a: slope * a), L.Dense(2)])
    before = gradient_walk(model, data(6))
    slope.assign(2.0)
    after = gradient_walk(model, data(6))
    np.testing.assert_allclose(np.diff(after.backward - before.backward), -np.log(2.0), **CLOSE)


def test_nested_models_and_shared_layers() -> None:
    shared = L.Dense(6, "tanh", name="shared")
    inner = keras.Sequential([keras.Input((6,)), shared, L.Dense(6, "tanh", name="own")], name="inner")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, L.Dense(2, name="top")(inner(shared(inputs))))
    walk = gradient_walk(model, data(6))
    assert walk.layer_names == ("shared", "shared#2", "own")
    plain = keras.Sequential([keras.Input((6,)), *(L.Dense(6, "tanh") for _ in range(3)), L.Dense(2)])
    weights = [shared, shared, inner.layers[-1], model.layers[-1]]
    plain.set_weights([w for layer in weights for w in layer.get_weights()])
    np.testing.assert_allclose(walk.backward, gradient_walk(plain, data(6)).backward, **CLOSE)
    # Both calls share one kernel, and its gradient is the sum of theirs.
    assert walk.weight_gradient[0] == walk.weight_gradient[1]


def two_by_two() -> keras.Model:
    one, other = keras.Input((4,), name="one"), keras.Input((3,), name="other")
    h = L.Concatenate()([L.Dense(5, "relu", name="left")(one), L.Dense(4, "relu", name="right")(other)])
    h = L.Dense(6, "relu", name="both")(h)
    outputs = {"a": L.Dense(2, name="a")(h), "b": L.Dense(1, name="b")(h)}
    return keras.Model({"one": one, "other": other}, outputs)


def test_several_inputs_and_outputs() -> None:
    model = two_by_two()
    x = {"one": data(4), "other": data(3, seed=1)}
    assert sorted(gradient_walk(model, x).layer_names) == ["both", "left", "right"]
    y = {"a": data(2, seed=2), "b": data(1, seed=3)}
    walk = gradient_walk(model, x, y, {"a": "mse", "b": "mae"})
    only_a = gradient_walk(model, x, y, {"a": "mse", "b": None})
    assert not np.allclose(walk.backward, only_a.backward, atol=1e-3)
    model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 1.0, "b": 0.0})
    np.testing.assert_allclose(gradient_walk(model, x, y).backward, only_a.backward, **CLOSE)
    with pytest.raises(ValueError, match="there is no output c; the outputs are a, b"):
        gradient_walk(model, x, y, {"a": "mse", "c": "mae"})
    with pytest.raises(ValueError, match="no output has a loss"):
        gradient_walk(model, x, y, {})
    with pytest.raises(ValueError, match="2 outputs, and `y` holds 1"):
        gradient_walk(model, x, data(2), "mse")
    with pytest.raises(ValueError, match="same number in each"):
        gradient_walk(model, {"one": data(4), "other": data(3)[:2]})


@backends
@pytest.mark.parametrize("recurrent", [L.SimpleRNN, pytest.param(L.LSTM, marks=slow_elsewhere)])
def test_layers_that_are_measured_at_their_output(recurrent: Any) -> None:
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            L.TimeDistributed(L.Dense(5, "relu"), name="each"),
            recurrent(6, return_sequences=True, name="memory"),
            L.LayerNormalization(),
            L.Flatten(),
            L.Dense(4, "tanh", name="dense"),
            L.Dense(2),
        ]
    )
    walk = gradient_walk(model, data(4, 3))
    assert walk.layer_names == ("each", "memory", "dense")
    assert np.isfinite(walk.backward).all()


def test_attention_and_tokens() -> None:
    tokens = keras.Input((5,), dtype="int32")
    h = L.Embedding(11, 6)(tokens)
    h = L.Add()([h, L.MultiHeadAttention(2, 3)(h, h)])
    model = keras.Model(tokens, L.Dense(2)(L.GlobalAveragePooling1D()(L.LayerNormalization()(h))))
    walk = gradient_walk(model, np.arange(15).reshape(3, 5) % 11)
    assert set(walk.layer_names) == {"query", "key", "value", "attention_output"}
    assert np.isfinite(walk.backward).all()


def normalized_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(8, "relu"),
            L.BatchNormalization(),
            L.Dropout(0.5),
            L.Dense(8, "relu", activity_regularizer="l2"),
            L.Dense(2),
        ]
    )


@backends
def test_nothing_of_the_model_changes() -> None:
    """Weights, statistics, optimizer, seeds: the next step of training gives the same bits."""
    model, x, y = normalized_model(), data(6), data(2)
    model.compile("adam", "mse")
    model.train_on_batch(x, y)

    def state() -> list[Array]:
        return [to_numpy(v).copy() for v in (*model.variables, *model.optimizer.variables)]

    before, results = state(), []
    for training in (None, False, True):
        # The same model, which is compiled once, goes back to the same state before each measurement.
        keras.utils.set_random_seed(7)
        for variable, value in zip((*model.variables, *model.optimizer.variables), before, strict=True):
            variable.assign(value)
        if training is not None:
            generator = random.getstate()
            first = gradient_walk(model, x, y, training=training)
            again = gradient_walk(model, x, y, training=training)
            assert random.getstate() == generator
            np.testing.assert_array_equal(first.backward, again.backward)
            for old, new in zip(before, state(), strict=True):
                np.testing.assert_array_equal(old, new)
            assert model.dtype_policy.name == "float32"
            assert all("call" not in layer.__dict__ for layer in model.layers)
            assert model.layers[0].activation is keras.activations.relu
        results.append([np.asarray(model.train_on_batch(x, y)), *state()])
    for plain, at_inference, in_training in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, at_inference)
        np.testing.assert_array_equal(plain, in_training)


def test_training_and_inference_differ() -> None:
    model = normalized_model()
    inference, training = (gradient_walk(model, data(6), training=flag) for flag in (False, True))
    assert not np.allclose(inference.backward, training.backward, atol=1e-3)


@backends
def test_a_walk_says_that_batch_normalizations_have_seen_no_data() -> None:
    model, x = normalized_model(), data(6)
    note = "BatchNormalization layers without data: 1 (measure with training=True)"
    walk = gradient_walk(model, x)
    assert walk.verdict.endswith(f"; {note}")
    assert walk.advice == ""  # nothing is wrong so far
    model.layers[1].trainable = False  # training, too, computes with its mean of 0 and variance of 1
    assert note not in gradient_walk(model, x).verdict
    model.layers[1].trainable = True
    model.layers[1].moving_variance.assign(np.full(8, 0.9))
    assert note not in gradient_walk(model, x).verdict


@pytest.mark.slow
def test_the_advice_on_a_residual_network_does_not_lead_in_a_circle() -> None:
    """It grows after `initialize` too, as measured without normalization; each step of the advice helps."""

    def build(gamma: str) -> keras.Model:
        h = inputs = keras.Input((6,))
        for _ in range(20):
            branch = L.BatchNormalization(gamma_initializer=gamma)(L.Dense(16)(h))
            h = L.Activation("relu")(L.Add()([L.Dense(16)(h) if h is inputs else h, branch]))
        model = keras.Model(inputs, L.Dense(2)(h))
        initialize(model, x, seed=0)
        return model

    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    model = build("ones")
    untrained, in_training = (gradient_walk(model, x, training=flag) for flag in (False, True))
    assert untrained.advice.startswith("First measure with `training=True`")
    assert untrained.drift > 1.4 * in_training.drift
    assert in_training.verdict.startswith("growing")
    assert in_training.advice.startswith("Draw the kernels anew")
    assert "If the verdict stays" in in_training.advice
    assert 'gamma_initializer="zeros"' in in_training.advice
    assert gradient_walk(build("zeros"), x, training=True).verdict.startswith("fine")


class Interrupted(L.Layer):
    armed = False

    def call(self, x: Any) -> Any:
        if self.armed:
            raise KeyboardInterrupt
        return x


def test_the_model_is_whole_after_an_interruption() -> None:
    model = keras.Sequential([keras.Input((6,)), L.Dense(4, "relu"), L.Dense(2)])
    inputs = keras.Input((6,))
    interrupted = Interrupted()
    broken = keras.Model(inputs, interrupted(model(inputs)))
    interrupted.armed = True
    with pytest.raises(KeyboardInterrupt):
        gradient_walk(broken, data(6))
    dense = model.layers[0]
    assert dense.activation is keras.activations.relu
    assert dense.compute_dtype == "float32"


@backends
def test_low_precision_models_are_seen_without_their_rounding() -> None:
    def model(policy: str) -> keras.Model:
        dense = [L.Dense(16, "relu", dtype=policy) for _ in range(4)]
        return keras.Sequential([keras.Input((6,)), *dense, L.Dense(2, dtype=policy)])

    exact, low = model("float32"), model("mixed_bfloat16")
    low.set_weights(exact.get_weights())
    one, other = gradient_walk(exact, data(6)), gradient_walk(low, data(6))
    np.testing.assert_allclose(one.backward, other.backward, **CLOSE)
    assert one.dtype == other.dtype == "float32"
    assert low.layers[0].compute_dtype == "bfloat16"


@backends
def test_beyond_float32_it_is_float64() -> None:
    """Fifty layers that divide by a hundred leave e^-230 of a gradient, which float32 takes for zero."""
    dense = [L.Dense(4, kernel_initializer=keras.initializers.Identity(0.01)) for _ in range(50)]
    model = keras.Sequential([keras.Input((4,)), *dense, L.Dense(2)])
    walk = gradient_walk(model, data(4))
    assert walk.dtype == "float64"
    np.testing.assert_allclose(np.diff(walk.backward), np.log(100.0), atol=1e-6)
    assert walk.verdict.startswith("vanishing from")


class OwnPrecision(L.Layer):
    """Mixes its input with a constant, as only a tensor of its own dtype can be where dtypes are strict."""

    def call(self, x: Any) -> Any:
        if keras.backend.standardize_dtype(x.dtype) == "float64":
            raise TypeError("float32 only")
        return x


def test_a_layer_that_knows_no_float64_is_seen_in_float32() -> None:
    dense = [L.Dense(4, kernel_initializer=keras.initializers.Identity(0.01)) for _ in range(30)]
    model = keras.Sequential([keras.Input((4,)), OwnPrecision(), *dense, L.Dense(2)])
    walk = gradient_walk(model, data(4))
    assert walk.dtype == "float32"
    assert walk.verdict.startswith("vanishing") or walk.verdict.startswith("dead")


class Named(keras.Model):
    """Subclassed, with outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = L.Dense(4, "relu"), L.Dense(2)

    def call(self, x: Any) -> Any:
        return {"y": self.head(self.hidden(x))}


def test_losses_of_outputs_that_a_subclassed_model_names() -> None:
    model = Named()
    model(data(6))
    y = data(2, seed=1)
    named = gradient_walk(model, data(6), {"y": y}, {"y": "mse"})
    np.testing.assert_array_equal(named.backward, gradient_walk(model, data(6), y, "mse").backward)


def dense(*layers: Any) -> keras.Model:
    return keras.Sequential([keras.Input((6,)), *layers, L.Dense(3)])


def test_a_mean_over_the_batch_is_each_examples_own_loss() -> None:
    model, y = dense(L.Dense(5, "tanh")), data(3, seed=1)

    def mean(y: Any, outputs: Any) -> Any:
        return keras.ops.mean(keras.ops.square(y - outputs))

    one, other = gradient_walk(model, data(6), y, mean), gradient_walk(model, data(6), y, "mse")
    np.testing.assert_allclose(one.backward, other.backward, **CLOSE)
    np.testing.assert_allclose(one.weight_gradient, other.weight_gradient, **CLOSE)


class Gaussian(keras.losses.Loss):
    """A loss of outputs that are not of its targets' shape."""

    def call(self, y: Any, outputs: Any) -> Any:
        mean, log_scale = outputs[:, :1], outputs[:, 1:2]
        return keras.ops.sum(keras.ops.square((y - mean) / keras.ops.exp(log_scale)) + log_scale, axis=-1)


def test_losses_that_only_their_author_knows() -> None:
    assert np.isfinite(
        gradient_walk(dense(L.Dense(5, "tanh")), data(6), data(1, seed=1), Gaussian()).backward
    ).all()


def test_labels_to_ignore() -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    walk = gradient_walk(dense(L.Dense(5, "tanh")), data(6), np.array([0, -1, 2]), loss)
    assert list(np.isfinite(walk.backward[:, 0])) == [True, False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((data(6), None, "mse"), "A loss needs targets"),
        ((data(6), np.full(EXAMPLES, 0.5), "sparse_categorical_crossentropy"), "needs whole numbers"),
        ((None,), "must hold arrays. Received: NoneType; take one batch of a dataset"),
        (({1, 2},), "must hold arrays. Received: set"),
    ],
)
def test_what_does_not_fit(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradient_walk(dense(L.Dense(5, "relu")), *arguments)


def test_a_dead_example_at_the_last_layer_is_no_explosion() -> None:
    model = dense(L.Dense(6, "relu"), L.Dense(6, "relu"))
    model.layers[1].set_weights([np.eye(6), np.zeros(6)])
    model.layers[0].set_weights([np.eye(6), np.zeros(6)])
    x = np.abs(data(6))
    x[0] = -1.0
    walk = gradient_walk(model, x)
    assert (walk.backward[0] == -np.inf).all()
    assert walk.verdict == "fine"
    assert walk.drift != np.inf


def test_weights_that_are_not_numbers_are_not_dead() -> None:
    model = dense(L.Dense(5, "relu"), L.Dense(5, "relu"))
    model.layers[0].kernel.assign(np.full((6, 5), np.nan))
    assert gradient_walk(model, data(6)).verdict.startswith("not finite")


@backends
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a mode of PyTorch")
def test_inference_mode_hides_no_gradient() -> None:
    import torch

    def deep() -> keras.Model:
        return dense(L.Dense(5, "tanh"), DenseStack(2, "tanh"), L.LayerNormalization(), L.Dense(5))

    model = deep()
    expected = gradient_walk(model, data(6), data(3, seed=1), "mse")
    with torch.inference_mode():
        found = gradient_walk(model, data(6), data(3, seed=1), "mse")
        made_inside = deep()
        made_inside.set_weights(model.get_weights())
        inside = gradient_walk(made_inside, torch.as_tensor(data(6)), data(3, seed=1), "mse")
    for field in ("backward", "forward", "weight_gradient"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
        np.testing.assert_array_equal(getattr(inside, field), getattr(expected, field))


def test_lora_is_seen_and_predicted_as_what_it_is() -> None:
    model = dense(L.Dense(6, "relu"), L.Dense(6, "tanh", name="lora"), L.Dense(6, "relu"))
    model.get_layer("lora").enable_lora(2)
    walk = gradient_walk(model, data(6))
    assert "lora" in walk.layer_names
    assert walk.prediction is None


@backends
@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="no such convolution on a CPU")
def test_channels_first() -> None:
    layer = L.Conv2D(4, 3, activation="relu", data_format="channels_first")
    model = keras.Sequential([keras.Input((3, 8, 9)), layer, L.Flatten(), L.Dense(3)])
    kernel, bias = layer.get_weights()
    bias[0] = -1e3
    layer.set_weights([kernel, bias])
    assert gradient_walk(model, data(3, 8, 9)).dead[0] == 0.25


@pytest.mark.slow
def test_a_wrapped_stack_is_one_layer() -> None:
    """It is measured at its output, so that `initialize` finds no drift in it."""
    inputs = keras.Input((1, 7))
    stack = L.TimeDistributed(DenseStack(4, "tanh"), name="wrapped")
    model = keras.Model(inputs, L.Dense(2)(stack(inputs)))
    report = initialize(model, data(1, 7), seed=0)
    assert report.drift is None
    assert gradient_walk(model, data(1, 7)).layer_names == ("wrapped",)
