"""The recipes of CONTRIBUTING.md work: what they name exists, their entries are what the tables hold."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest

import keras_rwinit
from keras_rwinit._keras import layer_kinds
from keras_rwinit.data import datasets
from keras_rwinit.models import _presets, model_zoo
from keras_rwinit.theory import activations, distributions

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"\*\*An? ([a-z ]+)\.\*\*.*?```python\n(.*?)```", TEXT, re.DOTALL))


def test_there_is_a_recipe_for_each() -> None:
    assert list(RECIPES) == ["activation", "layer kind", "distribution", "preset", "data set"]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:\w+/)+\w+\.py)`", TEXT))))
def test_every_file_it_names_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_every_room_it_lists_exists() -> None:
    rooms = re.findall(
        r"`([\w/]+)`", "".join(line.split("|")[1] for line in TEXT.splitlines() if line[:3] == "| `")
    )
    assert len(rooms) > 20
    for room in rooms:
        places = [ROOT / room, ROOT / "keras_rwinit" / room, ROOT / "keras_rwinit" / f"{room}.py"]
        assert any(place.exists() for place in places), room


def test_the_recipe_for_an_activation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Theory, layers and models take the new name, and a saved model with it loads."""
    (name,) = re.findall(r'ACTIVATIONS\["(\w+)"\]', RECIPES["activation"])
    monkeypatch.setitem(activations.ACTIVATIONS, name, None)  # which removes the name again after the test
    exec(RECIPES["activation"], vars(activations).copy())

    by_differences = keras_rwinit.gain(np.arctan, width=64, depth=20)
    assert keras_rwinit.gain(name, width=64, depth=20) == pytest.approx(by_differences, rel=1e-9)
    model = model_zoo.deep_mlp(depth=3, width=32, activation=name, input_shape=(4,), seed=0)
    x = np.linspace(-1.0, 1.0, 8, dtype="float32").reshape(2, 4)
    kernel, _ = model.layers[1].get_weights()
    hidden = keras.ops.convert_to_numpy(model.layers[1](x))
    np.testing.assert_allclose(hidden, np.arctan(x @ kernel), rtol=1e-5)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_the_recipe_for_a_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    distribution = eval(RECIPES["distribution"], vars(distributions).copy())
    monkeypatch.setitem(distributions.DISTRIBUTIONS, distribution.name, distribution)
    assert keras_rwinit.predict_walk("tanh", 50, 10, distribution=distribution.name).spread > 0.0


@pytest.mark.parametrize(
    ("recipe", "module", "kind"),
    [
        ("layer kind", layer_kinds, layer_kinds.LayerKind),
        ("preset", _presets, _presets.Preset),
        ("data set", datasets, datasets.DatasetEntry),
    ],
)
def test_the_recipe_is_an_entry_of_its_table(recipe: str, module: ModuleType, kind: type) -> None:
    table = eval(f"{{{RECIPES[recipe]}}}", {**vars(module), "MyLinear": keras.layers.Layer})
    assert [type(entry) for entry in table.values()] == [kind]
