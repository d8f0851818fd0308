"""`recipe` and `learning_rate`: the law, the size read off a model, and default networks that learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli_helpers import run_cli
from keras_helpers import to_numpy

from keras_rwinit import data, gradient_walk, initialize, model_zoo
from keras_rwinit.layers import DeepSequential, DenseStack
from keras_rwinit.training.settings import Settings

L = keras.layers


def rate(model: keras.Model, **arguments: Any) -> float:
    return float(to_numpy(model_zoo.recipe(model, **arguments)["optimizer"].learning_rate))


def test_the_law() -> None:
    """Inversely proportional to depth and to width, at most Adam's own default."""
    base = model_zoo.learning_rate(100, 64)
    assert base == pytest.approx(1e-4)
    assert model_zoo.learning_rate(1000, 64) == pytest.approx(base / 10)
    assert model_zoo.learning_rate(100, 128) == pytest.approx(base / 2)
    assert model_zoo.learning_rate(100, 64, decays=True) == pytest.approx(3 * base)
    assert model_zoo.learning_rate(1, 8) == model_zoo.learning_rate(2, 8, decays=True) == 1e-3


def test_recorded_runs_have_the_same_law() -> None:
    """They had 0.03 / depth, which is the rate of width 64."""
    depths = (30, 100, 1000)
    expected = [0.03 / depth for depth in depths]
    assert [model_zoo.learning_rate(depth, 64, decays=True) for depth in depths] == expected


