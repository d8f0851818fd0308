"""`GradientWalk`: verdicts, the table, files, and the prediction that comes with a model."""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_rwinit import (
    GradientWalk,
    WalkPrediction,
    gradient_walk,
    initialize,
    model_zoo,
    predict_correlation,
    predict_walk,
)
from keras_rwinit.diagnostics import WalkCorrelation

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
    "drifting": (-0.04 * DISTANCE, "fine"),  # 1.2 nats
    # ln 10 = 2.30 after 8 steps, a factor of 0.74 each
    "shrinking": (-0.3 * DISTANCE, "shrinking from h22 (layer 22 of 30) on"),
    "growing": (0.3 * DISTANCE, "growing from h22 (layer 22 of 30) on"),
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


def test_one_dead_example_of_four_is_left_out() -> None:
    backward = np.random.default_rng(0).normal(size=(EXAMPLES, LAYERS))
    backward[0] = DEAD_BELOW_10
    walk, others = record(backward), record(np.concatenate([backward[1:], backward[1:2]]))
    assert walk.verdict == "fine"
    total = backward[1:, 0] - backward[1:, -1]
    assert walk.drift == pytest.approx(total.mean() / (LAYERS - 1))
    assert walk.example_spread == pytest.approx(total.std())
    assert "nan" not in walk.summary().replace("nan nats", "")
    assert "1 of 4 examples are left out where they have no gradient" in walk.summary()
    assert "examples are left out" not in others.summary()


def test_where_no_example_has_a_gradient() -> None:
    walk = record(DEAD_BELOW_10)
    assert walk.drift == -np.inf
    assert np.isnan(walk.example_spread)
    assert np.isnan(record(-np.inf).drift)


def predicted(total: float, spread: float) -> GradientWalk:
    """A level walk that ends at `total`, with a prediction of that spread."""
    walk = record(np.linspace(total, 0.0, LAYERS))
    std = np.linspace(spread, 0.0, LAYERS)
    return dataclasses.replace(walk, prediction=WalkPrediction(1.0, np.zeros(LAYERS), std, 0.0))


@pytest.mark.parametrize(
    ("total", "spread", "word"),
    [
        # 30 layers at a factor of 1.05 are 1.4 nats, so that the spread decides only below ln 10 = 2.3.
        (-7.7, 2.9, "shrinking"),
        (-2.2, 0.1, "fine"),
        (9.3, 20.0, "exploding"),
    ],
)
def test_a_walk_is_judged_by_its_prediction(total: float, spread: float, word: str) -> None:
    assert predicted(total, spread).verdict.split(" ")[0] == word


def test_a_slow_walk_is_judged_by_its_spread_alone() -> None:
    """Seven nats in 1000 layers: a factor of 0.993 from layer to layer."""
    layers = 1000
    backward = np.broadcast_to(np.linspace(-7.0, 0.0, layers), (EXAMPLES, layers))
    names = tuple(map(str, range(layers)))
    for spread, word in ((2.0, "shrinking"), (4.0, "fine"), (None, "fine")):
        prediction = spread and WalkPrediction(1.0, np.zeros(layers), np.full(layers, spread), 0.0)
        walk = GradientWalk(names, backward, backward, np.zeros(layers), np.zeros(layers), prediction or None)
        assert walk.verdict.split(" ")[0] == word


@pytest.mark.parametrize(
    ("total", "word", "trained"),
    [(7.0, "growing", "fine"), (-7.0, "shrinking", "fine"), (-20.0, "vanishing", "vanishing")],
)
def test_a_trained_model_is_judged_by_what_stops_a_training(total: float, word: str, trained: str) -> None:
    walk = predicted(total, 0.1)
    assert walk.verdict.split(" ")[0] == word
    assert dataclasses.replace(walk, trained=True).verdict.split(" ")[0] == trained


def test_whether_a_model_was_trained_is_true_or_false() -> None:
    with pytest.raises(ValueError, match="`trained` must be True or False. Received: 1"):
        dataclasses.replace(record(0.0), trained=1)


