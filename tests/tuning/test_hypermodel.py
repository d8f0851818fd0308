"""The search space: its axes, its budget, its networks, and keras-tuner's own tuners on it."""

from __future__ import annotations

import inspect
import re
import time
from pathlib import Path
from typing import Any

import keras
import pytest
from tuning_helpers import DIVERGING, few_digits, small_space

import keras_rwinit
from keras_rwinit import model_zoo
from keras_rwinit.theory import shape_activation

keras_tuner = pytest.importorskip("keras_tuner")

from keras_rwinit import tuning  # noqa: E402
from keras_rwinit.commands.tune import tune  # noqa: E402
from keras_rwinit.tuning._budget import largest_depth  # noqa: E402
from keras_rwinit.tuning._forecast import forecast_trial  # noqa: E402
from keras_rwinit.tuning._point import Point  # noqa: E402


def test_a_space_of_a_million_layers_is_answered_at_once() -> None:
    start = time.process_time()
    space = tuning.DeepMLPHyperModel((10**9,), 1, depth=10**6, output_gain_ratio=[1.1])
    assert space.point(keras_tuner.HyperParameters()).depth == 10**6
    assert time.process_time() - start < 2.0


def hp_with(**fixed: Any) -> Any:
    hp = keras_tuner.HyperParameters()
    for name, value in fixed.items():
        hp.Fixed(name, value)
    return hp


def test_the_default_point_is_the_analytic_optimum_of_the_narrowest_walk() -> None:
    hp = keras_tuner.HyperParameters()
    space = small_space(width=(8, 16), depth=(2, 9))
    point = space.point(hp)
    assert hp.values == {"gain_ratio": 1.0, "width": 16, "depth": 2}
    assert space.forecast(point).gain == keras_rwinit.gain("relu", 16, 2, distribution="orthogonal")


@pytest.mark.parametrize(
    ("activation", "distribution"),
    [
        ("relu", None),
        ("tanh", None),
        ("gelu", "looks_linear"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                ("gelu", None),
                ("leaky_relu(0.5)", "looks_linear"),
                ("relu", "orthogonal"),
                ("relu", "delta_orthogonal"),
                ("selu", "normal"),
                ("selu", "uniform"),
                ("selu", "truncated_normal"),
            )
        ),
    ],
)
def test_the_first_model_is_that_of_deep_mlp(activation: str, distribution: str | None) -> None:
    """Kernel by kernel; each ratio multiplies its own kernel only."""
    shape = {"activation": activation, "distribution": distribution, "seed": 3}
    space = small_space(width=16, depth=4, input_gain_ratio=(0.5, 2.0), output_gain_ratio=(0.5, 2.0), **shape)
    expected = model_zoo.deep_mlp(4, 16, input_shape=(64,), **shape).get_weights()
    for ours, theirs in zip(space.build(hp_with()).get_weights(), expected, strict=True):
        assert (ours == theirs).all()
    mirrored = space.build(hp_with()).get_layer("hidden_stack").kernel_initializer.distribution
    scaled = {"gain_ratio": [2], "input_gain_ratio": [0], "output_gain_ratio": [-2]}
    if distribution is not None and mirrored != "looks_linear":
        scaled["gain_ratio"] = [0, 2]  # the first kernel has the hidden gain
    for name, kernels in scaled.items():
        weights = space.build(hp_with(**{name: 1.2})).get_weights()
        factors = {index % len(expected): 1.2 for index in kernels}
        for index, (ours, theirs) in enumerate(zip(weights, expected, strict=True)):
            assert ours == pytest.approx(factors.get(index, 1.0) * theirs, rel=1e-5, abs=1e-7), (name, index)


