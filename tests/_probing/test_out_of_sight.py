"""Models that the back end rematerializes, compiles or loops over, against the same models plainly run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, EAGERLY, to_numpy
from numpy.typing import NDArray
from state_helpers import assert_unchanged, snapshot

from keras_rwinit import GradientWalkCallback, gradient_walk, initialize, model_zoo
from keras_rwinit.layers import DenseStack

pytestmark = pytest.mark.backends

Array = NDArray[Any]
L = keras.layers
EXAMPLES = 3


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(EXAMPLES, *shape)).astype("float32")


def recompute_now(function: Callable[..., Any]) -> Callable[..., Any]:
    """The back end's own rematerialization, looked up when a layer is called."""
    if BACKEND == "tensorflow":
        return tf.recompute_grad(function)
    return jax.checkpoint(function) if BACKEND == "jax" else recompute(function)


def recompute(function: Callable[..., Any]) -> Callable[..., Any]:
    """The back end's own rematerialization, as a user imports it before anything is observed."""
    return _RECOMPUTE(function)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that the back end compiles; PyTorch's compiler is too slow for a test."""
    return _COMPILED(function)


if BACKEND == "tensorflow":
    import tensorflow as tf

    _COMPILED: Any = tf.function
    _RECOMPUTE: Any = tf.recompute_grad
elif BACKEND == "jax":
    import jax

    _COMPILED, _RECOMPUTE = jax.jit, jax.checkpoint
else:
    from torch.utils.checkpoint import checkpoint

    _COMPILED = lambda function: function  # noqa: E731
    _RECOMPUTE = lambda function: lambda *args: checkpoint(function, *args, use_reentrant=False)  # noqa: E731


