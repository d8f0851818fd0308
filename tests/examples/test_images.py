"""The study of implicit images: its photographs, networks, theory, search, quick runs and page."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from keras_rwinit import theory

Array = NDArray[np.float64]

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "examples" / "images"
RESULTS = IMAGES / "results"


@pytest.fixture(autouse=True)
def import_from_the_scripts_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "paper"))
    monkeypatch.syspath_prepend(str(IMAGES))


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


# Photographs


def test_every_pixel_is_fitted_searched_or_held_out() -> None:
    photograph = module("_photographs").load("china")
    masks = np.stack([photograph.fitted, photograph.searched, photograph.held_out])
    assert (masks.sum(axis=0) == 1).all()
    assert photograph.fitted.sum() == 32 * 32
    # A fair coin for each of the other 3 * 32 * 32 pixels: within four standard deviations of a half
    others = 3 * 32 * 32
    assert abs(photograph.searched.sum() - others / 2) < 4.0 * math.sqrt(others) / 2.0


def test_a_photograph_is_the_average_of_squares_of_gray_pixels() -> None:
    from sklearn.datasets import load_sample_image

    photograph = module("_photographs").load("flower")
    gray = load_sample_image("flower.jpg").astype(float) @ [0.2126, 0.7152, 0.0722]
    # 427 x 640 pixels: squares of 6, of which 64 begin at row 21 and column 128
    first = gray[21 + 6 * 2 : 21 + 6 * 3, 128 + 6 * 5 : 128 + 6 * 6].mean() / 127.5 - 1.0
    assert photograph.pixels[2, 5] == pytest.approx(first, abs=1e-12)
    assert np.abs(photograph.pixels).max() <= 1.0
    np.testing.assert_allclose(photograph.coordinates[0], [-63 / 64, -63 / 64])
    np.testing.assert_allclose(photograph.coordinates[1], [-63 / 64, -61 / 64])


def test_the_frequency_is_that_of_a_wave() -> None:
    """Of `sin(k (row + column))` it is k; differences over a spacing s have `2 / s sin(k s / 2)` of it."""
    photographs = module("_photographs")
    size, k = 64, 4.0 * np.pi  # whole periods
    grid = photographs.Photograph(np.zeros((size, size))).coordinates.reshape(size, size, 2).sum(axis=2)
    spacing = 4.0 / size
    expected = 2.0 / spacing * math.sin(k * spacing / 2.0)
    # A row of differences lacks one of 32, at which the wave is anywhere: at most that share.
    assert photographs.Photograph(np.sin(k * grid)).frequency == pytest.approx(expected, rel=1 / 32)
    assert photographs.Photograph(3.0 + 0.1 * np.sin(k * grid)).frequency == pytest.approx(
        photographs.Photograph(np.sin(k * grid)).frequency
    )


def test_interpolation_is_exact_on_a_plane_and_psnr_on_a_constant_error() -> None:
    photographs = module("_photographs")
    plane = np.add.outer(np.arange(8.0), 2.0 * np.arange(8.0)) / 30.0
    found = photographs.Photograph(plane).interpolate()
    np.testing.assert_allclose(found[:-1, :-1], plane[:-1, :-1], atol=1e-12)
    np.testing.assert_allclose(found[-1], found[-2])  # no fitted row follows: the last one is repeated
    assert photographs.psnr(np.full((3, 3), 0.2)) == pytest.approx(20.0)


def test_a_missing_pillow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.datasets

    def fail(name: str) -> None:
        raise ImportError("The Python Imaging Library (PIL) is required")

    monkeypatch.setattr(sklearn.datasets, "load_sample_image", fail)
    with pytest.raises(ImportError, match="pip install pillow"):
        module("_photographs").load("china", 32)


# Networks


def test_siren_is_drawn_as_its_authors_draw_it() -> None:
    networks = module("_sine_networks")
    model = module("_fitting").build("siren", 5, 1.0, 2.0, 1)
    kernel, bias, kernels, biases, last, _ = model.get_weights()
    bound = math.sqrt(6.0 / networks.WIDTH) / 30.0
    for weight, limit in (
        (kernel, 1 / 2),
        (bias, 2**-0.5),
        (kernels, bound),
        (biases, networks.WIDTH**-0.5),
        (last, bound),
    ):
        size = weight.size
        # Of n uniform numbers the largest misses the limit by more than ten n-ths with probability e^-10.
        assert limit * (1.0 - 10.0 / size) < np.abs(weight).max() <= limit
    x = np.array([[0.3, -0.2]], np.float32)
    h = np.sin(2.0 * 30.0 * (x @ kernel + bias))
    for of_layer, offset in zip(kernels, biases, strict=True):
        h = np.sin(30.0 * (h @ of_layer + offset))
    drawn = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(drawn, h @ last + model.get_weights()[-1], atol=1e-4)


def test_both_walks_have_orthogonal_kernels_of_the_computed_gain() -> None:
    networks, fitting = module("_sine_networks"), module("_fitting")
    for form, gain in (("walk", networks.sine_gain(4)), ("walk, phases", networks.phase_gain(4))):
        _, _, kernels, biases, _, _ = fitting.build(form, 4, 6.0, 1.0, 1).get_weights()
        for kernel in kernels:
            np.testing.assert_allclose(kernel @ kernel.T, gain**2 * np.eye(networks.WIDTH), atol=1e-4)
        assert np.any(biases) == (form == "walk, phases")


def test_normal_kernels_have_the_computed_gain() -> None:
    """The variance of N normal weights has a relative standard error of `sqrt(2 / N)`; four of them."""
    networks = module("_sine_networks")
    kernels = module("_fitting").build("walk, normal", 4, 6.0, 1.0, 1).get_weights()[2]
    found = kernels.var() * networks.WIDTH / networks.sine_gain(4, "normal") ** 2
    tolerance = 4.0 * math.sqrt(2.0 / kernels.size)
    assert abs(found - 1.0) < tolerance
    assert abs(found * 1.1**2 - 1.0) > 2.0 * tolerance


def test_the_larger_output_of_siren_is_omega_times_as_large() -> None:
    fitting = module("_fitting")
    usual, larger = (
        fitting.build(form, 3, 1.0, 1.0, 1).get_weights() for form in ("siren", "siren, larger output")
    )
    np.testing.assert_allclose(larger[4], 30.0 * usual[4], rtol=1e-5)
    for first, second in zip(usual[:4] + usual[5:], larger[:4] + larger[5:], strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_features_of_relu_networks_are_fixed() -> None:
    model = module("_fitting").build("fourier", 3, 6.0, 1.0, 1)
    assert [weight.shape for weight in model.non_trainable_weights] == [(2, 32)]


def test_the_gain_of_phases_is_that_of_an_expansion() -> None:
    """With phases `ln z` has the mean `ln(g^2 / 2) - v / 2`, for orthogonal kernels `v = 3 / (2 n)`.

    The n terms of z are `x^2 cos(b)^2`, with x on a sphere: `v = (E x^4 E cos^4 / (E cos^2)^2 - 1 - 2) / n`.
    """
    networks = module("_sine_networks")
    expected = math.sqrt(2.0) * math.exp(3.0 / (8.0 * networks.WIDTH))
    for depth in (5, 50):
        assert networks.phase_gain(depth) == pytest.approx(expected, abs=1.0 / networks.WIDTH**2)
        assert abs(networks.phase_gain(depth) - math.sqrt(2.0)) > 10.0 / networks.WIDTH**2


def draw_phases(
    rng: np.random.Generator, width: int, depth: int, input_gain: float, x: Array, outputs: int = 1
) -> Array:
    """Returns the outputs of a sine network with uniform phases at points `x` of two coordinates."""
    kernel = input_gain / math.sqrt(2.0) * rng.standard_normal((2, width))
    h = np.sin(x @ kernel + rng.uniform(-np.pi, np.pi, width))
    for _ in range(depth - 1):
        kernel = math.sqrt(2.0 / width) * rng.standard_normal((width, width))
        h = np.sin(h @ kernel + rng.uniform(-np.pi, np.pi, width))
    return h @ rng.standard_normal((width, outputs)) / math.sqrt(width)


def test_networks_with_phases_have_the_frequency_that_was_asked_for() -> None:
    """Of 200 networks of width 128, within three standard errors and a share depth / width.

    An input gain that leaves out that far inputs become alike is wrong by more than that.
    """
    networks, rng = module("_sine_networks"), np.random.default_rng(0)
    width, depth, frequency, step = 128, 6, 5.0, 1e-4
    input_gain = networks.phase_input_gain(depth, frequency)
    far = np.array([[0.0, 0.0], [step, 0.0], [100.0, 70.0]])
    slopes, contrasts = [], []
    for _ in range(200):
        u = draw_phases(rng, width, depth, input_gain, far)[:, 0]
        slopes.append(((u[1] - u[0]) / step) ** 2)
        contrasts.append((u[2] - u[0]) ** 2 / 2.0)  # its mean is the variance over inputs
    found = math.sqrt(np.mean(slopes) / np.mean(contrasts))
    errors = [np.std(values) / np.mean(values) / math.sqrt(200) for values in (slopes, contrasts)]
    tolerance = 3.0 * math.hypot(*errors) / 2.0 + depth / width
    assert abs(found / frequency - 1.0) < tolerance
    uncorrected = found / math.sqrt(networks.far_distance(depth))
    assert abs(uncorrected / frequency - 1.0) > 2.0 * tolerance


def test_the_correlation_with_phases_is_that_of_networks() -> None:
    """Of 200 networks of width 128, within three standard errors and a share depth / width.

    The correlation of a single layer is outside.
    """
    networks, rng = module("_sine_networks"), np.random.default_rng(0)
    width, depth, input_gain, distance = 128, 6, 5.0, 0.1
    # Half the mean square of the first layer's difference is `(input_gain r / 2)^2`.
    apart = 2.0 * math.sqrt(distance) / input_gain
    points = np.array([[0.0, 0.0], [apart, 0.0], [100.0, 70.0]])
    near, far = [], []
    for _ in range(200):
        u = draw_phases(rng, width, depth, input_gain, points, outputs=32)
        near.append(np.mean((u[1] - u[0]) ** 2))
        far.append(np.mean((u[2] - u[0]) ** 2))
    found = float(np.mean(near) / np.mean(far))
    errors = [np.std(values) / np.mean(values) / math.sqrt(200) for values in (near, far)]
    tolerance = found * (3.0 * math.hypot(*errors) + depth / width)
    assert abs(found - (1.0 - networks.phase_correlation(depth, np.array(distance)))) < tolerance
    assert abs(found - (1.0 - networks.phase_correlation(1, np.array(distance)))) > 2.0 * tolerance


# Prediction without networks


def test_the_mean_of_a_gaussian_process_is_that_of_scikit_learn() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    interpolation, photograph = module("interpolate_pixels"), module("_photographs").load("china", 16)
    found = interpolation.krige(photograph, interpolation.KERNELS["Gaussian kernel"], 2.0, 0.1)
    at, places = photograph.fitted.ravel(), np.indices((16, 16)).reshape(2, -1).T
    values = photograph.pixels.ravel()[at]
    process = GaussianProcessRegressor(kernels.RBF(2.0), alpha=0.1, optimizer=None)
    expected = process.fit(places[at], values - values.mean()).predict(places) + values.mean()
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)


def test_a_filter_of_neighbors_is_exact_on_a_plane() -> None:
    """Each parity has more searched pixels than weights; noise has no exact filter."""
    interpolation, photographs = module("interpolate_pixels"), module("_photographs")
    plane = np.add.outer(np.arange(32.0), 2.0 * np.arange(32.0)) / 90.0
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, (32, 32))
    for reach in (1, 2):
        found = interpolation.filter_neighbors(photographs.Photograph(plane), reach)
        # Rows and columns past the last fitted one repeat it; the weights are those of all others too.
        errors = np.abs(found - plane)[4:-6, 4:-6]
        assert errors.max() < 0.05
        worse = interpolation.filter_neighbors(photographs.Photograph(noise), reach)
        assert np.abs(worse - noise).max() > 0.5


@pytest.mark.parametrize("method", ["linear", "Gaussian kernel", "filter of 4 neighbors"])
def test_no_prediction_looks_at_held_out_pixels(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interpolation, photographs = module("interpolate_pixels"), module("_photographs")
    photograph = photographs.load("china", 16)
    monkeypatch.setattr(interpolation, "LENGTHS", (1.0, 2.0, 4.0, 8.0))
    found, _ = interpolation.predict(photograph, method)
    for mask in (photograph.held_out, photograph.fitted):
        changed = photographs.Photograph(np.where(mask, 0.9, 1.0) * photograph.pixels)
        other, _ = interpolation.predict(changed, method)
        assert np.allclose(other, found) == (mask is not photograph.fitted)


def test_a_kernel_at_the_end_of_its_ladder_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    interpolation, photograph = module("interpolate_pixels"), module("_photographs").load("china", 16)
    monkeypatch.setattr(interpolation, "LENGTHS", (64.0, 128.0))
    with pytest.raises(ValueError, match="Make `LENGTHS` or `NOISES` longer"):
        interpolation.predict(photograph, "Gaussian kernel")


# SIREN's gain


def test_sine_layers_are_those_of_the_theory_of_derivatives() -> None:
    """Variances and growth without biases are those of `predict_derivatives`; another gain has others."""
    siren = module("siren_gain")
    layers = siren.follow(8, 0.0)
    predicted = theory.predict_derivatives(
        "sin", 8, siren.GAIN, input_activation="sin", input_gain=1.0, input_bias_stddev=np.pi
    )
    variances = [layer.variance for layer in layers[1:]]
    np.testing.assert_allclose(predicted.value[1:8] ** 2, variances, rtol=1e-6)
    growth = [layer.growth for layer in layers[:-1]]
    np.testing.assert_allclose(predicted.first[1:8] ** 2 / predicted.first[:7] ** 2, growth, rtol=1e-6)
    assert siren.follow(8, 0.0, 1.3)[-1].growth < 0.95 * growth[-1]


def test_uniform_biases_have_the_moments_of_an_integral() -> None:
    """The factor and the next variance are integrals over a normal and a uniform number."""
    siren = module("siren_gain")
    for width in (64, 256, 1024):
        bound = siren.siren_bias_bound(width)
        last, following = siren.follow(4, bound)[-2:]
        x, weights = np.polynomial.hermite_e.hermegauss(40)
        b = np.linspace(-bound, bound, 2001)[:-1] + bound / 2000
        a = math.sqrt(last.variance) * x[:, None] + b
        weights = weights / weights.sum()
        assert last.growth == pytest.approx(2.0 * weights @ np.mean(np.cos(a) ** 2, axis=1), rel=1e-5)
        assert following.variance == pytest.approx(2.0 * weights @ np.mean(np.sin(a) ** 2, axis=1), rel=1e-5)
        fourth = weights @ np.mean(np.cos(a) ** 4, axis=1)
        assert last.kurtosis * (last.growth / 2.0) ** 2 == pytest.approx(fourth, rel=1e-5)
    assert siren.follow(50, 0.0)[-1].growth == pytest.approx(1.2032, abs=1e-4)
    assert siren.follow(50, siren.siren_bias_bound(64))[-1].growth < 1.02


def walk_of_sines(rng: np.random.Generator, width: int, depth: int, bias_bound: float) -> float:
    """Returns `ln |delta|` of the first layer less that of the last, in a network with SIREN's kernels."""
    kernels = rng.uniform(-1.0, 1.0, (depth - 1, width, width)) * math.sqrt(6.0 / width)
    layers = [rng.uniform(-np.pi, np.pi, width)]
    for kernel in kernels:
        layers.append(np.sin(layers[-1]) @ kernel + rng.uniform(-bias_bound, bias_bound, width))
    delta = np.cos(layers[-1]) * rng.standard_normal(width)
    start = np.linalg.norm(delta)
    for kernel, a in zip(kernels[::-1], layers[-2::-1], strict=True):
        delta = np.cos(a) * (kernel @ delta)
    return math.log(np.linalg.norm(delta) / start)


