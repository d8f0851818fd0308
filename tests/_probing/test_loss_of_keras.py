"""The loss that `gradient_walk` differentiates, against gradients of Keras's own `compute_loss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, gradients, to_numpy
from loss_helpers import OwnLoss
from numpy.typing import NDArray
from state_helpers import assert_unchanged, snapshot

from keras_rwinit import gradient_walk

pytestmark = pytest.mark.backends
elsewhere = [] if BACKEND == "tensorflow" else [pytest.mark.slow]

Array = NDArray[Any]
L = keras.layers
EXAMPLES = 4
RNG = np.random.default_rng(0)


def data(*shape: int) -> Array:
    return RNG.normal(size=(EXAMPLES, *shape)).astype("float32")


class Shift(L.Layer):
    """Adds zeros, a variable of the whole batch: the gradient at it is that at what it is added to."""

    def build(self, shape: Any) -> None:
        self.shift = self.add_weight(shape=(EXAMPLES, *shape[1:]), initializer="zeros", trainable=False)
        self.supports_masking = True

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x: Any) -> Any:
        return x + self.shift


def chain(x: Any, *layers: Any) -> Any:
    """Applies layers, and a shift after each that has a kernel."""
    for layer in layers:
        x = layer(x)
        if hasattr(layer, "kernel"):
            x = Shift()(x)
    return x


def oracle(model: keras.Model, x: Any, y: Any, sample_weight: Any = None) -> Array:
    """`ln|delta|` at the shifts, shape (examples, layers), of the gradient of Keras's own loss."""
    shifts = [layer.shift for layer in model._flatten_layers() if isinstance(layer, Shift)]
    tensors, y, sample_weight = (
        keras.tree.map_structure(lambda a: None if a is None else keras.ops.convert_to_tensor(a), values)
        for values in (x, y, sample_weight)
    )

    def loss(values: Any) -> Any:
        # Regularizers see variables in the scope alone.
        mapping = [*((v, v.value) for v in model.variables), *zip(shifts, values, strict=True)]
        with keras.StatelessScope(mapping, collect_losses=True):
            outputs = model(tensors, training=False)
            value = model.compute_loss(x=tensors, y=y, y_pred=outputs, sample_weight=sample_weight)
        return EXAMPLES * value

    found = gradients(loss, [to_numpy(shift) for shift in shifts])
    with np.errstate(divide="ignore"):
        return np.log(
            np.stack([np.linalg.norm(g.reshape(EXAMPLES, -1).astype(float), axis=1) for g in found], 1)
        )


