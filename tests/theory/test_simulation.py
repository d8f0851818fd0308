"""`simulate_walk` against whole random networks with real matrices; the gain refined with it."""

from __future__ import annotations

import tracemalloc
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from theory_helpers import brute_force_walk, drift_in_standard_errors, std_relative_error

from keras_rwinit.theory import (
    DISTRIBUTIONS,
    Activation,
    NoGainError,
    gain,
    plan_width,
    predict_walk,
    resolve_activation,
    simulate_walk,
)
from keras_rwinit.theory._analytic_gain import analytic_gain
from keras_rwinit.theory._trust import is_narrow

Array = NDArray[np.float64]

SAMPLES = 4000
DEPTH = 20
# The functions are written out again, so that the table of the package is not its own judge.
FUNCTIONS = {
    "relu": (lambda a: np.maximum(a, 0.0), lambda a: 1.0 * (a > 0)),
    "tanh": (np.tanh, lambda a: 1.0 - np.tanh(a) ** 2),
    "sigmoid": (special.expit, lambda a: special.expit(a) * (1.0 - special.expit(a))),
    "elu": (
        lambda a: np.where(a > 0, a, np.expm1(np.minimum(a, 0.0))),
        lambda a: np.where(a > 0, 1.0, np.exp(np.minimum(a, 0.0))),
    ),
}
# Activation, width, gain (any gain would do; these keep all numbers of order one), distribution.
CASES = [
    ("relu", 12, 1.6, "normal"),
    ("tanh", 8, 1.5, "normal"),
    ("tanh", 16, 1.5, "orthogonal"),
    ("tanh", 8, 1.5, "uniform"),
]
SLOW_CASES = [
    ("relu", 12, 1.6, "orthogonal"),
    ("sigmoid", 8, 5.0, "normal"),
    ("sigmoid", 20, 9.0, "orthogonal"),
    ("elu", 8, 1.4, "normal"),
    ("relu", 8, 1.6, "uniform"),
]
every_case = pytest.mark.parametrize(
    "case",
    [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW_CASES)],
    ids=["-".join(map(str, case)) for case in CASES + SLOW_CASES],
)


@lru_cache
def brute_force(activation: str, width: int, gain: float, distribution: str) -> Array:
    return brute_force_walk(FUNCTIONS[activation], width, DEPTH, gain, SAMPLES, distribution, seed=20)


def alive(walks: Array) -> Array:
    """Networks whose gradient reached the first layer."""
    return walks[np.isfinite(walks[:, 0])]


@lru_cache
def simulated(activation: str, width: int, gain: float, distribution: str) -> Array:
    return simulate_walk(
        activation, width, DEPTH, gain=gain, samples=SAMPLES, distribution=distribution, seed=10
    )


@every_case
def test_mean_and_std_of_every_layer(case: tuple[Any, ...]) -> None:
    """Two samples of 4000 networks (seeds 10 and 20): 4 standard errors, in 19 layers x 9 cases.

    The chance that one of these 342 comparisons of correct samples fails is 2 %.
    """
    ours, real = alive(simulated(*case)), alive(brute_force(*case))
    for d in range(DEPTH - 1):
        a, b = ours[:, d], real[:, d]
        standard_error = np.sqrt(a.var() / len(a) + b.var() / len(b))
        assert abs(a.mean() - b.mean()) < 4.0 * standard_error
        relative_error = np.hypot(std_relative_error(a), std_relative_error(b))
        assert abs(a.std() / b.std() - 1.0) < 4.0 * relative_error
    assert not ours[:, -1].any()
    assert not real[:, -1].any()


@every_case
def test_distribution_of_the_whole_walk(case: tuple[Any, ...]) -> None:
    """Kolmogorov-Smirnov on column 0 (p > 0.001, 9 cases); networks with a dead gradient count as -inf."""
    columns = [
        np.nan_to_num(walks[:, 0], nan=-1e9, neginf=-1e9) for walks in (simulated(*case), brute_force(*case))
    ]
    assert stats.ks_2samp(*columns).pvalue > 0.001


