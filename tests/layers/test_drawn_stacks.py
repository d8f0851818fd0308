"""Stacks drawn on several processors and in several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_rwinit._keras import parallel
from keras_rwinit._keras.seeding import layer_seeds
from keras_rwinit.initializers import RandomWalk


def draw(seed: int, distribution: str) -> np.ndarray:
    return RandomWalk("relu", distribution, depth=40, seed=seed)._draw_stack(40, (48, 48), "float32")


@pytest.mark.parametrize("distribution", ["normal", "orthogonal", "looks_linear"])
def test_a_stack_has_the_same_kernels_however_it_is_drawn(
    distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: layer by layer, in parts on 1 and 4 processors, and beside another stack."""
    seeds = layer_seeds(3, 40)
    initializer = RandomWalk("relu", distribution, depth=40)
    alone = [initializer.reseeded(seed)._draw_array((48, 48), "float32") for seed in seeds]
    expected = np.stack(alone).astype(np.float32)
    monkeypatch.setattr(parallel, "_PART_BYTES", 8 * 48 * 48 * 3)
    for processors in (1, 4):
        monkeypatch.setattr(parallel, "available_processors", lambda number=processors: number)
        np.testing.assert_array_equal(draw(3, distribution), expected)
    with ThreadPoolExecutor(2) as executor:
        first, second = executor.map(lambda seed: draw(seed, distribution), (3, 4))
    np.testing.assert_array_equal(first, expected)
    assert not np.array_equal(second, expected)