@pytest.mark.parametrize(("width", "options", "decays"), [(48, [], True), (64, ["--no-cosine-decay"], False)])
def test_the_command_uses_the_same_law(
    width: int, options: list[str], decays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[Settings] = []

    def stop(settings: Settings, *args: object, **kwargs: object) -> None:
        chosen.append(settings)
        raise ValueError("The settings are known.")

    monkeypatch.setattr("keras_rwinit.commands.train.TrainingRun", stop)
    run_cli("train", "--depth", 300, "--width", width, *options)
    assert chosen[0].learning_rate == model_zoo.learning_rate(300, width, decays=decays)


@pytest.mark.backends
@pytest.mark.parametrize("width", [25, pytest.param(64, marks=pytest.mark.slow)])
def test_depth_and_width_are_found_in_every_form_of_a_model(tmp_path: Path, width: int) -> None:
    """New, unstacked and loaded, the data's fan-in left out."""
    depth = 30
    model = model_zoo.deep_mlp(depth, width, input_shape=(5,), classes=3, seed=0)
    expected = pytest.approx(0.64 / (depth * width))
    assert rate(model) == expected
    plain = model_zoo.unstack(model)
    assert rate(plain) == expected
    for number, form in enumerate((model, plain)):
        path = tmp_path / f"{number}.keras"
        form.save(path)
        assert rate(keras.models.load_model(path)) == expected
    assert rate(keras.Sequential([keras.Input((5,)), model])) == expected


def test_other_models() -> None:
    """Changing widths and convolutions count by their fan-ins, layers without kernels do not."""
    autoencoder = model_zoo.deep_autoencoder(41, 32, 8, input_shape=(12,), seed=0)
    fan_ins = [layer.shape[-2] for layer in autoencoder.weights if layer.name == "kernel"]
    assert len(fan_ins) > 3
    total = 0
    for layer in autoencoder.layers:
        if isinstance(layer, L.Dense | DenseStack):
            total += layer.kernel.shape[-2] * getattr(layer, "depth", 1)
    assert rate(autoencoder, loss="mse") == pytest.approx(min(0.64 / (total - 12), 1e-3))
    images = keras.Sequential(
        [
            keras.Input((8, 8, 64)),
            L.Conv2D(64, 3, activation="relu"),
            L.BatchNormalization(),
            L.Conv2D(64, 3),
            L.ReLU(),
            L.Flatten(),
            L.Dropout(0.1),
            L.Dense(10, "softmax"),
        ]
    )
    assert rate(images) == pytest.approx(0.64 / (9 * 64 + 4 * 4 * 64))
    assert not model_zoo.recipe(images)["loss"].get_config()["from_logits"]


def chain(*layers: Any, kind: Any = keras.Sequential) -> keras.Model:
    """Returns a model that ends with some layers."""
    hidden = L.Dense(8, "relu")
    if kind is DeepSequential:
        return DeepSequential([hidden, *layers], (4,))
    if kind is keras.Sequential:
        return keras.Sequential([keras.Input((4,)), hidden, *layers])
    inputs = keras.Input((4,))
    outputs = hidden(inputs)
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def nested(*layers: Any) -> keras.Model:
    """Returns layers as a model of their own, without a kernel."""
    return keras.Sequential([keras.Input((3,)), *layers])


def test_the_loss() -> None:
    model = model_zoo.deep_mlp(2, 4, classes=3)
    assert model_zoo.recipe(model)["loss"].get_config()["from_logits"]
    assert model_zoo.recipe(model, loss="mse")["loss"] == "mse"
    probabilities = chain(L.Dense(3), L.Softmax())
    assert not model_zoo.recipe(probabilities)["loss"].get_config()["from_logits"]
    with pytest.raises(ValueError, match="logits or a softmax; pass `loss`"):
        model_zoo.recipe(chain(L.Dense(3), L.Activation("sigmoid")))
    first, second = model_zoo.recipe(model), model_zoo.recipe(model)
    assert first["optimizer"] is not second["optimizer"]


LOGITS: list[tuple[Any, ...]] = [
    (L.Dense(3),),
    (L.Dense(3, "linear"), L.Activation("linear", dtype="float32")),
    (L.Dense(3), L.Dropout(0.5), L.Identity(), L.ActivityRegularization(l2=0.1)),
    (L.Dense(3), nested(L.Dropout(0.5))),
    (L.Reshape((2, 4)), L.TimeDistributed(L.Dense(3))),
    (L.Dense(3, "softmax"), L.Dense(3)),
]
PROBABILITIES: list[tuple[Any, ...]] = [
    (L.Dense(3, "softmax"),),
    (L.Dense(3, L.Softmax()),),
    (L.Dense(3), L.Softmax()),
    (L.Dense(3), L.Activation("softmax", dtype="float32")),
    (L.Dense(3), nested(L.Dropout(0.5), L.Softmax()), L.Identity()),
    (keras.Sequential([keras.Input((8,)), L.Dense(3)]), L.Softmax()),
]
UNKNOWN: list[tuple[Any, ...]] = [
    (L.Dense(3), L.Activation("sigmoid")),
    (L.Dense(3), L.ReLU()),
    (L.Dense(3, "relu"), L.Softmax()),
    (L.Dense(3, "softmax"), L.Softmax()),
    (L.Reshape((2, 4)), L.Dense(3), L.Softmax(axis=1)),
    (L.Dense(3), L.GaussianNoise(0.1)),
    (L.Dense(3), L.Rescaling(2.0)),
    (L.Dense(3), L.BatchNormalization()),
    (L.Reshape((2, 4)), L.Dense(3), L.LSTM(3, activation="linear")),
    (L.Dense(6), L.Reshape((2, 3))),
    (L.Dense(3), nested(L.Activation("tanh"))),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DeepSequential, keras.Sequential, keras.Model])
def test_the_loss_of_every_end_of_a_chain(kind: Any) -> None:
    """Where the outputs are not known to be logits or probabilities, no loss is guessed."""

    def copies(layers: tuple[Any, ...]) -> list[Any]:
        return [type(layer).from_config(layer.get_config()) for layer in layers]

    for from_logits, ends in ((True, LOGITS), (False, PROBABILITIES)):
        for layers in ends:
            loss = model_zoo.recipe(chain(*copies(layers), kind=kind))["loss"]
            assert loss.get_config()["from_logits"] is from_logits, [layer.name for layer in layers]
    for layers in UNKNOWN:
        with pytest.raises(ValueError, match="logits or a softmax; pass `loss`"):
            model_zoo.recipe(chain(*copies(layers), kind=kind))


def test_the_loss_of_operations_and_branches() -> None:
    inputs = keras.Input((4,))
    hidden, head = L.Dense(8, "relu")(inputs), L.Dense(3)
    for softmax in (keras.ops.softmax, keras.activations.softmax):
        model = keras.Model(inputs, softmax(head(hidden)))
        assert not model_zoo.recipe(model)["loss"].get_config()["from_logits"]
    residual = keras.Model(inputs, head(L.Add()([hidden, L.Dense(8)(hidden)])))
    assert model_zoo.recipe(residual)["loss"].get_config()["from_logits"]
    for outputs in (keras.ops.sigmoid(head(hidden)), head(hidden) * 2.0, head(hidden) + L.Dense(3)(hidden)):
        with pytest.raises(ValueError, match="pass `loss`"):
            model_zoo.recipe(keras.Model(inputs, outputs))