def test_a_dead_branch_is_not_said_to_end_the_walk() -> None:
    backward = np.zeros((EXAMPLES, LAYERS))
    backward[:, [8, 20]] = -np.inf
    verdict = record(backward).verdict
    assert verdict == "partly dead at 2 of 30 layers, h21 (layer 21 of 30) nearest the output"


def test_layers_that_wait_are_judged_by_their_first_gradient() -> None:
    """Between those of one step, since a weight that leaves zero scales all of them."""
    waits = np.where(np.arange(LAYERS) == 0, 0.0, 1.0)
    backward = np.where(waits == 0.0, 3.0, -np.inf)
    for slope, word in ((0.01, "fine"), (2.0, "exploding at 24 of 30 layers, h25")):
        first = np.where(waits == 0.0, 3.0, -50.0 + slope * DISTANCE)
        walk = dataclasses.replace(
            record(backward), waits=waits, first_backward=np.broadcast_to(first, (EXAMPLES, LAYERS))
        )
        assert walk.drift == pytest.approx(slope)
        assert walk.verdict.startswith(word)
        assert walk.verdict.endswith("; 29 of 30 layers wait for weights that start at or near zero")


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
    walk = dataclasses.replace(record(backward), initial_statistics=3, unpredicted="it is a tree")
    path = tmp_path / "walk.json"
    walk.save(path)
    again = GradientWalk.load(path)
    assert again.layer_names == walk.layer_names
    for field in ("backward", "forward", "weight_gradient", "dead"):
        np.testing.assert_array_equal(getattr(again, field), getattr(walk, field))
    assert (again.initial_statistics, again.unpredicted) == (3, "it is a tree")
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert float(content["example_spread"]) == pytest.approx(walk.example_spread, nan_ok=True)
    assert "spread" not in content
    before = path.read_bytes()
    with pytest.raises(ValueError, match="exists, and nothing is overwritten.*or pass overwrite=True"):
        walk.save(path)
    assert path.read_bytes() == before
    other = record(1.0)
    other.save(path, overwrite=True)
    assert GradientWalk.load(path).to_dict() == other.to_dict()


def test_files_of_a_prediction(tmp_path: Path) -> None:
    model = model_zoo.deep_mlp(6, 16, input_shape=(4,), seed=0)
    walk = gradient_walk(model, np.ones((2, 4)))
    walk.save(tmp_path / "walk.json")
    again = GradientWalk.load(tmp_path / "walk.json")
    assert walk.prediction is not None
    assert again.prediction is not None
    np.testing.assert_array_equal(again.prediction.mean, walk.prediction.mean)
    np.testing.assert_array_equal(again.prediction.std, walk.prediction.std)
    np.testing.assert_equal(again.to_dict(), walk.to_dict())


def test_files_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    """The example spread was called spread there."""
    walk, path = record(DISTANCE), tmp_path / "walk.json"
    walk.save(path)
    content = json.loads(path.read_text())
    content["spread"] = content.pop("example_spread")
    del content["waits"], content["first_backward"]
    path.write_text(json.dumps(content))
    assert GradientWalk.load(path).example_spread == walk.example_spread


PREDICTION = {"gain": 1.0, "mean": [0.0] * 29, "std": [0.0] * 29, "dead_probability": 0.0}
DAMAGES: dict[str, dict[str, Any]] = {
    "one unit share": {"dead": [0.0]},
    "names of numbers": {"layer_names": list(range(LAYERS))},
    "names in one text": {"layer_names": "x" * LAYERS},
    "no layer": {key: [] for key in ("layer_names", "weight_gradient", "dead", "waits")}
    | {key: [[], []] for key in ("backward", "forward", "first_backward")},
    "no example": {"backward": [], "forward": [], "first_backward": []},
    "one axis": {"backward": [0.0] * LAYERS, "forward": [0.0] * LAYERS},
    "ragged": {"backward": [[0.0] * LAYERS, [0.0]]},
    "too few predictions": {"prediction": PREDICTION},
    "prediction of lists": {"prediction": {**PREDICTION, "gain": []}},
    "a list for a prediction": {"prediction": [1.0]},
    "dtype": {"dtype": None},
    "negative wait": {"waits": [-1.0] * LAYERS},
    "a number no float holds": {"dead": [10**400] * LAYERS},
    "a number whose square no float holds": {"waits": [1e308] * LAYERS},
    "null": {"forward": [[None] * LAYERS] * EXAMPLES},
    "a word": {"weight_gradient": ["low"] * LAYERS},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_records_that_would_crash_later_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "walk.json"
    record(0.0).save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **DAMAGES[damage]}))
    with pytest.raises(ValueError, match="does not hold a saved GradientWalk"):
        GradientWalk.load(path)