def test_the_default_space_is_that_of_deep_mlp_and_of_the_command() -> None:
    space = inspect.signature(tuning.DeepMLPHyperModel).parameters
    network = inspect.signature(model_zoo.deep_mlp).parameters
    for name in ("depth", "activation", "distribution"):
        assert space[name].default == network[name].default, name
    command = inspect.signature(tune).parameters
    for name in ("gain_ratio", "input_gain_ratio", "output_gain_ratio", "width", "depth", "activation"):
        default = space[name].default
        text = f"{default[0]}:{default[1]}" if isinstance(default, tuple) else str(default).removesuffix(".0")
        assert command[name].default == text, name
    for name in ("distribution", "learning_rate", "optimizer", "max_parameters", "same_parameters_as"):
        assert command[name].default == space[name].default, name


def test_each_trial_has_the_learning_rate_of_its_own_size() -> None:
    space = small_space(width=(32, 320), depth=100)
    narrow, wide = (space.point(hp_with(width=width)).learning_rate for width in (32, 320))
    assert narrow == model_zoo.learning_rate(100, 32, decays=True) == pytest.approx(10 * wide)
    # Searches of earlier releases trained all widths at the rate of width 64.
    space.rate_width = 64
    assert space.point(hp_with(width=320)).learning_rate == 0.03 / 100


