"""Saved and loaded again: configs, JSON, clones, every file format, in a process that knows nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, SLOW_ON_JAX, WIDTH, Array, relative_error, run, to_numpy, weights_of

from keras_rwinit import model_zoo
from keras_rwinit.initializers import RandomWalk, RandomWalkLinear, RandomWalkReLU, RandomWalkTanh
from keras_rwinit.layers import DenseStack

pytestmark = pytest.mark.backends

layers = keras.layers
X = np.random.default_rng(3).standard_normal((4, 6)).astype(np.float32)

every_class = pytest.mark.parametrize(
    "cls", [RandomWalk, RandomWalkLinear, RandomWalkReLU, RandomWalkTanh], ids=lambda cls: cls.__name__
)
every_distribution = pytest.mark.parametrize(
    "distribution", ["normal", "truncated_normal", "uniform", "orthogonal"]
)


def draw(initializer: Any, shape: tuple[int, ...] = (16, 5)) -> Array:
    return to_numpy(initializer(shape))


@every_distribution
@every_class
def test_initializers(cls: Any, distribution: str) -> None:
    initializer = cls(distribution=distribution, depth=30, gain=1.25, seed=6, fan_in=12)
    config = initializer.get_config()
    expected: dict[str, Any] = {
        "distribution": distribution,
        "depth": 30,
        "gain": 1.25,
        "seed": 6,
        "fan_in": 12,
        "mirrored": "both",
    }
    if cls is RandomWalk:
        expected["activation"] = "relu"
    assert config == expected
    text = json.dumps(keras.initializers.serialize(initializer))
    kernel = draw(initializer, (3, 4, 5))
    for copy in (
        cls.from_config(config),
        cls.from_config(json.loads(json.dumps(config))),
        initializer.clone(),
        keras.initializers.deserialize(json.loads(text)),
        keras.initializers.get(json.loads(text)),
    ):
        assert type(copy) is cls
        assert copy.get_config() == config
        np.testing.assert_array_equal(kernel, draw(copy, (3, 4, 5)))


def test_an_initializer_with_a_seed_generator() -> None:
    initializer = RandomWalkTanh(seed=keras.random.SeedGenerator(9))
    copy = keras.initializers.deserialize(json.loads(json.dumps(keras.initializers.serialize(initializer))))
    np.testing.assert_array_equal(draw(initializer), draw(copy))


@pytest.mark.parametrize("form", [keras.activations.tanh, keras.layers.LeakyReLU(0.1), keras.layers.ELU(2.0)])
def test_initializers_of_activations_that_are_no_names(form: Any) -> None:
    initializer = RandomWalk(form, depth=20, seed=1)
    copy = keras.initializers.deserialize(json.loads(json.dumps(keras.initializers.serialize(initializer))))
    np.testing.assert_array_equal(draw(initializer), draw(copy))


def test_dense_stack() -> None:
    stack = DenseStack(
        4,
        "selu",
        use_bias=True,
        kernel_initializer=keras.initializers.HeNormal(seed=3),
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2),
        bias_regularizer="l2",
        kernel_constraint=keras.constraints.MaxNorm(3.0, axis=0),
        bias_constraint="non_neg",
        activity_regularizer="l1",
        name="mine",
        dtype="mixed_bfloat16",
        trainable=False,
    )
    text = json.dumps(keras.saving.serialize_keras_object(stack))
    copy = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(copy) is DenseStack
    assert copy.get_config() == stack.get_config()
    assert json.dumps(keras.saving.serialize_keras_object(copy)) == text
    for layer in (stack, copy):
        layer.build((None, WIDTH))
    for one, other in zip(weights_of(stack), weights_of(copy), strict=True):
        np.testing.assert_array_equal(one, other)


def mlp(stacked: bool) -> keras.Model:
    arguments: dict[str, Any] = {"input_shape": (6,), "classes": 3, "distribution": "orthogonal", "seed": 1}
    return model_zoo.deep_mlp(5, 20, "tanh", stacked=stacked, **arguments)


def dense_by_string_ids() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(9, kernel_initializer="random_walk"),
            layers.Dense(9, "relu", kernel_initializer="random_walk_relu"),
            layers.Dense(9, "tanh", kernel_initializer="random_walk_tanh"),
            layers.Dense(3, kernel_initializer="random_walk_linear"),
        ],
        name="by_string_ids",
    )


def stack_with_settings() -> keras.Model:
    """What a DenseStack's config holds beside its defaults."""
    stack = DenseStack(
        12,
        layers.LeakyReLU(0.2),
        kernel_initializer=RandomWalk(layers.LeakyReLU(0.2), "uniform", seed=1),
        kernel_regularizer="l2",
        kernel_constraint="unit_norm",
        use_bias=False,
    )
    return keras.Sequential([keras.Input((6,)), stack])