def test_a_subclassed_model_needs_a_loss() -> None:
    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = L.Dense(8, "relu"), L.Dense(3)

        def call(self, inputs: Any) -> Any:
            return keras.ops.softmax(self.head(self.hidden(inputs)))

    model = Subclassed()
    model(np.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match="pass `loss` for any other model"):
        model_zoo.recipe(model)
    assert rate(model, loss="mse") == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: model_zoo.deep_mlp(2, 4, classes=1), "classifier with two or more outputs.*pass `loss`"),
        (lambda: model_zoo.deep_mlp(2, 4, classifier_activation="sigmoid"), "logits or a softmax"),
        (lambda: model_zoo.deep_autoencoder(3, 4, 2, input_shape=(2, 3)), "pass `loss`"),
        (lambda: keras.Sequential([keras.Input((3,)), L.Dense(2)]), "a hidden layer .*Received: 1 kernels"),
        (lambda: keras.Sequential([L.Dense(2), L.Dense(2)]), "with weights: build it"),
        (lambda: "deep_mlp", "must be a Keras model.*Received: 'deep_mlp'"),
    ],
)
def test_models_without_a_recipe(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_zoo.recipe(make())


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "3", None])
def test_bad_sizes(bad: Any) -> None:
    with pytest.raises(ValueError, match="`depth` must be an integer of at least 1"):
        model_zoo.learning_rate(bad, 10)
    with pytest.raises(ValueError, match="`width` must be an integer of at least 1"):
        model_zoo.learning_rate(10, bad)


def test_a_model_in_the_place_of_sizes_is_told_of_the_recipe() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    for sizes in ((model,), (model, 64)):
        with pytest.raises(ValueError, match=r"For a model there is `recipe\(model\)`"):
            model_zoo.learning_rate(*sizes)


def learned(
    depth: int, activation: str, *, width: int, batch: int, epochs: int = 10, **changed: Any
) -> float:
    """Accuracy on the training set of the digits, by the code of the README."""
    keras.utils.set_random_seed(0)
    digits = data.load("digits")
    model = model_zoo.deep_mlp(depth, width, activation, input_shape=(64,), seed=0, **changed)
    model.compile(**model_zoo.recipe(model), metrics=["accuracy"])
    model.fit(digits.x_train, digits.y_train, batch_size=batch, epochs=epochs, verbose=0)
    return float(model.evaluate(digits.x_train, digits.y_train, batch_size=512, verbose=0)[1])


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_default_networks_learn(activation: str) -> None:
    assert learned(50, activation, width=32, batch=128) > 0.9


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("depth", [20, 100, 300, 1000])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_default_network_learns_at_every_depth(depth: int, activation: str) -> None:
    """The table of `benchmarks/depths.py`, its first seed."""
    assert learned(depth, activation, width=100, batch=32) > 0.9


@pytest.mark.slow
@pytest.mark.exhaustive
def test_normal_relu_layers_do_not_learn() -> None:
    """Twin: with the former default, the accuracy of 300 layers stays near chance at the same rate."""
    assert learned(300, "relu", width=100, batch=32, distribution="normal") < 0.5


