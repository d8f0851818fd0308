"""`GradientWalk`: verdicts, the table, files, and the prediction that comes with a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit import GradientWalk, gradient_walk, initialize, model_zoo, predict_walk

L = keras.layers
EXAMPLES, LAYERS = 4, 30


def record(backward: Any) -> GradientWalk:
    backward = np.broadcast_to(np.asarray(backward, float), (EXAMPLES, LAYERS)).copy()
    names = tuple(f"h{layer}" for layer in range(1, LAYERS + 1))
    return GradientWalk(names, backward, np.zeros_like(backward), np.zeros(LAYERS), np.zeros(LAYERS))


DISTANCE = np.arange(LAYERS - 1, -1, -1.0)  # from the last layer
DEAD_BELOW_10 = np.where(np.arange(1, LAYERS + 1) <= 10, -np.inf, 0.0)
VERDICTS: dict[str, tuple[Any, str]] = {
    "level": (0.0, "fine"),
    "drifting": (-0.3 * DISTANCE, "fine"),  # 8.7 nats
    "vanishing": (-0.5 * DISTANCE, "vanishing from h11 (layer 11 of 30) on"),  # ln 1e4 = 9.21 after 19 steps
    "exploding": (2.0 * DISTANCE, "exploding from h25 (layer 25 of 30) on"),
    "dead": (DEAD_BELOW_10, "dead from h10 (layer 10 of 30) on"),
    "dead throughout": (-np.inf, "dead from h30 (layer 30 of 30) on"),
    "overflowing": (-DEAD_BELOW_10, "not finite from h10 (layer 10 of 30) on"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdicts(case: str) -> None:
    backward, verdict = VERDICTS[case]
    walk = record(backward)
    assert walk.verdict == verdict
    assert verdict in walk.summary()


def test_one_dead_example_of_four_is_no_verdict() -> None:
    backward = np.zeros((EXAMPLES, LAYERS))
    backward[0] = DEAD_BELOW_10
    walk = record(backward)
    assert walk.verdict == "fine"
    assert np.isnan(walk.example_spread)
    assert walk.drift == -np.inf


def test_drift_and_example_spread() -> None:
    rng = np.random.default_rng(0)
    backward = rng.normal(size=(EXAMPLES, LAYERS))
    walk, total = record(backward), backward[:, 0] - backward[:, -1]
    assert walk.drift == pytest.approx(total.mean() / (LAYERS - 1))
    assert walk.example_spread == pytest.approx(total.std())


def test_the_former_name_of_the_example_spread_warns() -> None:
    walk = record(np.random.default_rng(0).normal(size=(EXAMPLES, LAYERS)))
    with pytest.warns(DeprecationWarning, match="now called example_spread") as caught:
        assert walk.spread == walk.example_spread
    assert caught[0].filename == __file__  # points at the line that uses the old name


@pytest.mark.parametrize("backward", [DISTANCE, DEAD_BELOW_10, np.nan])
def test_files(backward: Any, tmp_path: Path) -> None:
    walk = record(backward)
    path = tmp_path / "walk.json"
    walk.save(path)
    again = GradientWalk.load(path)
    assert again.layer_names == walk.layer_names
    for field in ("backward", "forward", "weight_gradient", "dead"):
        np.testing.assert_array_equal(getattr(again, field), getattr(walk, field))
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert float(content["example_spread"]) == pytest.approx(walk.example_spread, nan_ok=True)
    assert "spread" not in content
    before = path.read_bytes()
    with pytest.raises(ValueError, match="exists, and nothing is overwritten"):
        walk.save(path)
    assert path.read_bytes() == before


def test_files_of_a_prediction(tmp_path: Path) -> None:
    model = model_zoo.deep_mlp(6, 16, input_shape=(4,), seed=0)
    walk = gradient_walk(model, np.ones((2, 4)))
    walk.save(tmp_path / "walk.json")
    again = GradientWalk.load(tmp_path / "walk.json")
    assert walk.prediction is not None
    assert again.prediction is not None
    np.testing.assert_array_equal(again.prediction.mean, walk.prediction.mean)
    np.testing.assert_array_equal(again.prediction.std, walk.prediction.std)
    assert again.to_dict() == walk.to_dict()


def test_files_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    """The example spread was called spread there."""
    walk, path = record(DISTANCE), tmp_path / "walk.json"
    walk.save(path)
    content = json.loads(path.read_text())
    content["spread"] = content.pop("example_spread")
    path.write_text(json.dumps(content))
    assert GradientWalk.load(path).example_spread == walk.example_spread


def test_arrays_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "walk.json"
    record(0.0).save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "dead": [0.0]}))
    with pytest.raises(ValueError, match="does not hold a saved GradientWalk"):
        GradientWalk.load(path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "another"}', "no JSON"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="does not hold a saved GradientWalk"):
        GradientWalk.load(path)


def test_the_table_of_a_deep_model_is_two_dozen_rows() -> None:
    model = model_zoo.deep_mlp(100, 8, input_shape=(4,), seed=0)
    lines = gradient_walk(model, np.ones((2, 4))).summary().splitlines()
    rows = [line for line in lines if "│ hidden" in line]
    assert len(rows) == 24
    assert "hidden_1 " in rows[0]
    assert "hidden_stack[98]" in rows[-1]


def test_the_plot_has_the_predicted_band() -> None:
    model = model_zoo.deep_mlp(6, 16, input_shape=(4,), seed=0)
    labels = [
        text.get_text() for text in gradient_walk(model, np.ones((2, 4))).plot().get_legend().get_texts()
    ]
    assert "predicted, 2 standard deviations" in labels


def chain(*layers: Any, width: int = 32) -> keras.Model:
    return keras.Sequential([keras.Input((width,)), *layers])


def test_predictions_of_smooth_activations_are_those_of_the_measured_gain() -> None:
    model = chain(*(L.Dense(32, "tanh") for _ in range(20)), L.Dense(3))
    report = initialize(model, seed=0, distribution="orthogonal")
    prediction = gradient_walk(model, np.ones((1, 32))).prediction
    expected = predict_walk("tanh", 32, 20, gain=report.kernels[1].gain, distribution="orthogonal")
    assert prediction is not None
    assert prediction.gain == pytest.approx(expected.gain, rel=1e-6)
    np.testing.assert_allclose(prediction.mean, expected.mean, atol=1e-5)


def test_predictions_of_tapering_relu_layers() -> None:
    """The sum over the layers of what `predict_walk` says of two layers of their width and gain."""
    widths = (60, 40, 30, 20)
    model = chain(*(L.Dense(n, "relu") for n in widths), L.Dense(3))
    initialize(model, seed=0, distribution="orthogonal")
    prediction = gradient_walk(model, np.ones((1, 32))).prediction
    assert prediction is not None
    steps = []
    for layer, fan_in in zip(model.layers[1:4], widths[:3], strict=True):
        rms = float(np.sqrt((keras.ops.convert_to_numpy(layer.kernel).astype(float) ** 2).mean()))
        used = rms * fan_in**0.5
        steps.append(predict_walk("relu", fan_in, 2, gain=used, distribution="orthogonal").mean[0])
    np.testing.assert_allclose(prediction.mean, [*np.cumsum(steps[::-1])[::-1], 0.0], atol=1e-9)


def test_where_the_theory_is_silent() -> None:
    inputs = keras.Input((8,))
    h = L.Dense(8, "relu")(inputs)
    residual = keras.Model(inputs, L.Dense(2)(L.Add()([h, L.Dense(8, "relu")(h)])))
    silent = [
        residual,
        chain(L.Dense(8, "relu"), L.Dense(8, "tanh"), L.Dense(8), L.Dense(2), width=8),
        chain(L.Dense(8, "relu"), L.BatchNormalization(), L.Dense(8, "relu"), L.Dense(2), width=8),
        chain(L.Dense(16, "tanh"), L.Dense(12, "tanh"), L.Dense(8, "tanh"), L.Dense(2), width=8),
    ]
    for model in silent:
        assert gradient_walk(model, np.ones((1, 8))).prediction is None