def test_all_that_can_be_tuned_is_registered() -> None:
    space = small_space(
        depth=[3, 5],
        activation=["relu", "tanh"],
        distribution=["orthogonal", "normal"],
        input_gain_ratio=(0.5, 2),
        output_gain_ratio=[1, 2],
        learning_rate=(1e-4, 1e-2),
        optimizer=["adam", "sgd"],
        width=[16, 32],
    )
    hp = keras_tuner.HyperParameters()
    model = space.build(hp)
    assert list(hp.values) == [
        "gain_ratio",
        "width",
        "depth",
        "input_gain_ratio",
        "output_gain_ratio",
        "activation",
        "distribution",
        "optimizer",
        "learning_rate",
    ]
    assert sorted(space.tuned) == sorted(hp.values)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)  # the range's center
    sgd = space.build(hp_with(optimizer="sgd", activation="tanh", distribution="normal", depth=5))
    assert isinstance(sgd.optimizer, keras.optimizers.SGD)
    assert sgd.get_layer("hidden_stack").depth == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": (16, 8)}, "`width` is an empty range.*(16, 8)"),
        ({"width": []}, "`width` must offer at least one value"),
        ({"width": 0}, "width.*at least 1.*0"),
        ({"width": (8, 16, 32)}, "range is a tuple (low, high).*(8, 16, 32)"),
        ({"width": (1.5, 2)}, "width.*integer.*1.5"),
        ({"gain_ratio": (1.1, 1.2)}, "`gain_ratio` must contain 1.*(1.1, 1.2)"),
        ({"gain_ratio": [0.9, 1.1]}, "`gain_ratio` must contain 1"),
        ({"gain_ratio": (0, 1)}, "gain_ratio.*above 0"),
        ({"activation": ["tanh", "rleu"]}, "activation.*rleu"),
        ({"activation": ("tanh", "relu")}, "range is a tuple (low, high) of numbers, a choice a list"),
        ({"activation": "softmax"}, "activation.*softmax"),
        ({"distribution": "gauss"}, "distribution.*gauss"),
        ({"optimizer": "admm"}, "optimizer.*admm"),
        ({"learning_rate": -1.0}, "learning_rate.*above 0"),
        ({"dtype": "int7"}, "dtype.*int7"),
        ({"learning_rate": [None, 1e-3]}, "`learning_rate` must be a finite number above 0.*None"),
        ({"distribution": [None, "normal"]}, "`distribution` must be one of .*None"),
        ({"max_parameters": 100}, "No width of 8 to 16 gives 3 hidden layers on a budget of 100"),
        ({"max_parameters": 0}, "max_parameters.*at least 1"),
        ({"max_parameters": 9, "same_parameters_as": (3, 8)}, "Give one of"),
        ({"same_parameters_as": 100}, "pair (depth, width)"),
        ({"max_parameters": 10**5, "depth": [3, 5]}, "depth follows from the width"),
        ({"max_parameters": 10**4, "depth": (900, 1000)}, "No width of 8 to 16 gives 900 to 1,000"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_space_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")):
        small_space(**arguments)


def test_a_budget_limits_the_width_at_a_fixed_depth() -> None:
    limit = model_zoo.count_parameters(3, 12, 64, 10)
    space = small_space(max_parameters=limit)
    assert space.width.values == (8, 12)
    assert small_space(max_parameters=limit - 1).width.values == (8, 11)
    assert space.build(keras_tuner.HyperParameters()).count_params() == limit
    with pytest.raises(tuning.UntrainableTrialError, match="width 13 exceeds the budget"):
        space.build(hp_with(width=13))


def test_width_and_depth_trade_on_a_budget() -> None:
    space = small_space(width=(8, 64), depth=(4, 60), same_parameters_as=(20, 16))
    assert space.budget == model_zoo.count_parameters(20, 16, 64, 10)
    assert space.tuned == ["gain_ratio", "width"]
    low, high = space.width.values
    depths = []
    for width in range(low, high + 1):
        point = space.point(hp_with(width=width))
        one_more = model_zoo.count_parameters(point.depth + 1, width, 64, 10)
        assert space.parameters(point) <= space.budget < one_more
        assert 4 <= point.depth <= 60
        depths.append(point.depth)
    assert depths == sorted(depths, reverse=True)
    assert depths[0] > 2 * depths[-1]
    assert not 4 <= largest_depth(low - 1, 64, 10, space.budget) <= 60
    # A width of which not even one layer fits is described with the parameters of that layer.
    described = space.describe({"width": 10**4})
    assert described["depth"] == 0
    assert described["parameters"] == model_zoo.count_parameters(1, 10**4, 64, 10) > space.budget
    assert described["reason"] == f"width 10,000 exceeds the budget of {space.budget:,} parameters"
    assert space.point(hp_with(width=16)).depth == 20


@pytest.mark.parametrize("name", ["erf", "celu(0.5)"])
def test_every_name_that_gain_takes_is_an_activation(name: str) -> None:
    model = small_space(activation=["tanh", name], width=16).build(hp_with(activation=name))
    expected = model_zoo.deep_mlp(3, 16, name, input_shape=(64,), distribution="orthogonal", seed=0)
    x = few_digits().x_train[:4]
    model.set_weights(expected.get_weights())
    assert keras.ops.convert_to_numpy(model(x)) == pytest.approx(keras.ops.convert_to_numpy(expected(x)))
    with pytest.raises(ValueError, match="activation.*erf_of"):
        small_space(activation="erf_of")


def test_a_shaped_activation_has_the_shape_of_the_trials_depth() -> None:
    space = small_space(width=8, depth=(20, 40), activation=["relu", "shaped(relu)"], seed=3)
    assert space.get_config()["activation"] == ["relu", "shaped(relu)"]
    model = space.build(hp_with(depth=40, activation="shaped(relu)"))
    slope, _ = shape_activation("relu", 40).slopes or (None, None)
    assert model.get_layer("hidden_stack").activation.negative_slope == slope
    assert model.get_layer("hidden_stack").kernel_initializer.gain == keras_rwinit.gain(
        "shaped(relu)", 8, 40, distribution="orthogonal"
    )


def test_a_choice_of_two_learning_rates_begins_with_the_first() -> None:
    space = small_space(learning_rate=[1e-3, 1e-2])
    assert space.point(keras_tuner.HyperParameters()).learning_rate == 1e-3


def test_a_budget_of_a_range_without_end() -> None:
    """The widths that fit are found in a few steps."""
    space = small_space(width=(8, 10**12), depth=(2, 10**6), max_parameters=10**5)
    low, high = space.width.values
    depths = [largest_depth(width, 64, 10, 10**5) for width in (low - 1, low, high, high + 1)]
    assert low == 8
    assert depths[2] >= 2 > depths[3]
    assert small_space(width=[99, 8, 16], depth=2, max_parameters=10**4).width.values == (8, 16)


def test_the_budget_of_a_model() -> None:
    model = model_zoo.deep_mlp(3, 12, input_shape=(64,))
    assert small_space(same_parameters_as=model).budget == model.count_params()


@pytest.mark.parametrize(
    ("point", "dtype", "words"),
    [
        (Point(0.5, 64, 400, "tanh", "normal", 1, 1, 1e-3, "adam"), "float32", "gradient vanishes"),
        (Point(2.0, 64, 400, "relu", "normal", 1, 1, 1e-3, "adam"), "float32", "gradient explodes"),
        (Point(0.8, 64, 100, "relu", "normal", 1, 1, 1e-3, "adam"), "float16", "float16 ends at -10"),
        (Point(1.0, 3, 100, "relu", "normal", 1, 1, 1e-3, "adam"), "float32", "no gradient passes"),
        (Point(1.0, 64, 100, "tanh", "normal", 1, 1, 1e-3, "adam"), "float32", None),
        (Point(0.8, 64, 100, "relu", "normal", 1, 1, 1e-3, "adam"), "bfloat16", None),
        (Point(1.3, 64, 100, "tanh", "normal", 1, 1, 1e-3, "adam"), "float64", None),
    ],
)
def test_forecast(point: Point, dtype: str, words: str | None) -> None:
    forecast = forecast_trial(point, dtype)
    walk = keras_rwinit.predict_walk(
        point.activation, point.width, point.depth, gain=forecast.gain, distribution=point.distribution
    )
    assert (forecast.drift, forecast.spread) == (walk.drift, walk.std[0])
    assert (forecast.reason is None) == (words is None)
    if words is not None:
        assert words in str(forecast.reason)


def test_a_loss_that_keras_scales_leaves_more_room() -> None:
    point = Point(0.85, 64, 100, "relu", "normal", 1, 1, 1e-3, "adam")
    assert "vanishes" in str(forecast_trial(point, "float16").reason)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert forecast_trial(point).reason is None
    finally:
        keras.config.set_dtype_policy(before)


def test_an_untrainable_network_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "keras_rwinit.tuning.hypermodel.model_zoo.deep_mlp", lambda *args, **kwargs: pytest.fail("built")
    )
    with pytest.raises(tuning.UntrainableTrialError, match="vanishes"):
        small_space(depth=400, gain_ratio=(0.1, 2.0), width=32).build(hp_with(gain_ratio=0.5))
    with pytest.raises(
        tuning.UntrainableTrialError, match="No gain makes the walk unbiased for tanh at width 3"
    ):
        small_space(width=(3, 16), depth=20, activation="tanh", distribution="normal").build(hp_with(width=3))


