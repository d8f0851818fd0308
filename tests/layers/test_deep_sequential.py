"""`DeepSequential`: a `keras.Sequential` without the depth limit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import (
    BACKEND,
    EAGERLY,
    WIDTH,
    Array,
    X,
    fit,
    relative_error,
    run,
    slow_on_jax,
    to_numpy,
    weight_gradients,
    weights_of,
)

from keras_rwinit.layers import DeepSequential

pytestmark = pytest.mark.backends

layers = keras.layers


def make_layers() -> list[keras.layers.Layer]:
    """A chain of several kinds of layers, seeded."""
    seeded = keras.initializers.GlorotUniform
    return [
        layers.Dense(9, "tanh", kernel_initializer=seeded(seed=1), name="first"),
        layers.LayerNormalization(name="norm"),
        layers.Dense(7, kernel_initializer=seeded(seed=2), name="second"),
        layers.LeakyReLU(0.1, name="leaky"),
        layers.Dense(WIDTH, kernel_initializer=seeded(seed=3), name="third"),
    ]


def make_chain() -> DeepSequential:
    return DeepSequential(make_layers(), (WIDTH,), name="chain")


def test_it_is_a_sequential_model() -> None:
    """Outputs, gradients, weights, shapes and training of `keras.Sequential`."""
    chain, usual = make_chain(), keras.Sequential([keras.Input((WIDTH,)), *make_layers()])
    assert [layer.name for layer in chain.layers] == [layer.name for layer in usual.layers]
    assert chain.built
    assert (chain.input_shape, chain.output_shape) == (usual.input_shape, usual.output_shape)
    assert chain.count_params() == usual.count_params()
    np.testing.assert_array_equal(run(chain, X), run(usual, X))
    for one, other in zip(weight_gradients(chain, X), weight_gradients(usual, X), strict=True):
        assert relative_error(one, other) < 1e-5
    if BACKEND == "jax":  # compiles for seconds
        return
    np.testing.assert_allclose(fit(chain, 2, **EAGERLY), fit(usual, 2, **EAGERLY), rtol=1e-5)
    for one, other in zip(weights_of(chain), weights_of(usual), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_layers_by_name_and_summary() -> None:
    chain = make_chain()
    assert chain.get_layer("second").units == 7
    lines: list[str] = []
    chain.summary(print_fn=lambda line, **_: lines.append(line))
    assert all(layer.name in "".join(lines) for layer in chain.layers)


def test_predicting_batch_by_batch() -> None:
    chain = make_chain()
    chain.compile(jit_compile=BACKEND == "jax")
    np.testing.assert_allclose(chain.predict(X, batch_size=2, verbose=0), run(chain, X), rtol=1e-5, atol=1e-6)


def test_training_mode_reaches_the_layers() -> None:
    chain = DeepSequential([layers.Dropout(0.5, seed=1), layers.BatchNormalization()], (WIDTH,))
    x = keras.ops.ones((1, WIDTH))
    np.testing.assert_allclose(to_numpy(chain(x)), 1.0, rtol=1e-3)
    dropped = chain.layers[0](x, training=True)
    assert set(to_numpy(dropped).ravel()) == {0.0, 2.0}
    np.testing.assert_allclose(to_numpy(chain(x, training=True)), 0.0, atol=1e-6)


@pytest.fixture
def recursion_limit() -> Iterator[int]:
    """A limit that a chain of few layers shows to be kept."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(250)
    yield 250
    sys.setrecursionlimit(limit)


def assert_builds_and_runs_within_the_recursion_limit(count: int) -> None:
    limit = sys.getrecursionlimit()
    chain = DeepSequential([layers.Dense(2) for _ in range(count)], (2,))
    assert len(chain.layers) == count
    assert chain.count_params() == count * 6
    assert run(chain, X[:2, :2]).shape == (2, 2)
    assert sys.getrecursionlimit() == limit < count