@pytest.mark.parametrize("key", ["backward", "prediction", "dtype"])
def test_records_with_a_part_missing_are_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "walk.json"
    record(0.0).save(path)
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="does not hold a saved GradientWalk"):
        GradientWalk.load(path)


def test_parts_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`dead` must have the shape \(30,\). Received: \(29,\)"):
        dataclasses.replace(record(0.0), dead=np.zeros(29))


def test_deviations_of_the_correlation_belong_to_its_layers() -> None:
    prediction = predict_correlation("relu", 8, 3)
    layers = np.zeros(3)
    with pytest.raises(ValueError, match=r"`prediction` must have 3 layers. Received: \(3,\) and \(2, 3\)"):
        WalkCorrelation(
            layers, layers, layers, 0.0, 1.0, dataclasses.replace(prediction, std=np.zeros((2, 3)))
        )


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "another"}', "no JSON", "[" * 100_000])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="does not hold a saved GradientWalk"):
        GradientWalk.load(path)


def test_long_names_leave_the_numbers_whole() -> None:
    """Names as long as those of ConvNeXt, whose numbers were cut to "-14.…"."""
    names = tuple(f"convnext_tiny_stage_2_block_{number}_pointwise_conv_1" for number in range(100, 112))
    shape = (3, 12)
    walk = GradientWalk(
        names,
        np.full(shape, -123.45),
        np.full(shape, 67.89),
        np.full(12, -14.25),
        np.zeros(12),
        None,
        "float32",
    )
    correlation = WalkCorrelation(np.full(12, 0.9876), np.full(12, 0.123), np.full(12, 2.5), 0.0, 1.0)
    rows = [
        line
        for line in dataclasses.replace(walk, correlation=correlation).summary().splitlines()
        if "conv" in line
    ]
    assert len(rows) == 12
    for number, row in enumerate(rows):
        assert f"_{100 + number}_pointwise" in row
        assert all(text in row for text in (" 67.89 ", " -14.25 ", " 0.9876 ", " 0.123 ", " 2.5 "))


def test_the_table_of_a_deep_model_is_two_dozen_rows() -> None:
    model = model_zoo.deep_mlp(100, 8, input_shape=(4,), seed=0)
    lines = gradient_walk(model, np.ones((2, 4))).summary().splitlines()
    rows = [line for line in lines if "│ hidden" in line]
    assert len(rows) == 24
    assert "│   1 │ hidden_1 " in rows[0]
    assert "│ 100 │ hidden_stack[98]" in rows[-1]
    assert "24 of 100 layers shown, evenly spaced; 76 left out" in lines
    columns = [name.strip() for name in lines[2].strip("┃").split("┃")]
    assert columns[:2] == ["", "layer"]
    for column in columns[2:]:  # each has a line that says what it means
        assert len([line for line in lines if line.startswith(f"{column} ")]) == 1


@pytest.mark.parametrize("layer", range(2, LAYERS))
def test_the_layer_that_the_verdict_names_is_in_the_table(layer: int) -> None:
    lines = record(np.where(np.arange(LAYERS) < layer, -np.inf, 0.0)).summary().splitlines()
    assert lines[0].endswith(f"dead from h{layer} (layer {layer} of 30) on")
    assert any(f"│ h{layer} " in line for line in lines)
    rows = sum("│ h" in line for line in lines)
    assert f"{rows} of 30 layers shown, evenly spaced; {30 - rows} left out" in lines


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