@every_case
def test_a_gain_off_by_ten_percent_is_noticed(case: tuple[Any, ...]) -> None:
    """Negative twin: the same comparisons fail for a simulation with a wrong gain."""
    activation, width, gain, distribution = case
    wrong = simulate_walk(
        activation, width, DEPTH, gain=1.1 * gain, samples=SAMPLES, distribution=distribution, seed=10
    )
    a, b = alive(wrong)[:, 0], alive(brute_force(*case))[:, 0]
    assert abs(a.mean() - b.mean()) > 4.0 * np.sqrt(a.var() / len(a) + b.var() / len(b))
    assert stats.ks_2samp(a, b).pvalue < 0.001


def test_orthogonal_is_told_from_normal() -> None:
    """Negative twin of the distribution: at the same gain the spread of the two differs."""
    orthogonal = simulated("tanh", 16, 1.5, "orthogonal")[:, 0]
    normal = simulate_walk("tanh", 16, DEPTH, gain=1.5, samples=SAMPLES, distribution="normal", seed=10)[:, 0]
    assert stats.ks_2samp(normal, orthogonal).pvalue < 1e-9


@pytest.mark.parametrize("distribution", sorted(DISTRIBUTIONS))
def test_shape_seed_and_convention(distribution: str) -> None:
    name = "gelu" if DISTRIBUTIONS[distribution].mirrored else "tanh"
    walks = simulate_walk(name, 10, 7, gain=1.2, samples=50, distribution=distribution, seed=3)
    assert walks.shape == (50, 7)
    assert walks.dtype == np.float64
    assert np.isfinite(walks).all()
    assert not walks[:, -1].any()
    np.testing.assert_array_equal(
        walks, simulate_walk(name, 10, 7, gain=1.2, samples=50, distribution=distribution, seed=3)
    )
    others = simulate_walk(name, 10, 7, gain=1.2, samples=50, distribution=distribution, seed=4)
    assert (walks != others)[:, :-1].all()
    single = simulate_walk(name, 10, 1, gain=1.2, samples=3, distribution=distribution)
    assert single.tolist() == [[0.0]] * 3


def test_samples_are_independent_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 100 chunks of memory: no row repeated, neighboring rows uncorrelated (4 / sqrt n)."""
    bytes_of_20_samples = 20 * 8 * 2 * 40 * 6
    monkeypatch.setattr("keras_rwinit.theory._random_network._CHUNK_BYTES", bytes_of_20_samples)
    column = simulate_walk("relu", 40, 6, samples=2000, seed=0)[:, 0]
    assert len(np.unique(column)) == len(column)
    assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 4.0 / np.sqrt(len(column))


@pytest.mark.parametrize("distribution", ["normal", "orthogonal"])
def test_a_network_larger_than_a_chunk_is_drawn_in_blocks(
    distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same values, whether all layers are kept (3 MB) or 7 of them at a time, and far less memory."""
    arguments: dict[str, Any] = {"gain": 1.1, "samples": 2, "distribution": distribution, "seed": 3}
    width, depth = 2000, 100
    monkeypatch.setattr("keras_rwinit.theory._random_network._CHUNK_BYTES", 16 * width * depth)
    kept = simulate_walk("tanh", width, depth, **arguments)
    monkeypatch.setattr("keras_rwinit.theory._random_network._CHUNK_BYTES", 16 * width * 7)
    tracemalloc.start()
    try:
        in_blocks = simulate_walk("tanh", width, depth, **arguments)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(in_blocks, kept)
    assert peak < 16 * width * depth / 3


@pytest.mark.parametrize("distribution", ["normal", "orthogonal", "uniform"])
def test_dead_relu_layers(distribution: str) -> None:
    """Width 4: all layers above a dead layer are dead, too, so that no gradient passes the last one."""
    walks = simulate_walk("relu", 4, 6, gain=1.5, samples=SAMPLES, distribution=distribution, seed=1)
    dead = np.isnan(walks)
    assert (dead.all(axis=1) == dead.any(axis=1)).all()
    assert np.isfinite(walks[~dead]).all()
    share, expected = dead[:, 0].mean(), 1.0 - (1.0 - 2.0**-4) ** 6
    assert abs(share - expected) < 4.0 * np.sqrt(expected * (1.0 - expected) / SAMPLES)
    assert predict_walk("relu", 4, 6, gain=1.5, distribution=distribution).dead_probability == pytest.approx(
        expected
    )


