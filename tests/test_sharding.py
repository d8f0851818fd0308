"""`layout_map` on the names of the package's own networks; `tests/training` has it on eight devices."""

from __future__ import annotations

import keras
import pytest

from keras_rwinit import model_zoo, sharding
from keras_rwinit.layers import DenseStack

L = keras.layers


def axes_of(model: keras.Model) -> dict[str, tuple[str | None, ...] | None]:
    """Returns the axes along which each kernel is cut, by the name of its layer; None for a whole one."""
    mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
    layouts = sharding.layout_map(mesh)
    found = {}
    for layer in model.layers:
        for weight in layer.weights:
            layout = layouts[weight.path]
            assert layout is None or len(layout.axes) == len(weight.shape), weight.path
            if weight.name == "kernel":
                found[layer.name] = None if layout is None else layout.axes
    return found


ROWS, COLUMNS, STACK = ("model", None), (None, "model"), (None, None, "model")


def test_the_stacks_of_an_autoencoder_are_cut() -> None:
    model = model_zoo.deep_autoencoder(9, 20, 6, input_shape=(30,), seed=0)
    assert axes_of(model) == {
        **{f"{side}_{number}": COLUMNS for side in ("encoder", "decoder") for number in (1, 2)},
        **{f"{side}_{number}_stack": STACK for side in ("encoder", "decoder") for number in (1, 2)},
        "bottleneck": None,
        "reconstruction": None,
    }


@pytest.mark.parametrize("stacked", [True, False])
def test_classifiers_are_cut(stacked: bool) -> None:
    model = model_zoo.deep_mlp(3, 4, input_shape=(5,), classes=2, stacked=stacked, seed=0)
    hidden = {"hidden_stack": STACK} if stacked else {"hidden_2": COLUMNS, "hidden_3": COLUMNS}
    assert axes_of(model) == {"hidden_1": COLUMNS, **hidden, "classifier": ROWS}


def test_stacks_of_other_models() -> None:
    """The names that Keras and `stack` give are known; a Dense layer is not taken for a stack."""
    layers = [DenseStack(2), L.Dense(4, name="last_stack"), DenseStack(2, name="mine")]
    found = axes_of(keras.Sequential([keras.Input((4,)), *layers]))
    assert list(found.values()) == [STACK, None, None]
    chain = [L.Dense(4, "relu"), L.Dense(4, "relu"), *(L.Dense(4, "tanh") for _ in range(3))]
    assert axes_of(model_zoo.stack(keras.Sequential([keras.Input((4,)), *chain]))) == {
        "hidden_stack_0": STACK,
        "hidden_stack_1": STACK,
    }
