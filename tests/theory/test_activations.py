"""The table of activations against Keras's own functions and against numerical derivatives."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
from theory_helpers import drift_in_standard_errors, std_relative_error

from keras_rwinit.theory import (
    ACTIVATIONS,
    Activation,
    NoGainError,
    gain,
    plan_width,
    predict_correlation,
    predict_walk,
    resolve_activation,
    simulate_correlation,
    simulate_walk,
)
from keras_rwinit.theory.activation import ActivationError
from keras_rwinit.theory.own_activations import average_activation

keras = pytest.importorskip("keras")

# Keras has these and the package does not: they mix units, need an argument or are no activations.
MIXING = {"softmax", "log_softmax", "sparsemax", "glu"}
NEEDS_ARGUMENTS = {"threshold"}
NOT_ACTIVATIONS = {"get", "serialize", "deserialize"}
# The package has these by name and Keras's activations do not.
OWN = {"erf": keras.ops.erf, "sin": keras.ops.sin, "gelu_tanh": keras.activations.gelu}
PARAMETERS = {
    "leaky_relu": ("negative_slope", 0.1),
    "elu": ("alpha", 0.5),
    "celu": ("alpha", 2.0),
    "squareplus": ("b", 1.0),
}
# From deep saturation to the middle, and off every kink by at least 1/128.
POINTS = np.concatenate([np.arange(-8, 8, 0.25) + 1 / 128, [-30.0, 30.0]])


def keras_function(name: str) -> Any:
    return OWN[name] if name in OWN else getattr(keras.activations, name)


def keras_values(name: str, points: np.ndarray, **arguments: Any) -> np.ndarray:
    tensor = keras.ops.convert_to_tensor(points, "float32")
    return keras.ops.convert_to_numpy(keras_function(name)(tensor, **arguments))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_are_those_of_keras(name: str) -> None:
    """float32 against float64: 3e-6 of the value, and 1e-6 where sums of order one cancel."""
    found = ACTIVATIONS[name].function(POINTS)
    arguments = {"approximate": True} if name == "gelu_tanh" else {}
    wanted = keras_values(name, POINTS, **arguments)
    np.testing.assert_allclose(found, wanted, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameters_are_those_of_keras(name: str) -> None:
    keyword, value = PARAMETERS[name]
    found = resolve_activation(f"{name}({value:g})")
    wanted = keras_values(name, POINTS, **{keyword: value})
    np.testing.assert_allclose(found.function(POINTS), wanted, rtol=3e-6, atol=1e-6)
    assert found.name == f"{name}({value:g})"
    default = inspect.signature(getattr(keras.activations, name)).parameters[keyword].default
    assert ACTIVATIONS[name].name == f"{name}({default:g})"


@pytest.mark.parametrize(
    "name", [*sorted(ACTIVATIONS), *(f"{name}({value})" for name, (_, value) in PARAMETERS.items())]
)
def test_derivatives(name: str) -> None:
    """Against central differences, good to about 1e-9 of the largest value of f nearby."""
    activation = resolve_activation(name)
    points = POINTS[:-2]
    numerical = Activation("numerical", activation.function).slope_at(points)
    scale = np.maximum(1.0, np.abs(activation.function(points)))
    assert (np.abs(activation.slope_at(points) - numerical) < 1e-8 * scale).all()
    assert np.isfinite(activation.slope_at(np.array([-700.0, -1e-300, 0.0, 1e-300, 700.0]))).all()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_kinks_and_slopes(name: str) -> None:
    """Away from its kinks f is smooth; `slopes`, where given, are f' on both sides of zero."""
    activation = ACTIVATIONS[name]
    grid = np.arange(-1024, 1025) / 128.0
    for kink in activation.kinks:
        grid = grid[np.abs(grid - kink) > 0.02]
    step = 1e-4
    jump = activation.slope_at(grid + step) - activation.slope_at(grid - step)
    # |f''| is below 2 for all but exp, where it is f' itself.
    assert (np.abs(jump) <= 4.0 * step * np.maximum(1.0, np.abs(activation.slope_at(grid)))).all()
    if activation.slopes is not None:
        assert activation.slopes == tuple(activation.slope_at(np.array([-1.7, 1.7])))
        assert activation.function(np.zeros(1))[0] == 0.0


