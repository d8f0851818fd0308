"""`DenseStack` is that many Dense layers: outputs, gradients, training, regularizers, constraints."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import (
    BACKEND,
    BATCH,
    EAGERLY,
    SLOW_ON_JAX,
    WIDTH,
    X,
    Y,
    as_model,
    dense_layers,
    fit,
    gradients,
    make_stack,
    relative_error,
    run,
    slow_on_jax,
    stack_weights,
    to_numpy,
    weight_gradients,
    weights_of,
)

from keras_rwinit._keras.execution import double_precision
from keras_rwinit.initializers import RandomWalk
from keras_rwinit.layers import DenseStack
from keras_rwinit.layers.dense_stack import run_stack
from keras_rwinit.theory import activation_names, gain, shape_activation

pytestmark = pytest.mark.backends
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="of the TensorFlow loop")

# TensorFlow's loop has hand-written gradients, rounds of ten layers, and a shorter round.
if BACKEND == "tensorflow":
    ACTIVATIONS: tuple[str, ...] = ("relu", "tanh", "gelu", "linear", "softplus", "selu", "sigmoid")
    DEPTHS: tuple[int, ...] = (1, 2, 3, 10, 11, 23)
    SEGMENTS: list[tuple[int, int | str]] = [(1, "sqrt"), (23, "sqrt"), (23, 1), (22, 11), (23, 23), (23, 99)]
else:
    ACTIVATIONS, DEPTHS, SEGMENTS = ("relu", "tanh", "gelu"), (1, 11), [(1, "sqrt"), (11, 4), (11, 99)]


def assert_same_network(stack: DenseStack, plain: keras.Model) -> None:
    """Outputs to 1e-5 and every gradient to 1e-4, relative to the largest entry."""
    model = as_model(stack)
    assert relative_error(run(model, X), run(plain, X)) < 1e-5
    *weights, inputs = weight_gradients(model, X)
    *plain_weights, plain_inputs = weight_gradients(plain, X)
    assert relative_error(inputs, plain_inputs) < 1e-4
    for stacked, separate in zip(weights, stack_weights(plain_weights, len(weights)), strict=True):
        assert stacked.shape == separate.shape
        assert relative_error(stacked, separate) < 1e-4


def _slow_unless(default: bool, *values: Any) -> Any:
    return pytest.param(*values, marks=() if default else pytest.mark.slow)


# By default on TensorFlow: every activation at one depth, and at every depth a slope from the output and one
# from the input. Other back ends differentiate all activations alike.
@pytest.mark.parametrize(
    ("depth", "activation"),
    [
        _slow_unless(
            depth == 11 or activation in ("tanh", "gelu")
            if BACKEND == "tensorflow"
            else (depth, activation) == (11, "gelu") or (BACKEND == "torch" and depth == 1),
            depth,
            activation,
        )
        for depth in DEPTHS
        for activation in ACTIVATIONS
    ],
)
def test_outputs_and_gradients_are_those_of_dense_layers(depth: int, activation: str) -> None:
    stack = make_stack(depth, activation)
    assert_same_network(stack, dense_layers(stack))


@slow_on_jax
def test_a_shaped_activation_has_the_shape_of_the_stacks_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slope of one is read off the output, that of the other off the pre-activation."""
    stacks = [make_stack(11, name) for name in ("shaped(tanh)", "shaped(elu)")]
    monkeypatch.setattr(activation_names, "smooth_shape", lambda *args: pytest.fail("solved again"))
    for stack, name in zip(stacks, ("tanh", "elu"), strict=True):
        assert stack.activation.name == shape_activation(name, 11).name
        again = DenseStack.from_config(stack.get_config())
        assert again.activation == stack.activation
        assert again.get_config() == stack.get_config()
        assert_same_network(stack, dense_layers(stack))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_two_hundred_layers(activation: str) -> None:
    stack = make_stack(200, activation)
    assert_same_network(stack, dense_layers(stack))