def test_gradients_that_die_on_the_way() -> None:
    """Saturated hard_tanh layers pass nothing: -inf from there to the input, nan if it is the last one."""
    walks = simulate_walk("hard_tanh", 4, 6, gain=2.0, samples=SAMPLES, seed=1)
    nan, dead = np.isnan(walks), np.isneginf(walks)
    assert (nan.all(axis=1) == nan.any(axis=1)).all()
    assert nan.any()
    assert dead[:, :-1].any()
    assert not dead[:, -1].any()
    assert (dead[:, :-1] | ~dead[:, 1:]).all()


def test_two_slopes_stay_within_the_floats() -> None:
    """3000 layers at gains 1000 times too large and too small: e^(+-20000), on the log scale."""
    for factor in (1.4e3, 1.4e-3):
        walks = simulate_walk("relu", 20, 3000, gain=factor, samples=4, seed=0)
        assert np.isfinite(walks).all()
        assert walks[:, 0].mean() == pytest.approx(
            predict_walk("relu", 20, 3000, gain=factor).mean[0], rel=0.02
        )


@pytest.mark.parametrize(
    ("activation", "gain", "distribution"),
    [
        ("exponential", 1.0, "normal"),
        ("gelu", 10.0, "orthogonal"),
        ("softplus", 1e300, "orthogonal"),
        ("softplus", 1e39, "uniform"),
    ],
)
def test_explosion_is_refused(activation: str, gain: float, distribution: str) -> None:
    """A gain far too large has no walk: the activations are infinite. It was inf or nan without a word."""
    with pytest.raises(
        ValueError, match="leave the floating-point numbers over `depth`=400 layers at `gain`="
    ):
        simulate_walk(activation, 12, 400, gain=gain, samples=3, distribution=distribution, seed=0)


@pytest.mark.parametrize("distribution", ["normal", "orthogonal", "uniform"])
def test_what_explodes_at_once_is_refused_at_once(distribution: str) -> None:
    """Without a look at the other ten million layers, which would take half an hour."""
    with pytest.raises(ValueError, match="leave the floating-point numbers over `depth`=10000000 layers"):
        simulate_walk("exponential", 8, 10**7, gain=1e10, samples=1, distribution=distribution, seed=0)


def test_what_takes_hours_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"`samples`=1, `width`=1 and `depth`=100,000,000 takes about 6 hours"
    ):
        simulate_walk("tanh", 1, 10**8, gain=1.0, samples=1)


def test_gain_defaults_to_the_computed_one() -> None:
    """1000 networks, seed 6: drift within 3 standard errors, and not at all with He's gain."""
    walks = simulate_walk("relu", 30, 100, samples=1000, seed=6)
    assert abs(drift_in_standard_errors(walks[:, 0])) < 3.0
    he = simulate_walk("relu", 30, 100, gain=2**0.5, samples=1000, seed=6)
    assert drift_in_standard_errors(he[:, 0]) < -20.0


def test_own_callable_and_activation() -> None:
    """A NumPy callable with numerical derivative gives the named activation's walk."""
    named = simulate_walk("tanh", 10, 5, gain=1.2, samples=20, seed=0)
    for own in (np.tanh, Activation("own", np.tanh, lambda a: np.cosh(a) ** -2.0)):
        np.testing.assert_allclose(simulate_walk(own, 10, 5, gain=1.2, samples=20, seed=0), named, atol=1e-7)


REFINED_BOUND = 3.0  # standard errors of a sample of 10,000 networks that the refinement has not seen