@pytest.mark.backends
@pytest.mark.parametrize(
    "activation",
    ["relu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gelu", "leaky_relu(0.3)"))],
)
def test_the_default_network_is_linear_at_first(activation: str, tmp_path: Path) -> None:
    """Outputs double with the inputs, in a loaded copy and without the stack, too."""
    shape = {"depth": 30, "width": 12, "activation": activation, "input_shape": (7,), "classes": 3, "seed": 4}
    model = model_zoo.deep_mlp(**shape)
    x = np.random.default_rng(0).normal(size=(6, 7)).astype("float32")
    outputs = to_numpy(model(x))
    np.testing.assert_allclose(to_numpy(model(2 * x)), 2 * outputs, rtol=1e-3, atol=1e-4)
    assert 1.0 < np.sqrt((outputs**2).mean()) < 9.0  # an output gain of 3
    plain = model_zoo.deep_mlp(**shape, stacked=False)
    np.testing.assert_allclose(to_numpy(plain(x)), outputs, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(x)), outputs)
    fresh = keras.models.clone_model(loaded)  # the initializers know their sides
    np.testing.assert_allclose(to_numpy(fresh(2 * x)), 2 * to_numpy(fresh(x)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "distribution"),
    [
        ({"activation": "relu"}, "looks_linear"),
        ({"activation": "relu", "width": 1}, "orthogonal"),
        ({"activation": "gelu"}, "looks_linear"),
        ({"activation": "tanh"}, "orthogonal"),
        ({"activation": "linear"}, "orthogonal"),
        ({"activation": "relu", "bias_stddev": 0.1}, "normal"),
        ({"activation": "relu", "distribution": "normal"}, "normal"),
    ],
)
def test_the_default_distribution(arguments: dict[str, Any], distribution: str) -> None:
    model = model_zoo.deep_mlp(**{"depth": 2, "width": 20, "input_shape": (4,), **arguments})
    initializer = model.get_layer("hidden_stack").kernel_initializer
    assert initializer.distribution == distribution


def test_output_gain_of_the_default() -> None:
    """3 by default, 1 with a distribution that is given, and the paper's values with random biases."""
    shape = {"depth": 3, "width": 20, "input_shape": (4,), "seed": 1}

    def classifier(**changed: Any) -> float:
        return float(
            model_zoo.deep_mlp(**shape, **changed).get_layer("classifier").kernel_initializer.gain or 0
        )

    assert classifier() == pytest.approx(3 * classifier(distribution="looks_linear"))
    assert classifier(output_gain=0.5) == pytest.approx(0.5 * classifier(distribution="looks_linear"))
    assert classifier(activation="tanh") == 3.0
    assert classifier(activation="tanh", distribution="orthogonal") == 0.0  # computed when drawn: 1
    assert classifier(bias_stddev=0.1) == 0.0


def test_random_biases_break_the_pairs() -> None:
    with pytest.raises(ValueError, match="'looks_linear' needs pairs of equal units.*bias_stddev=0.1"):
        model_zoo.deep_mlp(3, 8, distribution="looks_linear", bias_stddev=0.1)


def test_a_mirrored_autoencoder_is_linear() -> None:
    """With odd widths too, here 15, 9 and 5."""
    model = model_zoo.deep_autoencoder(
        9, 15, 5, "relu", input_shape=(12,), distribution="looks_linear", seed=1
    )
    x, y = np.random.default_rng(0).normal(size=(2, 6, 12)).astype("float32")
    of_x, of_y, of_sum = (to_numpy(model(values)) for values in (x, y, x + y))
    np.testing.assert_allclose(of_sum, of_x + of_y, atol=1e-5)
    assert np.abs(of_x).mean() > 0.01


@pytest.mark.parametrize("width", [12, 13])
def test_the_measured_walk_is_flat_and_predicted(width: int) -> None:
    """To float32's rounding, for every example; with a gain of one's own it is a straight line."""
    shape = {"width": width, "input_shape": (40,), "classes": 3, "seed": 4}
    x = np.random.default_rng(0).normal(size=(6, 40))
    walk = gradient_walk(model_zoo.deep_mlp(30, **shape), x)
    assert np.ptp(walk.backward, axis=1).max() < 1e-5
    assert walk.prediction is not None
    assert abs(walk.prediction.drift) < 1e-6
    assert walk.prediction.spread == walk.prediction.dead_probability == 0.0
    tilted = gradient_walk(model_zoo.deep_mlp(30, gain=1.1 * 2.0**0.5, **shape), x)
    assert tilted.drift == pytest.approx(np.log(1.1), abs=1e-6)
    assert tilted.prediction is not None
    assert tilted.prediction.drift == pytest.approx(np.log(1.1), abs=1e-6)


def test_initialize_mirrors_the_kernels_of_a_deep_mlp() -> None:
    model = model_zoo.deep_mlp(30, 9, input_shape=(4,), distribution="normal", seed=0)
    report = initialize(model, distribution="looks_linear", seed=1)
    assert [kernel.count for kernel in report.kernels] == [1, 29, 1]
    walk = gradient_walk(model, np.random.default_rng(0).normal(size=(6, 4)))
    assert np.ptp(walk.backward, axis=1).max() < 1e-5
