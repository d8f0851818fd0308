"""`GradientWalkCallback`: records during `fit`, its files, and that training does not notice."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import to_numpy

from keras_rwinit import GradientWalkCallback, gradient_walk, model_zoo

backends = pytest.mark.backends  # where a back end keeps its weights in its own way

X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 48)
BATCH = 16  # three steps an epoch


def compiled() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = model_zoo.deep_mlp(4, 16, "tanh", distribution="orthogonal", input_shape=(6,), classes=3, seed=0)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fitted(callback: Any, epochs: int = 4, **options: Any) -> keras.Model:
    model = compiled()
    callbacks = [] if callback is None else [callback]
    model.fit(X, Y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=callbacks, **options)
    return model


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "gradient_walk.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("unit", "every", "steps"),
    [("epoch", 1, [0, 3, 6, 9, 12]), ("epoch", 2, [0, 6, 12]), ("step", 5, [0, 5, 10]), ("step", 100, [0])],
)
def test_records_come_when_they_should(tmp_path: Path, unit: str, every: int, steps: list[int]) -> None:
    walk = GradientWalkCallback(X[:5], Y[:5], directory=tmp_path, unit=unit, every=every)
    fitted(walk)
    assert [record.step for record in walk.history] == steps
    assert [record.epoch for record in walk.history] == [step // 3 for step in steps]
    table = rows(tmp_path)
    assert [int(row["step"]) for row in table[::4]] == steps
    assert len(table) == 4 * len(steps)


@backends
def test_the_record_is_that_of_the_model_at_the_moment(tmp_path: Path) -> None:
    """Of the first step and of the last: in between, JAX keeps the weights elsewhere."""
    walk = GradientWalkCallback(X[:5], Y[:5], directory=tmp_path, unit="step", every=2)
    model = fitted(walk)
    for record, state in ((walk.history[0], compiled()), (walk.history[-1], model)):
        now = gradient_walk(state, X[:5], Y[:5])
        np.testing.assert_allclose(record.relative, now.relative.mean(axis=0), atol=1e-5)
        assert record.drift == pytest.approx(now.drift, abs=1e-5)
    mean = [float(row["ln_gradient"]) for row in rows(tmp_path)[-4:]]
    np.testing.assert_allclose(mean, now.backward.mean(axis=0), atol=1e-5)
    assert not np.allclose(walk.history[0].relative, walk.history[-1].relative, atol=1e-3)


@backends
def test_training_does_not_notice(tmp_path: Path) -> None:
    with_callback = fitted(GradientWalkCallback(X[:5], Y[:5], directory=tmp_path, unit="step"))
    without = fitted(None)
    for one, other in zip(with_callback.weights, without.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


def test_fitting_again_goes_on(tmp_path: Path) -> None:
    walk = GradientWalkCallback(X[:5], directory=tmp_path)
    model = fitted(walk, epochs=1)
    model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[walk])
    assert [record.step for record in walk.history] == [0, 3, 6, 9]
    assert [int(row["epoch"]) for row in rows(tmp_path)[::4]] == [0, 1, 2, 3]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras knows one step an execution there")
def test_several_steps_an_execution(tmp_path: Path) -> None:
    walk = GradientWalkCallback(X[:5], directory=tmp_path, unit="step", every=2)
    model = compiled()
    model.compile("adam", model.loss, steps_per_execution=3)
    model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[walk])
    assert [record.step for record in walk.history] == [0, 3, 6]


@backends
def test_an_unbuilt_model_and_a_later_start(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Dense(4, "relu"), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    walk = GradientWalkCallback(X[:5], directory=tmp_path)
    model.fit(X, Y, epochs=6, initial_epoch=4, verbose=0, callbacks=[walk])
    assert [record.epoch for record in walk.history] == [0, 5, 6]


def test_one_callback_one_model(tmp_path: Path) -> None:
    walk = GradientWalkCallback(X[:5], directory=tmp_path)
    fitted(walk, epochs=1)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    other.compile("sgd", compiled().loss)
    with pytest.raises(ValueError, match="records one model.*make a callback for each"):
        other.fit(X, Y, verbose=0, callbacks=[walk])


def test_layers_of_one_name_have_tags_of_their_own(tmp_path: Path) -> None:
    def block() -> keras.Model:
        return keras.Sequential([keras.layers.Dense(4, "relu", name="same")])

    model = keras.Sequential([keras.Input((6,)), block(), block(), keras.layers.Dense(3)])
    model.compile("sgd", compiled().loss)
    model.fit(X, Y, verbose=0, callbacks=[GradientWalkCallback(X[:5], directory=tmp_path)])
    assert len({row["name"] for row in rows(tmp_path)}) == 2


def test_events_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    walk = GradientWalkCallback(X[:5], Y[:5], directory=tmp_path)
    fitted(walk, epochs=2)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    tags = events.Tags()["tensors"]
    for layer in ("hidden_1", "hidden_stack[2]"):
        for kind in ("ln_gradient", "ln_activation", "ln_weight_gradient", "dead", "gradient"):
            assert f"{kind}/{layer}" in tags
    drift = [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors("gradient_walk/drift")]
    assert [step for step, _ in drift] == [0, 3, 6]
    assert [value for _, value in drift] == pytest.approx([record.drift for record in walk.history])
    assert len(events.Tensors("gradient/hidden_1")) == 3


def test_a_diverged_training_is_recorded(tmp_path: Path) -> None:
    model = compiled()
    walk = GradientWalkCallback(X[:5], Y[:5], directory=tmp_path)
    model.set_weights([np.full(w.shape, np.nan) for w in model.get_weights()])
    model.fit(X, Y, verbose=0, callbacks=[walk])
    assert walk.history[-1].verdict.startswith("not finite")
    assert (tmp_path / "gradient_walk.png").stat().st_size > 1000


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    fitted(GradientWalkCallback(X[:5], directory=tmp_path), epochs=1)
    before = (tmp_path / "gradient_walk.csv").read_bytes()
    with pytest.raises(ValueError, match="exists, and nothing is overwritten"):
        GradientWalkCallback(X[:5], directory=tmp_path)
    assert (tmp_path / "gradient_walk.csv").read_bytes() == before
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": "batch"}, "`unit` must be 'epoch' or 'step'. Received: unit='batch'"),
        ({"every": 0}, "`every` must be an integer of at least 1"),
        ({"every": 1.5}, "`every` must be an integer"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientWalkCallback(X, directory=tmp_path, **arguments)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="must be a folder"):
        GradientWalkCallback(X, directory=tmp_path / "file")


def test_bad_data_ends_before_the_first_step(tmp_path: Path) -> None:
    model = compiled()
    walk = GradientWalkCallback(X[:5] * np.nan, directory=tmp_path)
    with pytest.raises(ValueError, match="`x` must be finite"):
        model.fit(X, Y, verbose=0, callbacks=[walk])


@pytest.mark.parametrize(("package", "option"), [("matplotlib", "picture"), ("tensorboard", "tensorboard")])
def test_missing_packages_are_named(
    package: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"keras-rwinit\[plots\]"):
        GradientWalkCallback(X, directory=tmp_path)
    GradientWalkCallback(X, directory=tmp_path, **{option: False})
