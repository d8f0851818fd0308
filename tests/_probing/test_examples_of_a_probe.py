"""Arrays of users, as the probe takes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit import GradientWalkCallback, gradient_walk, initialize
from keras_rwinit._probing.examples import check_examples, first_batch
from keras_rwinit.layers import DeepSequential

X = np.random.default_rng(0).standard_normal((12, 6)).astype("float32")
Y = X @ np.ones((6, 2), "float32")
WEIGHTS = np.linspace(0.5, 1.5, 12).astype("float32")
BATCH = 4


class ByIndex(keras.utils.PyDataset):
    """Three batches with sample weights."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        at = slice(BATCH * index, BATCH * (index + 1))
        return X[at], Y[at], WEIGHTS[at]


def of_tensorflow() -> Any:
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y, WEIGHTS)).batch(BATCH)


def of_torch() -> Any:
    torch = pytest.importorskip("torch")
    tensors = (torch.from_numpy(array) for array in (X, Y, WEIGHTS))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), BATCH)


def generator() -> Iterator[tuple[np.ndarray, ...]]:
    dataset = ByIndex()
    yield from (dataset[index] for index in range(len(dataset)))


@pytest.mark.backends
@pytest.mark.parametrize("make", [of_tensorflow, of_torch, ByIndex, generator])
def test_of_a_data_set_the_first_batch_is_taken(make: Any) -> None:
    for found, array in zip(first_batch(make()), (X, Y, WEIGHTS), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), array[:BATCH])
    with pytest.raises(ValueError, match="come with the batches of a data set.*`sample_weight`"):
        first_batch(make(), None, WEIGHTS)


@pytest.mark.parametrize("x", [X, [X, X], (X, None), {"a": X}, [[1.0, 2.0]], None, "x"])
def test_arrays_are_no_data_set(x: Any) -> None:
    assert first_batch(x, Y, WEIGHTS) == (x, Y, WEIGHTS) or x is X


def test_a_data_set_may_have_inputs_alone_and_must_have_a_batch() -> None:
    assert first_batch(iter([X])) == (X, None, None)
    with pytest.raises(ValueError, match="at least one batch. Received: list_iterator without any"):
        first_batch(iter([]))


def network(*shapes: tuple[int, ...]) -> keras.Model:
    """A network with an input of each shape, taken as a dictionary if there are several."""
    inputs = {f"x{number}": keras.Input(shape, name=f"x{number}") for number, shape in enumerate(shapes)}
    flat = [keras.layers.Flatten()(one) for one in inputs.values()]
    hidden = keras.layers.Dense(3)(keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0])
    return keras.Model(
        inputs if len(flat) > 1 else next(iter(inputs.values())), keras.layers.Dense(2)(hidden)
    )


@pytest.mark.parametrize("use", [gradient_walk, initialize])
@pytest.mark.parametrize(
    ("shapes", "example"),
    [
        ([(6,)], X[0]),
        ([(6,)], (X[0], Y[0])),
        ([(2, 3, 1)], X[0].reshape(2, 3, 1)),
        ([(6,), (2, 3)], {"x0": X[0], "x1": X[0].reshape(2, 3)}),
        ([()], np.float32(1.0)),
        ([(6,)], (X, np.float32(1.0))),
    ],
)
def test_a_data_set_of_single_examples_is_to_be_batched(use: Any, shapes: Any, example: Any) -> None:
    with pytest.raises(ValueError, match=r"take `x.batch\(32\)` of .*Received: list_iterator of examples of"):
        use(network(*shapes), iter([example]))


@pytest.mark.parametrize("use", [gradient_walk, initialize])
@pytest.mark.parametrize("shapes", [[(6,)], [(6,), (6,)]])
def test_a_dictionary_has_the_names_of_the_inputs(use: Any, shapes: Any) -> None:
    model = network(*shapes)
    named = {f"x{number}": X for number in range(len(shapes))}
    if len(shapes) > 1:  # with one, Keras warns
        use(model, named)
    named["x"] = named.pop("x0")
    with pytest.raises(ValueError, match=r"`x` must hold the model's inputs, 'x0'.*Received: the keys .*'x'"):
        use(model, named)
    listed = keras.Sequential([keras.Input((6,), name="x0"), keras.layers.Dense(3), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"`x` must hold the model's inputs, 'x0'. Received: the keys 'x'"):
        use(listed, {"x": X})
    unnamed = DeepSequential([keras.layers.Dense(3), keras.layers.Dense(2)], (6,))
    with pytest.raises(ValueError, match=r"\(examples, 6\). Received: a dictionary, shape \(12, 6\)"):
        use(unnamed, {"x": X})


class WithShapeOfAnExample(keras.Model):
    """Keeps the shape of an example under a name of Keras's, which has the batch first."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 3)
        self.flatten, self.hidden, self.head = (
            keras.layers.Flatten(),
            keras.layers.Dense(3, "tanh"),
            keras.layers.Dense(2),
        )

    def call(self, inputs: Any) -> Any:
        return self.head(self.hidden(self.flatten(inputs)))


@pytest.mark.parametrize("use", [gradient_walk, initialize])
def test_a_shape_of_the_users_is_not_taken_for_keras(use: Any) -> None:
    model = WithShapeOfAnExample()
    model(X.reshape(12, 2, 3))
    use(model, X.reshape(12, 2, 3))


def test_single_examples_are_found_without_a_model_by_their_targets() -> None:
    with pytest.raises(ValueError, match=r"`x` must give batches.*of examples of shape \(6,\)"):
        GradientWalkCallback(iter([(X[0], 3)]))


@pytest.mark.backends
def test_walks_and_kernels_are_those_of_the_batch() -> None:
    layers = [keras.layers.Dense(8, "tanh") for _ in range(3)]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    walk = gradient_walk(model, X[:BATCH], Y[:BATCH], sample_weight=WEIGHTS[:BATCH])
    np.testing.assert_array_equal(gradient_walk(model, ByIndex()).backward, walk.backward)
    assert not np.array_equal(gradient_walk(model, X[:BATCH], Y[:BATCH]).backward, walk.backward)
    assert initialize(model, ByIndex(), seed=0) == initialize(model, X[:BATCH], seed=0)


@pytest.mark.parametrize("number", [-(2**63), -(2**31) - 1, -(2**31), 0, 2**31 - 1, 2**31, 2**63 - 1])
def test_integers_keep_their_values(number: int) -> None:
    """The absolute value of -2^63 is -2^63 in int64: taken for small, it became 0 in int32."""
    array, count = check_examples("x", np.array([[number], [0]]))
    assert (int(array[0, 0]), count) == (number, 2)