@pytest.mark.slow
def test_more_layers_than_the_recursion_limit(recursion_limit: int) -> None:
    assert_builds_and_runs_within_the_recursion_limit(recursion_limit + 20)


@pytest.mark.slow
def test_thousand_layers_build_and_run_within_the_recursion_limit() -> None:
    assert_builds_and_runs_within_the_recursion_limit(1100)


def test_config_and_clone() -> None:
    chain = make_chain()
    text = json.dumps(keras.saving.serialize_keras_object(chain))
    for copy in (
        keras.saving.deserialize_keras_object(json.loads(text)),
        DeepSequential.from_config(chain.get_config()),
        keras.models.model_from_json(chain.to_json()),
        keras.models.clone_model(chain),
    ):
        assert type(copy) is DeepSequential
        assert copy.name == "chain"
        assert json.dumps(copy.get_config()) == json.dumps(chain.get_config())
        np.testing.assert_array_equal(run(copy, X), run(chain, X))
        assert not {id(layer) for layer in copy.layers} & {id(layer) for layer in chain.layers}


def test_the_config_keeps_the_dtype_policy() -> None:
    """The model's own policy decides what its inputs are cast to."""
    chain = DeepSequential([layers.Dense(3, dtype="mixed_bfloat16")], (2,), dtype="mixed_bfloat16")
    assert DeepSequential.from_config(chain.get_config()).dtype_policy == chain.dtype_policy


def test_frozen_layers_stay_frozen_in_a_copy() -> None:
    chain = make_chain()
    chain.layers[0].trainable = False
    copy = DeepSequential.from_config(chain.get_config())
    assert [layer.trainable for layer in copy.layers] == [False, True, True, True, True]
    assert len(copy.trainable_weights) == len(chain.trainable_weights) == 6


def test_chains_within_models_and_models_within_chains() -> None:
    inputs = keras.Input((WIDTH,))
    chain = make_chain()
    np.testing.assert_array_equal(run(keras.Model(inputs, chain(inputs)), X), run(chain, X))
    nested = DeepSequential([chain, keras.Sequential([layers.Dense(2)])], (WIDTH,))
    assert nested.output_shape == (None, 2)
    copy = DeepSequential.from_config(nested.get_config())
    copy.set_weights(nested.get_weights())
    np.testing.assert_array_equal(run(copy, X), run(nested, X))


def test_layers_that_are_built_already_are_kept() -> None:
    dense = layers.Dense(3)
    dense.build((None, WIDTH))
    kernel = to_numpy(dense.kernel)
    chain = DeepSequential([dense], (WIDTH,))
    np.testing.assert_array_equal(to_numpy(chain.layers[0].kernel), kernel)


@slow_on_jax
def test_images() -> None:
    chain = DeepSequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)], (6, 6, 1))
    assert chain.input_shape == (None, 6, 6, 1)
    images: Array = np.ones((3, 6, 6, 1), np.float32)
    assert run(chain, images).shape == (3, 2)


@pytest.mark.parametrize("chain", [[], ()])
def test_no_layer(chain: Any) -> None:
    with pytest.raises(ValueError, match="DeepSequential needs at least one layer. Received: layers="):
        DeepSequential(chain, (3,))


@pytest.mark.parametrize("wrong", [3, keras.Input((3,)), layers.Dense], ids=["number", "input", "class"])
def test_what_is_no_layer(wrong: Any) -> None:
    with pytest.raises(ValueError, match="`layers` must be Keras layers.*Received: "):
        DeepSequential([layers.Dense(3), wrong], (3,))


def test_a_layer_twice() -> None:
    """A model lists, counts and saves it once; `unstack` would drop the second."""
    again = layers.Dense(3, name="again")
    with pytest.raises(ValueError, match=r"`layers` must hold each .* functional .*\['again', 'again'\]"):
        DeepSequential([again, again], (3,))


def test_inputs_of_another_width() -> None:
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 12"):
        make_chain()(X[:, :5])
