"""`gradient_walk` beside other threads that use the same model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, EAGERLY, SLOW_ON_JAX, to_numpy
from state_helpers import assert_unchanged, snapshot

from keras_rwinit import gradient_walk, initialize
from keras_rwinit._keras.threads import replace_function, replace_policy
from keras_rwinit.layers import DenseStack

L = keras.layers
X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(4, 2)).astype("float32")


def make_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = [
        L.Dense(6, "tanh", dtype="mixed_bfloat16"),
        L.Dropout(0.1),
        DenseStack(2, "tanh"),
        L.Dense(6, "relu"),
    ]
    return keras.Sequential([keras.Input((6,)), *hidden, L.ActivityRegularization(0.1), L.Dense(2)])


def beside(*actions: Callable[[], Any], times: int) -> list[list[Any]]:
    """The results of actions that run at the same time, each so many times in a thread of its own."""
    results: list[list[Any]] = [[] for _ in actions]
    errors: list[BaseException] = []
    together = threading.Barrier(len(actions))

    def run(action: Callable[[], Any], found: list[Any]) -> None:
        try:
            together.wait()
            found.extend(action() for _ in range(times))
        except BaseException as error:  # it is raised in the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(actions, results, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@pytest.mark.backends
@pytest.mark.parametrize(
    "times",
    [pytest.param(2, marks=SLOW_ON_JAX), pytest.param(20 if BACKEND != "jax" else 3, marks=pytest.mark.slow)],
)
def test_walks_beside_calls_and_other_walks(times: int) -> None:
    model = make_model()
    outputs, walk = to_numpy(model(X)), gradient_walk(model, X)
    before = snapshot(model)

    def call() -> Any:
        return [to_numpy(model(X)) for _ in range(10)]

    def measure() -> Any:
        return gradient_walk(model, X)

    walks, calls, others = beside(measure, call, measure, times=times)
    model(X)  # the losses of the last call are Keras's own
    after = snapshot(model)
    kept = {name: value for name, value in before.items() if not name.endswith(("_losses", "_loss_ids"))}
    assert_unchanged(kept, {name: after[name] for name in kept})
    for found in (*walks, *others):
        assert found.layer_names == walk.layer_names
        np.testing.assert_array_equal(found.backward, walk.backward)
    for found in calls:
        for one in found:
            np.testing.assert_array_equal(one, outputs)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "jax", reason="JAX gives the weights away while it trains")
@pytest.mark.backends
def test_walks_beside_a_training() -> None:
    model, alone = make_model(), make_model()
    for one in (model, alone):
        one.compile(keras.optimizers.SGD(0.01), "mse", **EAGERLY)

    def fit(one: keras.Model) -> Any:
        return one.fit(X, Y, epochs=3, batch_size=2, shuffle=False, verbose=0).history["loss"]

    keras.utils.set_random_seed(1)
    expected = fit(alone)
    keras.utils.set_random_seed(1)
    walks, losses = beside(lambda: gradient_walk(model, X), lambda: fit(model), times=1)
    assert len(walks[0].layer_names) == 4
    if BACKEND == "tensorflow":  # PyTorch's dropout draws from one generator for all threads
        np.testing.assert_array_equal(losses[0], expected)
    np.testing.assert_allclose(losses[0], expected, rtol=0.2)


class Signal(L.Layer):
    """Sets off an action in its next call."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: list[Callable[[], Any]] = []

    def call(self, x: Any) -> Any:
        while self.actions:
            self.actions.pop()()
        return x


@pytest.mark.skipif(BACKEND != "jax", reason="the others leave the weights in the model while they train")
@pytest.mark.backends
def test_what_is_beside_a_training_on_jax_is_told_so() -> None:
    signal = Signal()
    model = keras.Sequential([keras.Input((6,)), L.Dense(4, "tanh"), signal, L.Dense(2)])
    model.compile("sgd", "mse")
    signal.actions = []
    inside, go_on = threading.Event(), threading.Event()

    class Wait(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            inside.set()
            go_on.wait(60)

    training = threading.Thread(target=lambda: model.fit(X, Y, verbose=0, callbacks=[Wait()]))
    # The first of them is under way when the training begins.
    signal.actions = [lambda: (training.start(), inside.wait(60))]
    try:
        for use in (
            lambda: gradient_walk(model, X),
            lambda: gradient_walk(model, X, Y),
            lambda: initialize(model, X),
            lambda: initialize(model),
        ):
            with pytest.raises(RuntimeError, match=r"On the JAX back end, `fit`.*GradientWalkCallback"):
                use()
    finally:
        go_on.set()
        training.join()
    assert all(np.isfinite(to_numpy(weight)).all() for weight in model.weights)


def in_thread(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


class Named:
    def name(self) -> str:
        return "original"


def test_a_replacement_is_for_one_thread_and_one_time() -> None:
    owner = Named()
    with replace_function(owner, "name", lambda: "replaced"):
        kept = owner.name
        assert owner.name() == kept() == "replaced"
        assert in_thread(owner.name) == in_thread(kept) == "original"
        with replace_function(Named, "name", lambda self: "of the class"):
            assert Named().name() == "of the class"
            assert in_thread(Named().name) == "original"
    assert owner.name() == kept() == "original"
    assert not vars(owner)


def test_what_is_set_meanwhile_stays() -> None:
    owner = Named()
    with replace_function(owner, "name", lambda: "replaced"):
        owner.name = lambda: "mine"  # type: ignore[method-assign]
    assert owner.name() == "mine"


def test_a_policy_is_for_one_thread() -> None:
    layer = L.Dense(3, dtype="mixed_bfloat16")
    policy = layer.dtype_policy
    with replace_policy(layer, keras.DTypePolicy("float64")):
        assert layer.compute_dtype == "float64"
        assert layer.dtype_policy == keras.DTypePolicy("float64")
        assert isinstance(layer.dtype_policy, keras.DTypePolicy)
        assert in_thread(lambda: layer.compute_dtype) == "bfloat16"
        assert (
            in_thread(lambda: layer.get_config()["dtype"])
            == L.Dense(3, dtype="mixed_bfloat16").get_config()["dtype"]
        )
    assert layer.dtype_policy is policy