class Block(L.Layer):
    """Two layers, applied plainly or through something."""

    def __init__(self, through: Callable[..., Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.one, self.two = L.Dense(6, "tanh", name="one"), L.Dense(5, "tanh", name="two")
        self.through = through

    def build(self, shape: Any) -> None:
        self.one.build(shape)
        self.two.build((None, 6))

    def inside(self, x: Any) -> Any:
        return self.two(self.one(x))

    def call(self, x: Any) -> Any:
        return self.inside(x) if self.through is None else self.through(self.inside)(x)


class CompiledCall(Block):
    @compiled
    def _compiled(self, x: Any) -> Any:
        return self.inside(x)

    def call(self, x: Any) -> Any:
        return self.inside(x) if BACKEND == "jax" else self._compiled(x)


class MadeBefore(Block):
    """Asks for its rematerialization, or its compilation, before anything is observed."""

    def __init__(self, transform: Callable[..., Any] = recompute, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = transform(self.inside)

    def call(self, x: Any) -> Any:
        return self.run(x)


class TracedBefore(Block):
    """Applies what the back end recorded of its two layers, so that nothing calls them any more."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.run = record(self.inside, keras.ops.ones((EXAMPLES, shape[-1])))

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor((*x.shape[:-1], 5))

    def call(self, x: Any) -> Any:
        return self.run(x)


def record(function: Callable[..., Any], x: Any) -> Callable[..., Any]:
    if BACKEND == "tensorflow":
        concrete: Callable[..., Any] = tf.function(function).get_concrete_function(tf.TensorSpec(x.shape))
        return concrete
    if BACKEND == "jax":
        from jax.extend.core import jaxpr_as_fun

        recorded = jaxpr_as_fun(jax.make_jaxpr(function)(x))
        return lambda x: recorded(x)[0]
    from torch.fx.experimental.proxy_tensor import make_fx

    traced = make_fx(lambda x: function(x))(x)
    return lambda x: traced(x)  # Keras would make a layer of a module


def model_of(block: L.Layer) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, L.Dense(2, name="top")(block(inputs)))


def scoped(mode: str, **options: Any) -> keras.Model:
    with keras.RematScope(mode, **options):
        return model_of(Block())


MODELS: dict[str, Callable[[], keras.Model]] = {
    "keras.RematScope, full": lambda: scoped("full"),
    "keras.RematScope, activations": lambda: scoped("activations"),
    "keras.RematScope, large": lambda: scoped("larger_than", output_size_threshold=1),
    "keras.RematScope, list": lambda: scoped("list_of_layers", layer_names=["two"]),
    "keras.remat": lambda: model_of(Block(keras.remat)),
    "the back end's, in the call": lambda: model_of(Block(recompute_now)),
    "compiled in the call": lambda: model_of(Block(compiled)),
    "compiled before": lambda: model_of(CompiledCall()),
}
# On TensorFlow, what a name was imported for before is out of reach; see below.
if BACKEND != "tensorflow":
    MODELS["the back end's, by its name"] = lambda: model_of(Block(recompute))
    MODELS["the back end's, before"] = lambda: model_of(MadeBefore())
if BACKEND != "torch":
    MODELS["compiled when it was made"] = lambda: model_of(MadeBefore(compiled))
BY_DEFAULT = (
    "keras.RematScope, full",
    "compiled before",
    "the back end's, by its name",
    *(("the back end's, before", "compiled when it was made") if BACKEND == "jax" else ()),
)
KINDS = [
    pytest.param(kind, marks=[] if kind in BY_DEFAULT else [pytest.mark.slow, pytest.mark.exhaustive])
    for kind in MODELS
]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_measured_as_though_it_ran_plainly(kind: str) -> None:
    keras.utils.set_random_seed(0)
    model, plain = MODELS[kind](), model_of(Block())
    plain.set_weights(model.get_weights())
    x, y = data(4), data(2, seed=1)
    model(x)  # what the back end keeps of a function, it has now
    before = snapshot(model)
    walk = gradient_walk(model, x, y, "mse")
    assert_unchanged(before, snapshot(model))
    expected = gradient_walk(plain, x, y, "mse")
    assert walk.layer_names == expected.layer_names == ("one", "two")
    for field in ("backward", "forward", "weight_gradient"):
        np.testing.assert_allclose(getattr(walk, field), getattr(expected, field), atol=1e-5)


@pytest.mark.parametrize(
    "kind", KINDS if BACKEND != "jax" else [pytest.param(k, marks=pytest.mark.slow) for k in MODELS]
)
def test_it_is_calibrated_as_though_it_ran_plainly(kind: str) -> None:
    keras.utils.set_random_seed(0)
    model, plain = MODELS[kind](), model_of(Block())
    report, expected = (initialize(one, data(4), seed=0) for one in (model, plain))
    assert report.drift == pytest.approx(expected.drift, abs=1e-3)
    for found, wanted in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_compiled_functions_see_later_weights() -> None:
    """A function that was traced on copies of the weights would go on with the copies."""
    model = model_of(CompiledCall())
    gradient_walk(model, data(4))
    initialize(model, data(4), seed=0)
    for variable in model.trainable_variables:
        variable.assign(keras.ops.zeros_like(variable.value))
    assert not to_numpy(model(data(4))).any()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others can be looked into")
def test_what_cannot_be_seen_is_named_and_the_rest_is_measured() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    h = L.Dense(4, "tanh", name="before")(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.Dense(5, "tanh", name="after")(MadeBefore()(h))))
    before = snapshot(model)
    with pytest.warns(UserWarning, match=r"could not be measured.*one.*two.*traces or runs again") as caught:
        walk = gradient_walk(model, data(4))
    assert sum(warning.category is UserWarning for warning in caught) == 1
    assert_unchanged(before, snapshot(model))
    assert walk.layer_names == ("before", "after")
    plain = keras.Sequential([keras.Input((4,)), *(L.Dense(n, "tanh") for n in (4, 6, 5, 5)), L.Dense(2)])
    plain.set_weights(model.get_weights())
    expected = gradient_walk(plain, data(4))
    np.testing.assert_allclose(walk.backward, expected.backward[:, [0, 3]], atol=1e-5)
    with pytest.warns(UserWarning, match="could not be measured"):
        assert len(initialize(model, data(4), seed=0).kernels) == 5


def test_what_no_call_reaches_is_named() -> None:
    inputs = keras.Input((4,))
    h = L.Dense(4, "tanh", name="before")(inputs)
    model = keras.Model(inputs, L.Dense(2)(TracedBefore()(h)))
    before = snapshot(model)
    with pytest.warns(UserWarning, match=r"could not be measured.*one.*two \(was not called"):
        walk = gradient_walk(model, data(4))
    assert_unchanged(before, snapshot(model))
    assert walk.layer_names == ("before",)
    assert np.isfinite(walk.backward).all()


class Spare(keras.Model):
    """Has a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.top, self.spare = L.Dense(3, name="hidden"), L.Dense(2), L.Dense(2)
        self.spare.build((None, 3))

    def call(self, x: Any) -> Any:
        return self.top(self.hidden(x))


def test_what_a_model_does_not_use_is_not_missed() -> None:
    model = Spare()
    model(data(4))
    assert gradient_walk(model, data(4)).layer_names == ("hidden",)


class Steps(L.Layer):
    """Applies a layer to each time step of each example, in a loop or a mapped function of the back end."""

    def __init__(self, loop: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner, self.loop = L.Dense(5, "tanh", name="inner"), loop

    def build(self, shape: Any) -> None:
        self.inner.build((None, shape[-1]))

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor((*x.shape[:-1], 5))

    def call(self, x: Any) -> Any:
        steps = self.loop(self.inner, keras.ops.transpose(x, (1, 0, 2)))
        return keras.ops.transpose(steps, (1, 0, 2))


def scan(function: Callable[..., Any], x: Any) -> Any:
    return jax.lax.scan(lambda carry, row: (carry, function(row)), 0.0, x)[1]


LOOPS = [keras.ops.map, *([pytest.param(scan, marks=pytest.mark.slow)] if BACKEND == "jax" else [])]


@pytest.mark.parametrize("loop", LOOPS)
def test_loops_of_the_back_end_are_seen_step_by_step(loop: Callable[..., Any]) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2, 4))
    h = L.Dense(4, "tanh", name="before")(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(Steps(loop)(h))))
    before = snapshot(model)
    walk = gradient_walk(model, data(2, 4))
    assert_unchanged(before, snapshot(model))
    plain = keras.Sequential(
        [keras.Input((2, 4)), L.Dense(4, "tanh"), L.Dense(5, "tanh"), L.Flatten(), L.Dense(2)]
    )
    plain.set_weights(model.get_weights())
    expected = gradient_walk(plain, data(2, 4))
    assert walk.layer_names[0] == "before"
    assert len(walk.layer_names) == 3
    np.testing.assert_allclose(walk.backward[:, 0], expected.backward[:, 0], atol=1e-5)
    # The steps' gradients are the parts of the sequence's.
    together = np.logaddexp(2.0 * walk.backward[:, 1], 2.0 * walk.backward[:, 2]) / 2.0
    np.testing.assert_allclose(together, expected.backward[:, 1], atol=1e-5)


def test_a_mapped_function_hides_its_layers() -> None:
    inputs = keras.Input((2, 4))
    h = L.Dense(4, "tanh", name="before")(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(Steps(keras.ops.vectorized_map)(h))))
    before = snapshot(model)
    with pytest.warns(UserWarning, match="inner"):
        walk = gradient_walk(model, data(2, 4))
    assert_unchanged(before, snapshot(model))
    assert walk.layer_names == ("before",)
    assert np.isfinite(walk.backward).all()