@pytest.mark.parametrize(
    ("activation", "width", "depth", "distribution"),
    [
        ("tanh", 8, 20, "orthogonal"),
        ("sin", 8, 2, "normal"),
        ("selu", 8, 5, "normal"),
        ("tanh", 16, 2, "normal"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("sin", 8, 20, "normal"),
                ("elu", 8, 20, "normal"),
                ("tanh", 16, 20, "normal"),
                ("tanh", 32, 10, "normal"),
                ("relu6", 16, 20, "normal"),
                ("softsign", 16, 20, "orthogonal"),
                ("sigmoid", 32, 10, "normal"),
                ("tanh", 12, 10, "uniform"),
            )
        ),
        *(
            pytest.param(*case, marks=[pytest.mark.slow, pytest.mark.exhaustive])
            for case in (
                ("relu6", 100, 50, "normal"),
                ("tanh", 8, 100, "orthogonal"),
                ("tanh", 16, 100, "normal"),
                ("tanh", 8, 500, "orthogonal"),
                ("sin", 8, 500, "normal"),
                ("selu", 16, 500, "normal"),
                ("tanh", 32, 500, "normal"),
            )
        ),
    ],
)
def test_refined_gain(activation: str, width: int, depth: int, distribution: str) -> None:
    """10,000 networks of seed 33, which the refinement has not seen."""
    refined = gain(activation, width, depth, distribution=distribution, refine=True)
    walks = simulate_walk(
        activation, width, depth, gain=refined, samples=10_000, distribution=distribution, seed=33
    )[:, 0]
    assert abs(drift_in_standard_errors(walks)) < REFINED_BOUND
    wrong = simulate_walk(
        activation, width, depth, gain=0.8 * refined, samples=2000, distribution=distribution, seed=33
    )[:, 0]
    assert drift_in_standard_errors(wrong) < -REFINED_BOUND


@pytest.mark.parametrize(
    ("activation", "width", "depth"),
    [
        ("arctan", 8, 3),
        ("softsign", 12, 10),
        pytest.param("softsign", 12, 30, marks=pytest.mark.slow),
        pytest.param("gelu", 64, 10, marks=pytest.mark.slow),
        pytest.param("softplus", 64, 10, marks=pytest.mark.slow),
    ],
)
def test_simulation_decides_where_the_expansion_fails(activation: str, width: int, depth: int) -> None:
    """The expansion refuses these. 2,000 networks of seed 34: within a tenth of a spread and 4 errors."""
    function = np.arctan if activation == "arctan" else activation
    found = gain(function, width, depth)
    walks = simulate_walk(function, width, depth, gain=found, samples=2000, seed=34)[:, 0]
    assert abs(walks.mean()) < 0.1 * walks.std() + 4.0 * walks.std() / np.sqrt(2000)
    wrong = simulate_walk(function, width, depth, gain=0.8 * found, samples=2000, seed=34)[:, 0]
    assert drift_in_standard_errors(wrong) < -4.0


@pytest.mark.parametrize(
    ("activation", "width", "depth", "distribution"),
    [
        ("elu", 12, 100, "normal"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("tanh", 8, 300, "orthogonal"),
                ("selu", 8, 300, "orthogonal"),
            )
        ),
        *(
            pytest.param(*case, marks=[pytest.mark.slow, pytest.mark.exhaustive])
            for case in (("elu", 16, 300, "normal"), ("sin", 12, 300, "orthogonal"))
        ),
    ],
)
def test_simulation_decides_where_the_expansion_is_off(
    activation: str, width: int, depth: int, distribution: str
) -> None:
    """The expansion leaves these a drift of 0.4 to 1 spread. 1,000 networks of seed 36, 4 standard errors."""
    known = resolve_activation(activation), DISTRIBUTIONS[distribution]
    expanded = analytic_gain(known[0], width, depth, known[1])
    found = gain(activation, width, depth, distribution=distribution)
    for used, unbiased in ((found, True), (expanded, False)):
        walks = simulate_walk(
            activation, width, depth, gain=used, samples=1000, distribution=distribution, seed=36
        )[:, 0]
        allowed = (0.1 + 4.0 / np.sqrt(1000)) * walks.std()
        assert (abs(walks.mean()) < allowed) == unbiased
    prediction = predict_walk(activation, width, depth, distribution=distribution)
    assert prediction.gain == found
    assert abs(prediction.mean[0]) < 0.1 * prediction.spread


@pytest.mark.slow
def test_a_drift_of_a_quarter_of_the_spread_is_left() -> None:
    """sigmoid keeps the gain of the expansion here, and drifts. 1,000 networks of seed 36."""
    used = gain("sigmoid", 24, 300, distribution="orthogonal")
    assert used == analytic_gain(resolve_activation("sigmoid"), 24, 300, DISTRIBUTIONS["orthogonal"])
    walks = simulate_walk("sigmoid", 24, 300, gain=used, samples=1000, distribution="orthogonal", seed=36)
    total = walks[:, 0]
    assert abs(total.mean()) < (0.25 + 4.0 / np.sqrt(1000)) * total.std()
    assert drift_in_standard_errors(total) < -4.0