@pytest.mark.parametrize("activation", [pytest.param("tanh", marks=SLOW_ON_JAX), "gelu"])
@pytest.mark.parametrize("depth", [3, pytest.param(11, marks=SLOW_ON_JAX)])
def test_without_biases(depth: int, activation: str) -> None:
    stack = make_stack(depth, activation, use_bias=False)
    assert stack.bias is None
    assert len(stack.weights) == 1
    assert_same_network(stack, dense_layers(stack))


@pytest.mark.parametrize("activation", [keras.layers.LeakyReLU(0.1), lambda a: a / (1.0 + abs(a)), None])
def test_activations_that_are_no_names(activation: Any) -> None:
    stack = make_stack(11, activation)
    assert_same_network(stack, dense_layers(stack))


def test_one_layer_at_a_time() -> None:
    """The definition, in NumPy."""
    stack = make_stack(11, "tanh")
    kernel, bias = weights_of(stack)
    h = X.astype(np.float64)
    for w, b in zip(kernel, bias, strict=True):
        h = np.tanh(h @ w + b)
    np.testing.assert_allclose(run(stack, X), h, atol=1e-6)


def test_a_wrong_weight_shows() -> None:
    """The twin: one kernel entry of one layer off by a tenth of its size, and they are no longer the same."""
    stack = make_stack(11, "tanh")
    plain = dense_layers(stack)
    kernel = to_numpy(stack.kernel)
    kernel[5] *= 1.1
    stack.kernel.assign(kernel)
    assert relative_error(run(stack, X), run(plain, X)) > 1e-3


@tensorflow_only
@pytest.mark.parametrize(
    ("activation", "depth", "jit_compile", "training", "remat"),
    [
        ("tanh", 3, None, False, None),
        ("tanh", 23, None, True, None),
        ("gelu", 23, None, False, None),
        ("gelu", 23, None, True, None),
        ("tanh", 23, True, True, None),
        ("gelu", 3, True, False, None),
        ("tanh", 23, None, True, 4),
        ("tanh", 11, True, True, 4),
    ],
)
def test_graphs_and_xla(
    activation: str, depth: int, jit_compile: bool | None, training: bool, remat: int | None
) -> None:
    """In a `tf.function` of unknown batch size, and with XLA, as eagerly."""
    import tensorflow as tf

    stack = make_stack(depth, activation, remat=remat)

    def value_and_gradients(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(stack(x, training=training) ** 2)
        return value, tape.gradient(value, [x, *(w.value for w in stack.trainable_weights)])

    graph = tf.function(
        value_and_gradients,
        input_signature=[tf.TensorSpec([None if jit_compile is None else BATCH, WIDTH])],
        jit_compile=jit_compile,
    )
    eager, compiled = value_and_gradients(tf.constant(X)), graph(tf.constant(X))
    assert float(compiled[0]) == pytest.approx(float(eager[0]), rel=1e-5)
    for one, other in zip(compiled[1], eager[1], strict=True):
        assert relative_error(to_numpy(one), to_numpy(other)) < 1e-4


@pytest.mark.parametrize("activation", [pytest.param("tanh", marks=SLOW_ON_JAX), "gelu"])
@pytest.mark.parametrize(("depth", "remat"), SEGMENTS)
def test_recomputed_activations(depth: int, remat: int | str, activation: str) -> None:
    """Segments that leave a short one or none, of one layer, and of more layers than there are."""
    stack = make_stack(depth, activation, remat=remat)
    assert_same_network(stack, dense_layers(stack))


@pytest.mark.skipif(BACKEND == "jax", reason="runs no Python between the layers")
@pytest.mark.parametrize(("remat", "again"), [(None, 0), (3, 9), ("sqrt", 9), (9, 0)])
@pytest.mark.parametrize("training", [None, True])
def test_what_is_not_kept_is_computed_again(
    training: bool | None, remat: int | str | None, again: int
) -> None:
    """Counted one by one: nine activations forward, and those that were not kept backward."""
    calls: list[int] = []

    def activation(a: Any) -> Any:
        calls.append(1)
        return keras.ops.tanh(a)

    def value(tensors: Any) -> Any:
        h = run_stack(
            tensors[0], tensors[1], None, activation, not training, make_stack(9, remat=remat)._segment()
        )
        forward.append(len(calls))
        return keras.ops.sum(h)

    arrays = [X, to_numpy(make_stack(9).kernel)]
    forward: list[int] = []
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = value(tensors)
        tape.gradient(total, tensors)
        again += 9  # without a slope that can be read off the output, backward asks the function for it
        again += 0 if training else 9  # a loop that can be exported keeps nothing
    else:
        gradients(value, arrays)
    assert (forward[0], len(calls) - forward[0]) == (9, again)


def temporary_memory(activation: Any, segment: int | None) -> int:
    """Returns the bytes that XLA needs for the gradient of 400 layers with activations of 64 KiB."""
    import jax

    def value(x: Any, kernel: Any) -> Any:
        return run_stack(x, kernel, None, activation, False, segment).sum()

    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((512, 32), (400, 32, 32))]
    compiled = jax.jit(jax.grad(value)).lower(*shapes).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