class Penalty(L.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(keras.ops.mean(keras.ops.square(x)))
        self.add_loss(0.1 * keras.ops.sum(x))
        return x


def image_model() -> Any:
    inputs = keras.Input((8, 8, 2))
    h = chain(inputs, L.Conv2D(3, 3, padding="same"), L.ReLU(), L.Conv2D(3, 3, padding="same"), L.ReLU())
    model = keras.Model(inputs, L.Conv2D(4, 1, name="y")(h))
    model.compile("sgd", "mse")
    return model, data(8, 8, 2), data(8, 8, 4), None


def sequence_model() -> Any:
    inputs = keras.Input((6, 3))
    h = chain(inputs, L.Dense(5), L.Activation("tanh"), L.Dense(5), L.Activation("tanh"))
    model = keras.Model(inputs, L.Dense(4)(h))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, data(6, 3), RNG.integers(0, 4, (EXAMPLES, 6)), None


def masked_model() -> Any:
    inputs = keras.Input((6,), dtype="int32")
    h = L.Embedding(9, 5, mask_zero=True)(inputs)
    h = chain(h, L.Dense(5), L.Activation("tanh"), L.Dense(5), L.Activation("tanh"))
    model = keras.Model(inputs, L.Dense(4)(h))
    model.compile("sgd", "mse")
    x = RNG.integers(1, 9, (EXAMPLES, 6))
    x[0, 2:], x[1, 4:] = 0, 0
    return model, x, data(6, 4), None


def head_model() -> Any:
    inputs = keras.Input((6, 3))
    h = chain(inputs, L.Dense(5), L.Activation("tanh"), L.Dense(5), L.Activation("tanh"))
    outputs = {"tags": L.Dense(4, name="tags")(h), "score": L.Dense(1, name="score")(L.Flatten()(h))}
    model = keras.Model(inputs, outputs)
    losses = {"tags": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "score": "mae"}
    model.compile("sgd", losses, loss_weights={"tags": 0.3, "score": 2.0})
    y = {"tags": RNG.integers(0, 4, (EXAMPLES, 6)), "score": data(1)}
    return model, data(6, 3), y, {"tags": np.arange(24.0).reshape(EXAMPLES, 6), "score": np.arange(4.0)}


def list_model() -> Any:
    inputs = keras.Input((6,))
    h = chain(inputs, L.Dense(5), L.Activation("tanh"), L.Dense(5), L.Activation("tanh"))
    model = keras.Model(inputs, [L.Dense(2, name="a")(h), L.Dense(3, name="b")(h), L.Dense(1, name="c")(h)])
    model.compile("sgd", {"a": "mse", "b": "mae", "c": "mse"}, loss_weights=[1.0, 0.5, 3.0])
    return model, data(6), [data(2), data(3), data(1)], None


def penalty_model() -> Any:
    inputs = keras.Input((6,))
    h = chain(inputs, L.Dense(5, kernel_regularizer="l2"), Penalty(), L.Activation("tanh"))
    h = chain(h, L.Dense(5), L.ActivityRegularization(l1=0.01), L.Activation("tanh"))
    model = keras.Model(inputs, L.Dense(2, bias_regularizer="l2")(h))
    model.compile("sgd", "mse")
    return model, data(6), data(2), np.array([1.0, 0.0, 3.0, 0.5])


def own_model() -> Any:
    inputs = keras.Input((6,))
    h = chain(inputs, L.Dense(5), L.Activation("tanh"), L.Dense(5), L.Activation("tanh"))
    model = OwnLoss(inputs, L.Dense(2)(h))
    model.compile("sgd")
    return model, data(6), data(2), None


def integer_model() -> Any:
    """Keras casts targets of integers before it calls a loss."""
    inputs = keras.Input((6,))
    h = chain(inputs, L.Dense(5), L.Activation("tanh"), L.Dense(5), L.Activation("tanh"))
    model = keras.Model(inputs, L.Dense(2)(h))
    model.compile("sgd", lambda y, outputs: keras.ops.mean(keras.ops.square(y - outputs), axis=-1))
    return model, data(6), data(2) > 0.0, None


def ctc_model() -> Any:
    inputs = keras.Input((8, 3))
    h = chain(inputs, L.Dense(5), L.Activation("tanh"), L.Dense(5), L.Activation("tanh"))
    model = keras.Model(inputs, L.Dense(4)(h))
    model.compile("sgd", keras.losses.CTC())
    return model, data(8, 3), RNG.integers(1, 4, (EXAMPLES, 3)), None


MODELS: dict[str, Callable[[], Any]] = {
    "images": image_model,
    "sequences": sequence_model,
    "masks": masked_model,
    "heads": head_model,
    "list": list_model,
    "penalties": penalty_model,
    "own compute_loss": own_model,
    "booleans": integer_model,
    "ctc": ctc_model,
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=elsewhere * (kind not in ("heads",))) for kind in MODELS]
)
def test_the_gradient_is_that_of_the_loss_that_keras_computes(kind: str) -> None:
    keras.utils.set_random_seed(1)
    model, x, y, sample_weight = MODELS[kind]()
    before = snapshot(model)
    walk = gradient_walk(model, x, y, sample_weight=sample_weight)
    assert_unchanged(before, snapshot(model))
    expected = oracle(model, x, y, sample_weight)
    np.testing.assert_allclose(np.exp(walk.backward), np.exp(expected), rtol=1e-5, atol=0)


def test_a_loss_in_the_call_is_paired_with_the_outputs_as_a_compiled_one() -> None:
    keras.utils.set_random_seed(1)
    model, x, y, sample_weight = head_model()
    compiled = gradient_walk(model, x, y, sample_weight=sample_weight)
    losses = {"tags": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "score": "mae"}
    plain = gradient_walk(model, x, y, losses, sample_weight=sample_weight)
    model.compile("sgd", losses)
    np.testing.assert_array_equal(
        plain.backward, gradient_walk(model, x, y, sample_weight=sample_weight).backward
    )
    assert not np.allclose(plain.backward, compiled.backward, atol=0.1)


def test_a_loss_that_layers_add_needs_no_other() -> None:
    inputs = keras.Input((6,))
    h = chain(inputs, L.Dense(5), L.Activation("tanh"), L.Dense(5), L.Activation("tanh"))
    model = keras.Model(inputs, Penalty()(L.Dense(2)(h)))
    model.compile("sgd")
    x, y = data(6), data(2)
    np.testing.assert_allclose(gradient_walk(model, x, y).backward, oracle(model, x, y), atol=1e-5)