def test_the_predicted_walk_is_that_of_networks() -> None:
    """The mean of 200 networks is within four standard errors and `depth / n^1.5`, which has no first order.

    The walk without biases is outside.
    """
    siren, rng = module("siren_gain"), np.random.default_rng(0)
    width, depth = 64, 10
    for bound in (siren.siren_bias_bound(width), 0.0):
        walks = [walk_of_sines(rng, width, depth, bound) for _ in range(200)]
        predicted = sum(layer.step(width) for layer in siren.follow(depth, bound)[:-1])
        tolerance = 4.0 * np.std(walks) / math.sqrt(200) + depth / width**1.5
        assert abs(np.mean(walks) - predicted) < tolerance
        other = 0.0 if bound else siren.siren_bias_bound(width)
        wrong = sum(layer.step(width) for layer in siren.follow(depth, other)[:-1])
        assert abs(np.mean(walks) - wrong) > 2.0 * tolerance


# The search


def test_the_search_begins_at_the_rate_of_the_network() -> None:
    ladders, tried = module("_ladders"), []

    def bowl(rate: float, scale: float) -> float:
        tried.append((rate, scale))
        away = math.log10(rate / 3e-5) ** 2 + math.log2(scale / 2.0) ** 2
        return math.nan if rate > 1e-3 else away

    assert ladders.climb(bowl, 1e-4) == (3e-5, 2.0)
    assert tried[0] == (1e-4, 1.0)
    assert len(tried) == len(set(tried))
    with pytest.raises(ValueError, match="came to the end of a ladder"):
        ladders.climb(lambda rate, scale: scale)