@pytest.mark.skipif(BACKEND != "jax", reason="asks XLA")
def test_recomputing_takes_less_memory_on_jax() -> None:
    """400 activations, or 20 of the segments and 20 of one of them."""
    assert temporary_memory(keras.ops.tanh, 20) < temporary_memory(keras.ops.tanh, None) / 4


@pytest.mark.skipif(BACKEND != "jax", reason="asks XLA")
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_one_array_a_layer_is_kept_on_jax(activation: str) -> None:
    """JAX alone keeps at least two: a layer's inputs for its kernel, and its slopes."""
    layers = 400 * 512 * 32 * 4
    assert layers <= temporary_memory(keras.activations.get(activation), None) < 1.2 * layers


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX's loop, which is differentiated by JAX")
def test_forward_mode_on_jax() -> None:
    """Second derivatives by both modes, against the Dense layers'."""
    import jax

    stack = make_stack(5, "tanh", remat=4)
    plain = dense_layers(stack)

    def curvature(call: Any) -> Any:
        def slope(x: Any) -> Any:
            return jax.jvp(lambda inputs: call(inputs).sum(), (x,), (keras.ops.ones_like(x),))[1]

        return jax.jit(jax.value_and_grad(slope))(keras.ops.convert_to_tensor(X))

    for one, other in zip(curvature(stack), curvature(plain), strict=True):
        assert relative_error(to_numpy(one), to_numpy(other)) < 1e-4


@pytest.mark.skipif(
    BACKEND != "jax", reason="of JAX's loop, which differentiates by what the activation holds"
)
def test_a_parameter_of_the_activation_on_jax() -> None:
    """The logarithm has no value at 0, which must not reach the gradient at its factor."""
    import jax

    kernels, x = np.full((3, WIDTH, WIDTH), 0.1, "float32"), np.zeros((BATCH, WIDTH), "float32")
    biases = np.full((3, WIDTH), 3.0, "float32")

    def stacked(factor: Any) -> Any:
        return run_stack(x, kernels, biases, lambda a: factor * jax.numpy.log(a)).sum()

    def separate(factor: Any) -> Any:
        h = x
        for kernel, bias in zip(kernels, biases, strict=True):
            h = factor * jax.numpy.log(h @ kernel + bias)
        return h.sum()

    found, expected = (float(jax.grad(value)(1.0)) for value in (stacked, separate))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("inputs", [0.0, -1.0])