class NoOutput(keras.Model):
    """Has optional inputs, needs `training`, and gives back something that is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.top = L.Dense(5, "tanh"), L.Dense(2)

    def call(self, inputs: Any, training: bool) -> Any:
        h = inputs["x"]
        if inputs["context"] is not None:
            h = h + inputs["context"]
        return self.top(self.hidden(h)), None


def test_outputs_and_inputs_that_are_none() -> None:
    model, x, y = NoOutput(), data(6), data(2)
    model({"x": x, "context": None}, training=False)
    before = snapshot(model)
    walk = gradient_walk(model, {"x": x, "context": None}, y, "mse")
    assert_unchanged(before, snapshot(model))
    plain = keras.Sequential([keras.Input((6,)), L.Dense(5, "tanh"), L.Dense(2)])
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(walk.backward, gradient_walk(plain, x, y, "mse").backward, atol=1e-6)
    assert np.isfinite(gradient_walk(model, {"x": x, "context": x}).backward).all()


class TwoArguments(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.top = L.Dense(5), L.Dense(5), L.Dense(2)

    def call(self, one: Any, other: Any, training: bool = False) -> Any:
        return self.top(keras.ops.tanh(self.left(one) + self.right(other)))


def test_a_model_of_several_arguments() -> None:
    model, one, other = TwoArguments(), data(6), data(3)
    model(one, other)
    in_order, by_name = (gradient_walk(model, x) for x in ((one, other), {"other": other, "one": one}))
    assert len(in_order.layer_names) == 2
    np.testing.assert_array_equal(in_order.backward, by_name.backward)


def test_weights_that_do_not_fit() -> None:
    model, x, y, _ = penalty_model()
    with pytest.raises(ValueError, match="`x` and `sample_weight` must hold equally many examples"):
        gradient_walk(model, x, y, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match="Weights of examples need targets"):
        gradient_walk(model, x, sample_weight=np.ones(4))


class Windows(L.Layer):
    """Takes the windows of an image for examples, as a Swin transformer does."""

    def __init__(self, first: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.inner = first, L.Dense(3, "tanh", name="inner")

    def build(self, shape: Any) -> None:
        self.inner.build((None, shape[-1]))

    def call(self, x: Any) -> Any:
        examples, windows, channels = EXAMPLES, x.shape[1], x.shape[2]
        if self.first == "windows":
            x = keras.ops.transpose(x, (1, 0, 2))
        h = self.inner(keras.ops.reshape(x, (examples * windows, channels)))
        if self.first == "windows":
            return keras.ops.transpose(keras.ops.reshape(h, (windows, examples, 3)), (1, 0, 2))
        return keras.ops.reshape(h, (examples, windows, 3))


def windowed(first: str) -> keras.Model:
    inputs = keras.Input((6, 5), batch_size=EXAMPLES)
    h = L.Dense(5, "tanh", name="before")(inputs)
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(Windows(first)(h))))


def test_windows_of_an_example_belong_to_it() -> None:
    keras.utils.set_random_seed(0)
    model, x = windowed("examples"), data(6, 5)
    walk = gradient_walk(model, x)
    plain = keras.Sequential(
        [keras.Input((6, 5)), L.Dense(5, "tanh"), L.Dense(3, "tanh"), L.Flatten(), L.Dense(2)]
    )
    plain.set_weights(model.get_weights())
    expected = gradient_walk(plain, x)
    np.testing.assert_allclose(walk.backward, expected.backward, atol=1e-6)
    np.testing.assert_allclose(walk.forward, expected.forward, atol=1e-6)
    np.testing.assert_allclose(walk.weight_gradient, expected.weight_gradient, atol=1e-6)


def test_examples_that_cannot_be_told_apart_are_named() -> None:
    keras.utils.set_random_seed(0)
    model, x = windowed("windows"), data(6, 5)
    with pytest.warns(UserWarning, match=r"inner \(its examples cannot be told apart\)"):
        walk = gradient_walk(model, x)
    assert walk.layer_names == ("before",)


def test_inputs_beyond_float32() -> None:
    class Cast(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.top = L.Dense(5), L.Dense(2)

        def call(self, x: Any) -> Any:
            return self.top(self.hidden(x))

    model, x = Cast(), data(6)
    model(x)
    walk = gradient_walk(model, 1e100 * x.astype(float))
    np.testing.assert_allclose(
        walk.forward - 100.0 * np.log(10.0), gradient_walk(model, x).forward, atol=1e-4
    )
    functional = keras.Sequential([keras.Input((6,)), L.Dense(5), L.Dense(2)])
    with pytest.raises(ValueError, match=r"stay within the range of the model's dtype.*values up to 1e\+308"):
        gradient_walk(functional, np.full((2, 6), 1e308))