TUNERS = {
    "RandomSearch": {"max_trials": 3},
    "GridSearch": {"max_trials": 3},
    "BayesianOptimization": {"max_trials": 4, "num_initial_points": 2},
    "Hyperband": {"max_epochs": 2, "factor": 2},
}


def tuned_by(name: str, directory: Path, space: Any, **options: Any) -> Any:
    few = few_digits()
    tuner = getattr(keras_tuner, name)(
        space, objective="val_loss", directory=directory, **{"seed": 1, **TUNERS[name], **options}
    )
    epochs = {} if name == "Hyperband" else {"epochs": 1}
    tuner.search(
        few.x_train, few.y_train, validation_data=(few.x_test, few.y_test), batch_size=96, verbose=0, **epochs
    )
    return tuner


# scikit-learn's, where keras-tuner fits a Gaussian process to so few trials.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.exhaustive if name == "Hyperband" else ()) for name in TUNERS],
)
def test_every_tuner_of_keras_tuner(name: str, tmp_path: Path) -> None:
    space = small_space(depth=1, width=[9, 16] if name == "GridSearch" else (9, 16))
    tuner = tuned_by(name, tmp_path, space)
    trials = list(tuner.oracle.trials.values())
    assert len(trials) >= 3
    assert {trial.status for trial in trials} == {"COMPLETED"}
    values = [trial.hyperparameters.values for trial in trials]
    assert all(0.8 <= value["gain_ratio"] <= 1.25 + 1e-12 and 9 <= value["width"] <= 16 for value in values)
    assert len({value["gain_ratio"] for value in values} | {value["width"] for value in values}) > 2
    if name == "GridSearch":
        assert values[0] == {"gain_ratio": 1.0, "width": 16}


