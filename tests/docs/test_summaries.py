"""Summaries are whole texts where rich takes the process for a notebook, as it does in the site's build."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import rich.console

from keras_rwinit import gradient_walk, initialize


def test_a_summary_holds_its_table_in_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    layers = [keras.layers.Dense(4, "relu", name="first"), keras.layers.Dense(2, name="second")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    assert "first" in gradient_walk(model, np.ones((2, 3))).summary()
    assert "second/kernel" in initialize(model, seed=0).summary()