# By the size of its outputs, Keras can rematerialize a training on PyTorch alone. JAX goes on with the
# weights that a function found in its first call.
NOT_TRAINABLE = {
    "tensorflow": ["keras.RematScope, large"],
    "jax": ["keras.RematScope, large", "the back end's, before", "compiled when it was made"],
}
TRAINABLE = [kind for kind in MODELS if kind not in NOT_TRAINABLE.get(BACKEND, [])]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAINABLE)
def test_a_training_goes_on_and_is_recorded(kind: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model, alone = MODELS[kind](), MODELS[kind]()
    alone.set_weights(model.get_weights())
    x, y = data(4), data(2)
    callback = GradientWalkCallback(x, y, log_dir=tmp_path, picture=False, tensorboard=False)
    for one, callbacks in ((model, [callback]), (alone, [])):
        # Keras cannot compile a rematerialized call on TensorFlow.
        one.compile(keras.optimizers.SGD(0.1), "mse", **(EAGERLY if "Remat" in kind else {}))
        one.fit(x, y, epochs=2, batch_size=EXAMPLES, shuffle=False, verbose=0, callbacks=callbacks)
    assert [record.verdict for record in callback.history] == ["fine"] * 3
    for found, wanted in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


# On TensorFlow, Keras cannot differentiate its own float8.
MODES = ["int8", "int4", *(["float8"] if BACKEND != "tensorflow" else [])]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", pytest.param("int4", marks=pytest.mark.exhaustive)])
@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method")  # Keras's own
def test_a_quantized_stack_is_measured_as_its_dense_layers(mode: str) -> None:
    keras.utils.set_random_seed(0)
    stack = DenseStack(2, "tanh", bias_initializer="random_normal", name="stack")
    model = keras.Sequential([keras.Input((2, 8)), stack, L.Dense(2)])
    model.quantize(mode)
    plain = model_zoo.unstack(model)
    before = snapshot(model)
    walk, expected = (gradient_walk(one, data(2, 8), data(2, 2), "mse") for one in (model, plain))
    assert_unchanged(before, snapshot(model))
    assert walk.layer_names == ("stack[0]", "stack[1]")
    for field in ("backward", "forward", "dead"):
        np.testing.assert_allclose(getattr(walk, field), getattr(expected, field), atol=1e-5)
    assert np.isnan(walk.weight_gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_quantized_models_are_measured(mode: str) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), L.Dense(16, "relu"), L.Dense(16, "relu"), L.Dense(2)])
    exact = gradient_walk(model, data(8))
    for layer in model.layers:
        layer.quantize(mode)
    before = snapshot(model)
    walk = gradient_walk(model, data(8))
    assert_unchanged(before, snapshot(model))
    assert walk.layer_names == exact.layer_names
    assert np.isfinite(walk.backward).all()
    if mode == "int8":  # rounding to 8 bits changes a gradient by a few percent
        np.testing.assert_allclose(walk.backward, exact.backward, atol=0.05)