def test_gates() -> None:
    """`f(a) = a * g(a)` to float64's rounding, by the names that models of gates are read with."""
    gates = {name: activation.gate for name, activation in ACTIVATIONS.items() if activation.gate}
    for name, gate in gates.items():
        wanted = POINTS * ACTIVATIONS[gate].function(POINTS)
        np.testing.assert_allclose(ACTIVATIONS[name].function(POINTS), wanted, rtol=1e-13, atol=1e-15)
    assert gates.keys() >= {"silu", "swish", "hard_silu", "hard_swish"}


def test_every_activation_of_keras_is_known() -> None:
    """A new element-wise activation in Keras makes this fail: add it to the table."""
    theirs = {
        name
        for name, function in vars(keras.activations).items()
        if inspect.isfunction(function) and not name.startswith("_")
    }
    assert "tanh" in theirs
    assert theirs - NOT_ACTIVATIONS - MIXING - NEEDS_ARGUMENTS - set(ACTIVATIONS) == set()
    assert set(ACTIVATIONS) - theirs == set(OWN)


@pytest.mark.parametrize("name", sorted(MIXING))
def test_mixing_activations_are_rejected(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' mixes the units of a layer, so it has no gain"):
        resolve_activation(name)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("rellu", rf"Names: {', '.join(sorted(ACTIVATIONS))}; with a parameter: leaky_relu\(x\).*'rellu'"),
        ("ReLU", "`activation` must be the name of an element-wise activation.*'ReLU'"),
        ("threshold", "`activation` must be the name.*'threshold'"),
        ("", "`activation` must be the name.*Received: ''"),
        (None, "`activation` must be the name.*Received: None"),
        (3, "`activation` must be the name.*Received: 3"),
        ("tanh(2)", r"`activation` must be the name.*'tanh\(2\)'"),
        ("leaky_relu()", r"`activation` must be the name.*'leaky_relu\(\)'"),
        ("leaky_relu(0.1", "`activation` must be the name"),
        ("leaky_relu(x)", r"must be a finite number. Received: 'leaky_relu\(x\)'"),
        ("elu(nan)", r"must be a finite number. Received: 'elu\(nan\)'"),
        ("celu(inf)", r"must be a finite number. Received: 'celu\(inf\)'"),
        ("celu(0)", "No gain exists for the activation.*must be finite"),
        ("squareplus(-1)", "No gain exists for the activation.*must be finite"),
    ],
)
def test_unknown_activations(activation: Any, message: str) -> None:
    for function in (gain, predict_walk, simulate_walk):
        with pytest.raises(ValueError, match=message):
            function(activation, 10, 5)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: np.ones_like(a),
        lambda a: 1.0,
        lambda a: a * np.nan,
        lambda a: np.where(a > 0, np.inf, a),
        lambda a: 0.0 * a,
    ],
    ids=["constant", "scalar", "nan", "inf", "zero"],
)
def test_callables_without_a_gain(function: Any) -> None:
    for depth in (None, 5):
        with pytest.raises(ValueError, match="No gain exists for the activation '<lambda>'.*`activation`"):
            gain(function, 10, depth)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: None,
        lambda a: "tanh",
        lambda a: a[:, :3],
        lambda a: a.sum(),
        lambda a: np.exp(a) / np.exp(a).sum(axis=-1, keepdims=True),
        math.tanh,
        int,
        lambda a: a[:3],
        lambda a: a / np.abs(a).max(),
        lambda a: a - a.mean(axis=0),
        lambda a: a * np.random.default_rng().random(a.shape),
        lambda a: 1j * a,
        lambda a: (a, a),
        lambda a: a.astype(np.float16),
        lambda a: {}["no such key"],
        lambda: 1.0,
    ],
    ids=[
        *("none", "string", "shape", "sum", "softmax", "math", "class", "rows", "scaled", "batch", "random"),
        *("complex", "tuple", "half", "KeyError", "no argument"),
    ],
)
def test_callables_that_do_not_act_element_by_element(function: Any) -> None:
    """One error wherever a callable may be passed, inside an `Activation` too."""
    for call in (gain, predict_walk, simulate_walk, predict_correlation, simulate_correlation):
        for activation in (function, Activation("own", function), Activation("own", np.tanh, function)):
            with pytest.raises(ValueError, match="`activation` must act on NumPy arrays element by element"):
                call(activation, 10, 5)
    with pytest.raises(ValueError, match="element by element. Received: "):
        plan_width(5, 1.0, activation=function)