MODELS = {
    "stacked": lambda: mlp(stacked=True),
    "plain": lambda: mlp(stacked=False),
    "string_ids": dense_by_string_ids,
    "settings": stack_with_settings,
}
every_model = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW_ON_JAX if name in ("stacked", "plain") else ()) for name in MODELS]
)


@every_model
def test_clones_and_json(name: str) -> None:
    """A seeded architecture draws the same weights again; others get them set."""
    model = MODELS[name]()
    for copy in (
        keras.models.clone_model(model),
        keras.models.model_from_json(model.to_json()),
        type(model).from_config(json.loads(json.dumps(model.get_config()))),
    ):
        assert type(copy) is type(model)
        assert copy.name == model.name
        assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
        if name != "string_ids":
            np.testing.assert_array_equal(run(copy, X), run(model, X))
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(run(copy, X), run(model, X))


@every_model
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_model_files(name: str, suffix: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    for weight in model.weights:  # not those that a seed would bring back
        weight.assign(1.5 * keras.ops.convert_to_tensor(weight) + 0.01)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(run(loaded, X), run(model, X))


@every_model
def test_weight_files(name: str, tmp_path: Path) -> None:
    model, other = MODELS[name](), MODELS[name]()
    for weight in model.weights:
        weight.assign(1.5 * keras.ops.convert_to_tensor(weight) + 0.01)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for one, loaded in zip(weights_of(model), weights_of(other), strict=True):
        np.testing.assert_array_equal(one, loaded)


@pytest.mark.parametrize(
    "stacked", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["stacked", "plain"]
)
def test_training_goes_on_after_loading(stacked: bool, tmp_path: Path) -> None:
    """Optimizer state and all: an epoch before and one after saving are two epochs."""
    targets = np.array([0, 1, 2, 0], np.int32)  # JAX 0.12 warns of int64, which Keras passes on to it
    model = mlp(stacked)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=BACKEND == "jax")
    model.fit(X, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    losses = [m.fit(X, targets, verbose=0, epochs=2).history["loss"] for m in (model, loaded)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


LOAD = """
import sys
from pathlib import Path
import numpy as np
directory = Path(sys.argv[1])
x = np.load(directory / "x.npy")
outputs = {}
import keras, keras_rwinit
for file in sorted([*directory.glob("*.keras"), *directory.glob("*.h5")]):
    outputs[file.name] = keras.ops.convert_to_numpy(keras.models.load_model(file)(x))
for file in sorted(directory.glob("*.saved")):
    import tensorflow as tf
    loaded = tf.saved_model.load(file)
    outputs[file.name] = loaded.serve(x).numpy()
np.savez(directory / "outputs.npz", **outputs)
"""


@pytest.mark.slow
def test_files_load_in_a_process_that_only_imports_the_package(tmp_path: Path) -> None:
    """No `custom_objects`, nothing registered by hand; SavedModels as well, on TensorFlow."""
    expected = {}
    for name, make in MODELS.items():
        model = make()
        for suffix in (".keras", ".h5"):
            model.save(tmp_path / f"{name}{suffix}")
            expected[f"{name}{suffix}"] = run(model, X)
        if BACKEND == "tensorflow":
            model.export(tmp_path / f"{name}.saved", verbose=False)
            expected[f"{name}.saved"] = run(model, X)
    np.save(tmp_path / "x.npy", X)
    finished = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:keras_rwinit", "-c", LOAD, tmp_path],
        env={**os.environ, "KERAS_BACKEND": BACKEND},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert set(outputs.files) == set(expected)
        for file, values in expected.items():
            assert relative_error(outputs[file], values) < 1e-5, file