@pytest.mark.parametrize(
    ("table", "objective"), [("held_out.csv", "searched_db"), ("fitted.csv", "fitted_db")]
)
def test_every_result_has_the_best_settings_of_the_search(table: str, objective: str) -> None:
    """No setting next to those chosen has a larger PSNR with the seed of the search."""
    ladders, experiment = module("_ladders"), module("_experiment")
    keys = ("network", "depth", "rate", "scale")
    searched = experiment.read(RESULTS / "networks" / "search.csv")
    known = {tuple(row[key] for key in keys): row[objective] for row in searched}
    chosen = {tuple(row[key] for key in keys) for row in experiment.read(RESULTS / "networks" / table)}
    assert chosen
    for network, depth, rate, scale in chosen:
        at, along = ladders.RATES.index(rate), ladders.SCALES.index(scale)
        neighbors = [(network, depth, ladders.RATES[at + step], scale) for step in (-1, 1)]
        neighbors += [(network, depth, rate, ladders.SCALES[along + step]) for step in (-1, 1)]
        best = known[network, depth, rate, scale]
        assert all(not known[neighbor] > best for neighbor in neighbors)


# Runs


@pytest.mark.slow
@pytest.mark.backends
def test_a_quick_run_and_its_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare, arguments = module("compare_networks"), ["--quick", "--output", str(tmp_path)]
    siren, walk = compare.main(arguments)
    assert (siren["network"], walk["network"]) == ("siren", "walk")
    assert walk["fitted_db"] > 15.0
    directory = tmp_path / "networks"
    names = {"photographs.csv", "held_out.csv", "errors.png", "pictures.png"}
    assert {path.name for path in directory.iterdir()} == names
    for picture in ("errors.png", "pictures.png"):
        assert (directory / picture).read_bytes().startswith(b"\x89PNG")
    written = (directory / "held_out.csv").read_bytes()
    # Nothing of the first fit is left in the compiled network.
    again = module("_fitting").fit({key: value for key, value in walk.items() if key != "seconds"})
    assert again["held_out_db"] == pytest.approx(walk["held_out_db"], abs=0.05)
    monkeypatch.setattr(compare, "fit", lambda run: pytest.fail("was done already"))
    assert len(compare.main(arguments)) == 2
    assert (directory / "held_out.csv").read_bytes() == written
    capsys.readouterr()