@pytest.mark.slow
def test_overrides_and_executions(tmp_path: Path) -> None:
    """What a user puts into `hp` stands, also for what the space itself has fixed."""
    hp = hp_with(width=12, activation="selu")
    hp.Float("gain_ratio", 0.95, 1.05)
    built = []

    class Counted(tuning.DeepMLPHyperModel):
        def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            built.append(model)
            return super().fit(hp, model, *args, **kwargs)

    space = Counted((64,), depth=1, width=(8, 16), activation="relu", distribution="orthogonal")
    tuner = tuned_by(
        "RandomSearch", tmp_path, space, hyperparameters=hp, max_trials=1, executions_per_trial=2
    )
    assert len(built) == 2
    for trial in tuner.oracle.trials.values():
        assert 0.95 <= trial.hyperparameters["gain_ratio"] <= 1.05
        assert trial.hyperparameters["width"] == 12
    assert {model.get_layer("hidden_1").units for model in built} == {12}
    assert {model.get_layer("hidden_1").activation for model in built} == {keras.activations.selu}
    first, second = (model.get_layer("hidden_1").kernel.numpy() for model in built)
    assert (first != second).any()  # an execution draws its own weights


@pytest.mark.slow
def test_conditional_scopes(tmp_path: Path) -> None:
    deep = small_space(depth=1)

    def build(hp: Any) -> keras.Model:
        kind = hp.Choice("kind", ["deep", "flat"])
        with hp.conditional_scope("kind", ["deep"]):
            model = deep.build(hp)
        if kind == "flat":
            model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
            model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    tuner = tuned_by("RandomSearch", tmp_path, build, max_trials=2, seed=3)  # which draws one of each kind
    trials = list(tuner.oracle.trials.values())
    assert {trial.status for trial in trials} == {"COMPLETED"}
    names = {trial.hyperparameters["kind"]: set(trial.hyperparameters.values) for trial in trials}
    assert names == {"deep": {"kind", "gain_ratio", "width"}, "flat": {"kind"}}


@pytest.mark.slow
def test_a_diverged_trial_is_failed_under_keras_tuners_own_tuner(tmp_path: Path) -> None:
    few = few_digits()
    tuner = keras_tuner.RandomSearch(
        small_space(**DIVERGING), "loss", max_trials=1, directory=tmp_path, max_consecutive_failed_trials=9
    )
    tuner.search(few.x_train, few.y_train, epochs=2, verbose=0)
    (trial,) = tuner.oracle.trials.values()
    assert trial.status == "FAILED"
    assert "diverged: loss is not finite in epoch 1" in trial.message


@pytest.mark.slow
def test_untrainable_trials_are_failed_under_keras_tuners_own_tuner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = small_space(depth=300, width=32, gain_ratio=[1.0, 0.4])
    tuner = keras_tuner.GridSearch(space, "loss", directory=tmp_path)
    monkeypatch.setattr(tuning.DeepMLPHyperModel, "fit", lambda self, hp, model, *a, **k: 0.5)
    few = few_digits()
    tuner.search(few.x_train, few.y_train, verbose=0)
    statuses = {t.hyperparameters["gain_ratio"]: t.status for t in tuner.oracle.trials.values()}
    assert statuses == {1.0: "COMPLETED", 0.4: "FAILED"}