class ReLU:
    """As `torch.nn.ReLU` does, an instance takes tensors only."""

    def __call__(self, a: Any) -> Any:
        raise TypeError("argument 'input' must be Tensor, not numpy.ndarray")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            math.tanh,
            "'tanh', which raises TypeError.* Pass the name 'tanh'.*takes single numbers.*numpy.where",
        ),
        (lambda a: a if a > 0 else 0.0, "takes single numbers: write it with `numpy`"),
        (ReLU(), "'ReLU', which raises TypeError.*must be Tensor.* Pass the name 'relu'"),
        (ReLU, "'ReLU', which raises.*'ReLU' is a class: pass an instance"),
        (lambda a: a.relu(), "AttributeError.*Functions of tensors are for RandomWalk"),
    ],
    ids=["math", "condition", "tensors", "class", "method"],
)
def test_a_callable_that_fails_is_answered_with_what_to_pass(function: Any, message: str) -> None:
    with pytest.raises(ActivationError, match=message):
        gain(function, 10, 5)


def test_callables_in_float32_and_in_place() -> None:
    """Differences over a step of float64 lost 2e-3 of the gain to the rounding of float32."""
    single = gain(lambda a: np.tanh(a.astype(np.float32)), 100, 50)
    assert single == pytest.approx(gain("tanh", 100, 50), rel=5e-5)
    assert gain(lambda a: np.tanh(a, out=a), 100, 50) == gain(np.tanh, 100, 50)


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, a: np.ndarray) -> np.ndarray:
        return np.tanh(a)


def test_lists_and_unhashable_callables_are_accepted() -> None:
    wanted = gain("tanh", 50, 5)
    assert gain(Unhashable(), 50, 5) == pytest.approx(wanted, rel=1e-7)
    own = Activation("own", np.tanh, kinks=[0.0])  # type: ignore[arg-type]
    assert gain(own, 50, 5) == pytest.approx(wanted, rel=1e-7)
    own = Activation("own", np.abs, slopes=[-1, 1])  # type: ignore[arg-type]
    assert gain(own, 50) == gain("linear", 50)


@pytest.mark.parametrize("slopes", [(np.nan, 1.0), (1.0, np.inf), (1e-170, 1.0), (1.0,), (1.0, 2.0, 3.0)])
def test_slopes_out_of_range(slopes: Any) -> None:
    with pytest.raises(ValueError, match="`slopes` must be two finite numbers"):
        Activation("own", np.tanh, slopes=slopes)


def test_flat_activation() -> None:
    flat = Activation("flat", np.zeros_like, np.zeros_like, slopes=(0.0, 0.0))
    with pytest.raises(NoGainError, match="flat has slope 0 everywhere: no gradient passes"):
        gain(flat, 10)