@pytest.mark.slow
def test_the_other_scripts_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--output", str(tmp_path)]
    with_biases, without = module("siren_gain").main(arguments)
    assert with_biases["predicted"] < 0.0 < without["predicted"]
    rows = module("interpolate_pixels").main(arguments)
    assert [row["method"] for row in rows] == list(module("interpolate_pixels").METHODS)
    assert rows[0]["gained_db"] == rows[0]["error_db"] == 0.0
    first, _ = module("search_gain").main(arguments)
    assert (first["gain_ratio"], first["input_gain_ratio"]) == (1.0, 1.0)
    assert (tmp_path / "gain" / "landscape.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()


# The page


def test_the_page_agrees_with_the_tables() -> None:
    page = module("write_images_page")
    written = page.PAGE.read_text(encoding="utf-8")
    assert written == page.make_page(), "run examples/images/write_images_page.py"


@pytest.mark.slow
def test_the_recipe_of_the_page_gives_a_network_of_the_pictures_frequency() -> None:
    """Of 20 networks it is within three standard errors and a share of 20 / 64, depth over width."""
    page = (ROOT / "docs" / "studies" / "images.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    photograph, slopes, variances = module("_photographs").load("china"), [], []
    for seed in range(20):
        keras.utils.set_random_seed(seed)
        names: dict[str, Any] = {}
        exec(compile(block, "images.md", "exec"), names)
        u = keras.ops.convert_to_numpy(names["model"].predict_on_batch(photograph.coordinates))
        u = u.reshape(64, 64)
        slopes.append(np.mean(np.diff(u, axis=0) ** 2) * 32.0**2)
        variances.append(np.var(u))
    found = math.sqrt(np.mean(slopes) / np.mean(variances))
    errors = [np.std(values) / np.mean(values) / math.sqrt(20) for values in (slopes, variances)]
    assert abs(found / names["frequency"] - 1.0) < 3.0 * math.hypot(*errors) / 2.0 + 20 / 64