def test_the_expansion_stays_where_it_holds() -> None:
    """The check changes no bit of a gain that it does not contradict."""
    for case in (("tanh", 16, 20, "normal"), ("elu", 8, 5, "orthogonal"), ("tanh", 12, 20, "uniform")):
        activation, width, depth, distribution = case
        known = resolve_activation(activation), DISTRIBUTIONS[distribution]
        assert is_narrow(known[0], width, depth, known[1])
        found = gain(activation, width, depth, distribution=distribution)
        assert found == analytic_gain(known[0], width, depth, known[1])


def test_a_gain_that_cannot_be_checked_warns() -> None:
    """Kernels that are not normal are drawn, which takes too long here."""
    with pytest.warns(UserWarning, match=r"gain .* of tanh at width 40 and depth 100 .* 0\.5 nats.*refine"):
        found = gain("tanh", 40, 100, distribution="uniform")
    assert 1.1 < found < 1.4


@pytest.mark.slow
def test_a_gain_that_leaves_a_drift_warns() -> None:
    """relu6 of 12 units and 300 layers drifts by -7 nats at every gain."""
    with pytest.warns(UserWarning, match="relu6 .*drift by -[78].* nats, and no better gain is found"):
        found = gain("relu6", 12, 300, distribution="orthogonal")
    walk = predict_walk("relu6", 12, 300, gain=found, distribution="orthogonal")
    assert -9.0 < walk.mean[0] < -6.0
    assert walk.dead_probability == pytest.approx(0.58, abs=0.1)


@pytest.mark.parametrize("case", [("selu", 8, 100, "normal"), ("relu6", 8, 20, "orthogonal")])
def test_predictions_of_narrow_networks(case: tuple[str, int, int, str]) -> None:
    """Spread and dead share of 1,000 networks of seed 37; the expansion had 0.3 of one, half of the other."""
    activation, width, depth, distribution = case
    walk = predict_walk(
        activation, width, depth, gain=1.9 if activation == "relu6" else 1.56, distribution=distribution
    )
    walks = simulate_walk(
        activation, width, depth, gain=walk.gain, samples=1000, distribution=distribution, seed=37
    )
    living = alive(walks)
    assert abs(walk.spread / living[:, 0].std() - 1.0) < 0.35
    assert abs(walk.mean[0] - living[:, 0].mean()) < 0.3 * living[:, 0].std()
    assert abs(walk.dead_probability - (1.0 - len(living) / 1000)) < 0.08


def test_everything_takes_the_gain_that_a_simulation_finds() -> None:
    """`predict_walk` and `simulate_walk` refused what `gain` had an answer for."""
    found = gain("softsign", 12, 10)
    assert predict_walk("softsign", 12, 10).gain == found
    np.testing.assert_array_equal(
        simulate_walk("softsign", 12, 10, samples=3, seed=0),
        simulate_walk("softsign", 12, 10, gain=found, samples=3, seed=0),
    )


@pytest.mark.slow
def test_planning_takes_the_gain_that_a_simulation_finds() -> None:
    """At 21 to 24 units the expansion has no gain."""
    width = plan_width(3, 0.8, activation="softsign")
    assert 20 < width < 28
    assert predict_walk("softsign", width, 3).spread <= 0.8 < predict_walk("softsign", width - 1, 3).spread


def test_refinement_of_uniform_kernels() -> None:
    """Two slopes are exact for normal and orthogonal kernels only. 20,000 networks of seed 38, 3 errors."""
    for refine in (True, False):
        used = gain("relu", 4, 4, distribution="uniform", refine=refine)
        walks = alive(simulate_walk("relu", 4, 4, gain=used, samples=20_000, distribution="uniform", seed=38))
        assert (abs(drift_in_standard_errors(walks[:, 0])) < 3.0) == refine
    with pytest.raises(ValueError, match="needs its `depth`"):
        gain("relu", 4, distribution="uniform", refine=True)