def test_resolution() -> None:
    assert resolve_activation("tanh") is ACTIVATIONS["tanh"]
    assert resolve_activation(ACTIVATIONS["relu"]) is ACTIVATIONS["relu"]
    assert resolve_activation("leaky_relu(1e-2)").slopes == (0.01, 1.0)
    assert resolve_activation("leaky_relu").slopes == (0.2, 1.0)
    assert resolve_activation(np.tanh).name == "tanh"
    assert resolve_activation(np.tanh).derivative is None


def test_callable_has_the_gain_of_its_name() -> None:
    """Numerical derivatives cost nine digits, no more."""
    for name, function in (("tanh", np.tanh), ("sin", np.sin), ("elu", ACTIVATIONS["elu"].function)):
        assert gain(function, 100, 50) == pytest.approx(gain(name, 100, 50), rel=1e-7)


def test_gains_follow_what_a_callable_computes_now() -> None:
    """No cache remembers a callable by its identity, be it bare, an object or inside an `Activation`."""
    factor = 1.0

    def scaled(a: np.ndarray) -> np.ndarray:
        return np.tanh(factor * a)

    own = Activation("own", scaled)
    for factor in (1.0, 2.0, 0.5):
        wanted = gain("tanh", 100, 50) / factor
        for activation in (scaled, own):
            assert gain(activation, 100, 50) == pytest.approx(wanted, rel=1e-6)
            assert predict_walk(activation, 100, 50).gain == pytest.approx(wanted, rel=1e-6)


def test_equal_activations_compute_the_same() -> None:
    assert resolve_activation(np.tanh) == resolve_activation(lambda a: np.tanh(a)) != ACTIVATIONS["tanh"]
    assert hash(resolve_activation(np.tanh)) == hash(resolve_activation(lambda a: np.tanh(a)))
    assert resolve_activation(np.tanh) != resolve_activation(lambda a: np.tanh(1.001 * a))
    assert resolve_activation(lambda a: np.maximum(a, 0.0)) == ACTIVATIONS["relu"]


@pytest.mark.parametrize("distribution", ["normal", "orthogonal"])
def test_units_of_two_slopes_each(distribution: str) -> None:
    """Exact at any width: 20,000 networks of six units of three kinds, drift within four standard errors."""
    units = [resolve_activation(name) for name in ("relu", "leaky_relu(0.5)", "leaky_relu(-2)")]
    mixed = average_activation("mixed", units)
    assert mixed.slopes == (0.0, 1.0, 0.5, 1.0, -2.0, 1.0)
    walks = simulate_walk(mixed, 6, 4, samples=20_000, distribution=distribution, seed=0)
    assert abs(drift_in_standard_errors(walks[:, 0])) < 4.0
    off = gain("leaky_relu(-0.5)", 6, distribution=distribution)  # of the mean slope
    wrong = simulate_walk(mixed, 6, 4, gain=off, samples=20_000, distribution=distribution, seed=0)
    assert abs(drift_in_standard_errors(wrong[:, 0])) > 4.0
    predicted = predict_walk(mixed, 6, 4, distribution=distribution)
    assert predicted.spread == pytest.approx(walks[:, 0].std(), rel=4.0 * std_relative_error(walks[:, 0]))
    assert average_activation("equal", units[:1] * 3).slopes == units[0].slopes


@pytest.mark.parametrize("distribution", ["normal", "orthogonal"])
def test_smooth_units_that_differ(distribution: str) -> None:
    """To first order in 1 / width; a tanh of the mean scale is off by more."""
    units = [Activation(f"tanh {c}", lambda a, c=c: np.tanh(c * a)) for c in (0.25, 1.0, 3.0)]
    mixed = average_activation("mixed", units)
    walks = simulate_walk(mixed, 90, 6, samples=500, distribution=distribution, seed=0)[:, 0]
    assert abs(walks.mean()) < 4.0 * walks.std() / np.sqrt(500) + 0.01
    assert predict_walk(mixed, 90, 6, distribution=distribution).spread == pytest.approx(
        walks.std(), rel=4.0 * std_relative_error(walks) + 0.05
    )
