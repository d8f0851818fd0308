"""Which targets a loss of Keras takes for what they are, and that wrong ones are told at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit import gradient_walk
from keras_rwinit._probing.targets import BadTargetsError, check_target

L = keras.layers
X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")

SHAPES = [(), (1,), (3,), (1, 1), (3, 1), (1, 3), (3, 3), (3, 1, 1), (3, 1, 3), (3, 3, 1)]


def takes(loss: keras.losses.Loss, target: np.ndarray, output: np.ndarray) -> bool:
    try:
        check_target(loss, target, output)
    except BadTargetsError:
        return False
    return True


@pytest.mark.parametrize("loss", [keras.losses.MeanSquaredError(name="circle"), keras.losses.Huber()])
def test_targets_of_the_shape_that_keras_gives_outputs_are_taken(loss: keras.losses.Loss) -> None:
    """The oracle is what Keras hands to its loss function: two arrays, which must not be broadcast."""
    handed: list[tuple[int, ...]] = []

    def note(y: Any, outputs: Any) -> Any:
        handed[:] = [tuple(y.shape), tuple(outputs.shape)]
        return y

    spy = keras.losses.MeanSquaredError()
    spy.fn = note
    for target, output in itertools.product(SHAPES[1:], repeat=2):
        arrays = np.zeros(target, "float32"), np.zeros(output, "float32")
        spy.call(*map(keras.ops.convert_to_tensor, arrays))
        assert takes(loss, *arrays) is (handed[0] == handed[1]), (target, output)


LOGITS, LABELS = np.zeros((3, 5), "float32"), np.array([0, 4, 2])
LOSSES: dict[str, tuple[Callable[[], keras.losses.Loss], bool]] = {
    "labels": (lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="ce"), True),
    "circle": (lambda: keras.losses.Circle(name="mine"), True),
    "one-hot": (lambda: keras.losses.CategoricalCrossentropy(name="sparse_ctc"), False),
    "numbers": (lambda: keras.losses.MeanSquaredError(name="generalized"), False),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_is_known_by_what_it_computes_and_not_by_its_name(kind: str) -> None:
    make, takes_labels = LOSSES[kind]
    assert takes(make(), LABELS, LOGITS) is takes_labels
    assert takes(make(), LABELS + 1, LOGITS) is (kind == "circle")


def test_a_subclass_with_a_call_of_its_own_takes_what_it_likes() -> None:
    class First(keras.losses.MeanSquaredError):  # type: ignore[misc]
        def call(self, y: Any, outputs: Any) -> Any:
            return super().call(y, outputs[:, :1])

    assert takes(First(), np.zeros((3, 1)), LOGITS)


class Counting(L.Layer):  # type: ignore[misc]
    """Counts its calls on tensors with values."""

    calls = 0

    def call(self, x: Any) -> Any:
        self.calls += not isinstance(x, keras.KerasTensor)
        return x


@pytest.mark.backends
def test_wrong_targets_cost_one_run() -> None:
    counting = Counting()
    model = keras.Sequential([keras.Input((4,)), L.Dense(5, "tanh"), counting, L.Dense(5)])
    counting.calls = 0
    with pytest.raises(ValueError, match="`y` does not fit.*mean_squared_error of outputs"):
        gradient_walk(model, X, np.zeros((3, 4)), "mse")
    assert counting.calls == 1


class Largest(L.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return keras.ops.argmax(x, axis=-1)


@pytest.mark.backends
def test_outputs_without_a_gradient_are_refused() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(5, "tanh"), L.Dense(5), Largest()])
    for y, loss in ((None, None), (np.zeros(3), "mse")):
        with pytest.raises(ValueError, match="pass a model that ends before them.*outputs of dtype int"):
            gradient_walk(model, X, y, loss)
    # Beside an output with a gradient they do not matter.
    inputs = keras.Input((4,))
    logits = L.Dense(5)(L.Dense(5, "tanh")(inputs))
    both = keras.Model(inputs, [logits, Largest()(logits)])
    assert np.isfinite(gradient_walk(both, X).backward).all()