def test_refinement_ends_where_the_walk_does_not_spread() -> None:
    """sin of width 1: an orthogonal kernel is a sign. The search for a mean of zero never ended."""
    refined = gain("sin", 1, 5, distribution="orthogonal", refine=True)
    walks = simulate_walk("sin", 1, 5, gain=refined, samples=5, distribution="orthogonal", seed=0)
    assert abs(walks[:, 0]).max() < 1e-7


def test_refinement_is_not_biased_by_the_networks_that_died() -> None:
    """hard_tanh of width 1, 2 layers: it was -0.55 nats. 20,000 networks of seed 35, a tenth of a spread.

    Over 3 layers it has a balanced gain only where nine of ten gradients die.
    """
    refined = gain("hard_tanh", 1, 2, refine=True)
    walks = alive(simulate_walk("hard_tanh", 1, 2, gain=refined, samples=20_000, seed=35))[:, 0]
    assert abs(walks.mean()) < 0.1 * walks.std()
    below, above = (
        simulate_walk("hard_tanh", 1, 3, gain=used, samples=20_000, seed=35)[:, 0] for used in (3.0, 4.0)
    )
    assert alive(below[:, None]).mean() < 0.0 < alive(above[:, None]).mean()
    assert np.isfinite(below).mean() < 0.12
    with pytest.raises(NoGainError, match="hard_tanh at width 1 and depth 3: the gradient dies in 9"):
        gain("hard_tanh", 1, 3, refine=True)


@pytest.mark.parametrize("size", [{"samples": 10**12}, {"depth": 10**13}, {"width": 10**13}])
def test_a_simulation_larger_than_the_memory_is_refused(size: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="A simulation of `samples`=.* takes .*iB, and this machine has"):
        simulate_walk("relu", **{"width": 10, "depth": 5, "gain": 1.0, **size})


@pytest.mark.slow
@pytest.mark.parametrize("used", np.geomspace(0.8, 10.0, 12))
def test_tanh_of_width_eight_drifts_at_any_gain(used: float) -> None:
    """Over 50 layers the mean step is negative: 2000 networks, seed 1, below -3 standard errors."""
    walks = simulate_walk("tanh", 8, 50, gain=float(used), samples=2000, seed=1)[:, 0]
    assert drift_in_standard_errors(walks) < -3.0


def test_tanh_of_width_eight_has_no_gain() -> None:
    """The message for the network of the test above."""
    with pytest.raises(NoGainError, match="tanh at width 8 and depth 50: the mean step is at most -0"):
        gain("tanh", 8, 50)


@pytest.mark.slow
def test_refinement_finds_no_gain_either() -> None:
    with pytest.raises(NoGainError, match="No gain within a factor of five.*tanh at width 8"):
        gain("tanh", 8, 50, refine=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, r"`samples` must be an integer of at least 1. Received: samples=0"),
        ({"samples": 10.0}, "`samples` must be an integer"),
        ({"samples": True}, "`samples` must be an integer"),
        ({"width": 0}, "`width` must be an integer of at least 1. Received: width=0"),
        ({"width": 3.5}, "`width` must be an integer"),
        ({"depth": -1}, "`depth` must be an integer of at least 1. Received: depth=-1"),
        ({"depth": None}, "`depth` must be an integer"),
        ({"gain": 0}, "`gain` must be a finite number above 0. Received: gain=0"),
        ({"gain": -1.0}, "`gain` must be a finite number above 0"),
        ({"gain": float("nan")}, "`gain` must be a finite number above 0"),
        ({"gain": float("inf")}, "`gain` must be a finite number above 0"),
        ({"gain": "big"}, "`gain` must be a finite number above 0. Received: gain='big'"),
        ({"gain": True}, "`gain` must be a finite number above 0"),
        ({"activation": "rellu"}, "`activation` must be the name.*relu.*Received: 'rellu'"),
        ({"distribution": "he"}, "`distribution` must be one of normal.*Received: 'he'"),
        ({"activation": "gelu", "depth": 500}, "No meaningful gain exists for gelu"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_walk(**{"activation": "relu", "width": 10, "depth": 5, **arguments})


def test_a_refinement_of_hours_is_refused() -> None:
    with pytest.raises(ValueError, match=r"refine=True.*11,111 hours.*depth=10000000000"):
        gain("tanh", 4, 10**10, refine=True)