@pytest.mark.slow
def test_where_the_theory_is_silent() -> None:
    inputs = keras.Input((8,))
    h = L.Dense(8, "relu")(inputs)
    residual = keras.Model(inputs, L.Dense(2)(L.Add()([h, L.Dense(8, "relu")(h)])))
    half = np.random.default_rng(0).normal(size=(4, 4))
    mirrored = chain(L.Dense(8, "tanh"), L.Dense(8, "tanh"), L.Dense(8, "tanh"), L.Dense(2), width=8)
    for layer in mirrored.layers[:-1]:  # the blocks of "looks_linear", which tanh does not make linear
        layer.kernel.assign(np.block([[half, -half], [-half, half]]))
    # Integers are no weights: their gain would be that of 8-bit numbers.
    quantized = chain(*(L.Dense(8, "relu") for _ in range(3)), L.Dense(2), width=8)
    for layer in quantized.layers:
        layer.quantize("int8")
    shared, zeros = L.Dense(8, "relu"), L.Dense(8, "relu", kernel_initializer="zeros")
    silent = {
        "feeds more than one layer, as before a shortcut": residual,
        "theory has no walk of tanh with looks_linear kernels": mirrored,
        "has a quantized kernel": quantized,
        "different activations: linear, relu, tanh": chain(
            L.Dense(8, "relu"), L.Dense(8, "tanh"), L.Dense(8), L.Dense(2), width=8
        ),
        "has a normalization next to it": chain(
            L.Dense(8, "relu"), L.BatchNormalization(), L.Dense(8, "relu"), L.Dense(2), width=8
        ),
        "the widths differ, and tanh is not made of two": chain(
            L.Dense(16, "tanh"), L.Dense(12, "tanh"), L.Dense(8, "tanh"), L.Dense(2), width=8
        ),
        "fed through dropout": chain(L.Dense(8, "relu"), L.Dropout(0.1), L.Dense(8), L.Dense(2), width=8),
        "is applied more than once": keras.Model(inputs, L.Dense(2)(shared(shared(inputs)))),
        "of type Conv1D": chain(
            L.Reshape((8, 1)), L.Conv1D(2, 3), L.Conv1D(2, 3), L.Flatten(), L.Dense(2), width=8
        ),
        "a kernel is zero": chain(L.Dense(8, "relu"), zeros, L.Dense(2), width=8),
        "no hidden layer is of a kind": chain(L.Dense(2), width=8),
    }
    for reason, model in silent.items():
        walk = gradient_walk(model, np.ones((1, 8)))
        assert walk.prediction is None
        assert reason in walk.unpredicted
        (line,) = [line for line in walk.summary().splitlines() if line.startswith("no prediction, since")]
        assert walk.unpredicted in line


def test_two_records_are_compared_as_objects() -> None:
    """The arrays in them have no equality that is true or false."""
    walk, other = record(0.0), record(0.0)
    assert walk == walk
    assert walk != other
    assert len({walk, other}) == 2


def test_print_shows_the_table_and_repr_is_one_line() -> None:
    walk = record(0.0)
    assert str(walk) == walk.summary()
    assert repr(walk) == "GradientWalk(layers=30, examples=4, verdict='fine')"


def test_a_layer_named_block_relu_in_brackets_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """In the tables of `gradient_walk` and `initialize`; rich takes brackets for markup."""
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(4, "relu", name="block[relu]"), L.Dense(2, name="[bold]")]
    )
    print(gradient_walk(model, np.ones((2, 3))))
    assert "block[relu]" in capsys.readouterr().out
    print(initialize(model, seed=0))
    printed = capsys.readouterr().out
    assert "block[relu]/kernel" in printed
    assert "[bold]/kernel" in printed


def test_a_notebook_shows_the_summary_as_it_is() -> None:
    walk = dataclasses.replace(record(0.0), layer_names=("<b>", *record(0.0).layer_names[1:]))
    shown = walk._repr_html_()
    assert shown.startswith("<pre")
    assert "&lt;b&gt;" in shown
    assert html.unescape(shown.partition(">")[2]).removesuffix("</pre>") == walk.summary() == str(walk)