def test_an_activation_without_a_slope_at_the_inputs(inputs: float) -> None:
    """The root has an infinite slope at 0, and below neither value nor slope: the inputs do not pass it."""
    kernel = np.full((3, WIDTH, WIDTH), 0.1, "float32")
    x, bias = np.full((BATCH, WIDTH), inputs, "float32"), np.full((3, WIDTH), 3.0, "float32")

    def stacked(tensors: Any) -> Any:
        return keras.ops.sum(run_stack(*tensors, keras.ops.sqrt))

    def separate(tensors: Any) -> Any:
        h, kernels, biases = tensors
        for layer in range(3):
            h = keras.ops.sqrt(h @ kernels[layer] + biases[layer])
        return keras.ops.sum(h)

    found, expected = (gradients(value, [x, kernel, bias]) for value in (stacked, separate))
    for one, other in zip(found, expected, strict=True):
        assert np.isfinite(to_numpy(other)).all()
        assert relative_error(to_numpy(one), to_numpy(other)) < 1e-5


@tensorflow_only
@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_recomputed_activations_in_graphs(jit_compile: bool) -> None:
    losses = [
        fit(as_model(make_stack(23, "tanh", remat=remat)), 3, jit_compile=jit_compile)
        for remat in (None, "sqrt", 4)
    ]
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-6)


@tensorflow_only
@pytest.mark.parametrize(
    ("depth", "activation", "remat"),
    [
        (4, "tanh", 2),
        (3, "gelu", None),
        *(
            pytest.param(12, activation, remat, marks=pytest.mark.slow)
            for activation in ("tanh", "selu", "gelu")
            for remat in (None, 5)
        ),
    ],
)
def test_second_derivatives(depth: int, activation: str, remat: int | None) -> None:
    """The loop's gradient is differentiable in turn: Hessian times gradient, in float64."""
    import tensorflow as tf

    stack = make_stack(depth, activation, dtype="float64", remat=remat)
    plain = dense_layers(stack)

    def second(model: Any, x: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = tf.reduce_sum(model(x) ** 2)
            squared = tf.reduce_sum(inner.gradient(value, x) ** 2)
        return outer.gradient(squared, [x, *(w.value for w in model.trainable_weights)])

    x = tf.constant(X, tf.float64)
    inputs, *stacked = tf.function(second)(stack, x)
    plain_inputs, *separate = second(plain, x)
    assert relative_error(to_numpy(inputs), to_numpy(plain_inputs)) < 1e-12
    for one, other in zip(stacked, stack_weights([to_numpy(w) for w in separate], 2), strict=True):
        assert relative_error(to_numpy(one), other) < 1e-12


@pytest.mark.parametrize(
    "depth", [_slow_unless(depth == (3 if BACKEND == "jax" else 23), depth) for depth in (3, 23)]
)
def test_training_is_that_of_dense_layers(depth: int) -> None:
    """Five epochs of a full and a part batch; the loss falls, step by step as that of Dense layers."""
    stack = make_stack(depth)
    plain = dense_layers(stack)
    losses = fit(as_model(stack), epochs=5)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, fit(plain, epochs=5, **EAGERLY), rtol=1e-4)
    for one, other in zip(weights_of(stack), stack_weights(weights_of(plain), 2), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@slow_on_jax
def test_training_repeats_itself() -> None:
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        runs.append(fit(as_model(DenseStack(3, "tanh")), epochs=3, **EAGERLY))
    assert runs[0] == runs[1]


@tensorflow_only
@pytest.mark.slow
def test_training_with_xla_and_eagerly() -> None:
    usual = fit(as_model(make_stack(3)))
    for setting in ({"jit_compile": True}, {"run_eagerly": True}):
        np.testing.assert_allclose(fit(as_model(make_stack(3)), **setting), usual, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64:UserWarning")
@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [
        ("mixed_float16", 1e-2),
        pytest.param("mixed_bfloat16", 1e-1, marks=SLOW_ON_JAX),
        pytest.param("float64", 1e-6, marks=SLOW_ON_JAX),
    ],
)
def test_dtype_policies(policy: str, tolerance: float) -> None:
    """Outputs near the float32 stack's; the tolerance is some ten roundings' worth of the compute dtype."""
    stack, exact = make_stack(11, dtype=policy), make_stack(11)
    stack.set_weights(exact.get_weights())
    expected = keras.dtype_policies.get(policy)
    for weight in stack.weights:
        assert weight.dtype == expected.variable_dtype
    x64_as_32 = BACKEND == "jax" and policy == "float64"
    made = keras.backend.standardize_dtype(stack(X).dtype)
    assert made == ("float32" if x64_as_32 else expected.compute_dtype)
    assert relative_error(run(stack, X), run(exact, X)) < tolerance
    assert np.isfinite(fit(as_model(stack), **EAGERLY)).all()


def test_frozen() -> None:
    stack = make_stack(11)
    stack.trainable = False
    model = keras.Sequential([keras.Input((WIDTH,)), stack, keras.layers.Dense(WIDTH)])
    assert len(model.trainable_weights) == 2
    before = weights_of(stack)
    fit(model)
    for one, other in zip(before, weights_of(stack), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_default_initializer_is_the_random_walk_of_activation_and_depth() -> None:
    stack = DenseStack(50, "tanh")
    assert isinstance(stack.kernel_initializer, RandomWalk)
    stack.build((None, 40))
    scale = np.sqrt(40 * (to_numpy(stack.kernel).astype(np.float64) ** 2).mean())
    assert scale == pytest.approx(gain("tanh", 40, 50), rel=4.0 / np.sqrt(2 * 80_000))
    np.testing.assert_array_equal(to_numpy(stack.bias), np.zeros((50, 40)))


def test_integers_are_taken_as_dense_takes_them() -> None:
    stack = make_stack(3)
    np.testing.assert_array_equal(
        run(stack, np.eye(WIDTH, dtype=np.int32)), run(stack, np.eye(WIDTH, dtype=np.float32))
    )


@pytest.mark.parametrize(
    "shape", [(2, 3), pytest.param((0, 3), marks=SLOW_ON_JAX), pytest.param((2, 1, 3), marks=SLOW_ON_JAX)]
)
def test_inputs_of_more_axes_are_taken_as_dense_takes_them(shape: tuple[int, ...]) -> None:
    """The last axis counts the units."""
    x = np.random.default_rng(8).standard_normal((*shape, WIDTH)).astype(np.float32)
    stack = make_stack(3)
    plain = dense_layers(stack)
    model = keras.Sequential([keras.Input((None,) * (len(shape) - 1) + (WIDTH,)), stack])
    assert model.output_shape == (None,) * len(shape) + (WIDTH,)
    outputs = run(model, x)
    assert outputs.shape == x.shape
    np.testing.assert_allclose(outputs, run(plain, x), rtol=1e-5, atol=1e-6)
    *weights, inputs = weight_gradients(model, x)
    *plain_weights, plain_inputs = weight_gradients(plain, x)
    assert relative_error(inputs, plain_inputs) < 1e-4 if x.size else inputs.shape == x.shape
    for stacked, separate in zip(weights, stack_weights(plain_weights, 2), strict=True):
        assert relative_error(stacked, separate) < 1e-4


@slow_on_jax
def test_masks_go_through() -> None:
    """As through Dense: the mean over the steps that count."""
    outputs = []
    for layer in (make_stack(1), make_stack(1)[0]):
        inputs = keras.Input((3, WIDTH))
        masked = keras.layers.Masking()(inputs)
        model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(layer(masked)))
        x = np.stack([X[:3], np.zeros_like(X[:3])])
        x[1, 0] = X[3]
        outputs.append(run(model, x))
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


@tensorflow_only
@pytest.mark.parametrize("remat", [None, pytest.param("sqrt", marks=pytest.mark.slow)])
def test_the_loop_of_predictions_keeps_nothing(remat: str | None) -> None:
    """Converters to other formats know no lists of tensors; with them, ONNX files came out unusable."""
    import tensorflow as tf

    stack = make_stack(23, "tanh", remat=remat)
    graph = tf.function(stack).get_concrete_function(tf.TensorSpec([None, WIDTH])).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    operations = {node.op for node in nodes}
    assert {"While", "StatelessWhile"} & operations
    assert not [name for name in operations if "TensorList" in name or "TensorArray" in name]


@tensorflow_only
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # Keras's own
@pytest.mark.parametrize(("depth", "remat"), [(5, None), (40, None), (40, "sqrt")])
def test_onnx(depth: int, remat: str | None, tmp_path: Any) -> None:
    """A file that ONNX Runtime runs, with the stack's outputs."""
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = as_model(make_stack(depth, "tanh", remat=remat))
    expected = run(model, X)
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (outputs,) = session.run(None, {session.get_inputs()[0].name: X})
    assert relative_error(outputs, expected) < 1e-4


@tensorflow_only
@pytest.mark.parametrize(
    ("activation", "training"),
    [
        pytest.param("tanh", True, marks=pytest.mark.slow),
        pytest.param("tanh", None, marks=[pytest.mark.slow, pytest.mark.exhaustive]),
        pytest.param("gelu", True, marks=[pytest.mark.slow, pytest.mark.exhaustive]),
        pytest.param("gelu", None, marks=[pytest.mark.slow, pytest.mark.exhaustive]),
    ],
)
def test_third_derivatives_under_xla(activation: str, training: bool | None) -> None:
    """What a physics-informed network trains on: weights' gradients of second derivatives by the inputs."""
    import tensorflow as tf

    stack = make_stack(2, activation, dtype="float64")
    plain = dense_layers(stack)

    def third(model: Any, weights: Any, x: Any) -> Any:
        with tf.GradientTape() as by_weights:
            by_weights.watch(weights)
            with tf.GradientTape() as second:
                second.watch(x)
                with tf.GradientTape() as first:
                    first.watch(x)
                    value = tf.reduce_sum(model(x, training=training) ** 2)
                slope = tf.reduce_sum(first.gradient(value, x) ** 2)
            curvature = tf.reduce_sum(second.gradient(slope, x) ** 2)
        return by_weights.gradient(curvature, weights)

    x = tf.constant(X, tf.float64)
    weights = [w.value for w in stack.trainable_weights]
    compiled = tf.function(lambda x: third(stack, weights, x), jit_compile=True, autograph=False)(x)
    separate = third(lambda x, training: plain(x), [w.value for w in plain.trainable_weights], x)
    for one, other in zip(compiled, stack_weights([to_numpy(w) for w in separate], 2), strict=True):
        assert relative_error(to_numpy(one), other) < 1e-12


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX's scan, whose carry keeps its dtype")
def test_double_precision_on_jax() -> None:
    """Also of an activation that returns float32 for float64, as some of Keras's do there."""
    with double_precision():
        for activation in ("tanh", lambda a: keras.ops.cast(keras.ops.tanh(a), "float32")):
            stack = make_stack(3, activation, dtype="float64")
            assert keras.backend.standardize_dtype(stack(X.astype(np.float64)).dtype) == "float64"


def test_an_empty_batch() -> None:
    assert run(make_stack(11), X[:0]).shape == (0, WIDTH)
    assert make_stack(11).compute_output_shape((None, WIDTH)) == (None, WIDTH)


@tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_trace(jit_compile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of another size at the end, further epochs and further calls of fit trace nothing again."""
    traces = _traces(monkeypatch)
    model = as_model(make_stack(3))
    losses = fit(model, 2, jit_compile=jit_compile)  # 3 and then 2 examples
    assert len(traces) == 1
    model.fit(X, Y, batch_size=BATCH - 1, epochs=2, verbose=0)
    assert len(traces) == 1
    assert losses[1] < losses[0]


@pytest.mark.skipif(BACKEND != "jax", reason="compiles a step for every batch size")
def test_one_trace_a_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full and a last part batch make two; further epochs make none."""
    traces = _traces(monkeypatch)
    model = as_model(make_stack(3))
    fit(model)
    first = len(traces)
    model.fit(X, Y, batch_size=3, epochs=3, shuffle=False, verbose=0)
    assert len(traces) == first


def _traces(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with every trace of the loop in training."""
    loop = sys.modules[DenseStack.__module__]
    traces: list[Any] = []
    run_stack = loop.run_stack

    def counted(x: Any, kernel: Any, bias: Any, activation: Any, inference: bool, *rest: Any) -> Any:
        if not inference:
            traces.append(x.shape)
        return run_stack(x, kernel, bias, activation, inference, *rest)

    monkeypatch.setattr(loop, "run_stack", counted)
    return traces


@tensorflow_only
@pytest.mark.parametrize("segment", [None, 10])
def test_the_graph_is_as_large_at_any_depth(segment: int | None) -> None:
    """So is the time to trace and to compile it."""
    import tensorflow as tf

    def operations(depth: int) -> int:
        def gradient(x: Any, kernel: Any, bias: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                value = run_stack(x, kernel, bias, keras.activations.tanh, segment=segment)
            return tape.gradient(value, kernel)

        shapes = [(None, 4), (depth, 4, 4), (depth, 4)]
        graph = tf.function(gradient).get_concrete_function(*map(tf.TensorSpec, shapes)).graph
        library = graph.as_graph_def().library.function
        return len(graph.get_operations()) + sum(len(function.node_def) for function in library)

    assert operations(300) == operations(10_000) < 1_000


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch's compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("segment", [None, 4])
def test_the_compiler_of_pytorch_takes_the_loop(segment: int | None) -> None:
    """One graph without a break, forward and backward."""
    import torch

    x = torch.as_tensor(X)
    weights = [torch.as_tensor(w) for w in weights_of(make_stack(11, "tanh"))]

    def gradients(loop: Any) -> list[Any]:
        leaves = [w.clone().requires_grad_() for w in weights]
        value = loop(x, *leaves, torch.tanh, False, segment).square().sum()
        return [value.detach(), *torch.autograd.grad(value, leaves)]

    compiled = torch.compile(run_stack, fullgraph=True, backend="aot_eager")
    for one, other in zip(gradients(compiled), gradients(run_stack), strict=True):
        assert relative_error(one.numpy(), other.numpy()) < 1e-5


@pytest.mark.parametrize("remat", [0, -3, 1.5, True, "log"])
def test_bad_segments(remat: Any) -> None:
    with pytest.raises(ValueError, match="`remat` must be .* Received: remat="):
        DenseStack(3, remat=remat)


@pytest.mark.parametrize("depth", [0, -1, 1.5, True, "3", None])
def test_bad_depths(depth: Any) -> None:
    with pytest.raises(ValueError, match="`depth` must be an integer of at least 1. Received: depth="):
        DenseStack(depth)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(
        ValueError, match=r"needs an input of known width.*Received: input_shape=\(None, None\)"
    ):
        DenseStack(3)(keras.Input((None,)))
    with pytest.raises(ValueError, match="expected min_ndim=2, found ndim=1"):
        make_stack(3)(np.zeros(WIDTH, np.float32))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 12"):
        make_stack(3)(keras.Input((5,)))


@pytest.mark.parametrize(
    ("activation", "message"), [("gelu", "No meaningful gain"), ("softmax", "element by")]
)
def test_activations_without_a_gain_need_an_initializer(activation: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseStack(100, activation).build((None, WIDTH))
    DenseStack(3, activation, kernel_initializer="he_normal").build((None, WIDTH))
