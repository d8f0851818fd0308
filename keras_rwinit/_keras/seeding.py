"""Seeds of layers: a different seed for each, all from one root seed."""

from __future__ import annotations

import random

import keras
import numpy as np

from keras_rwinit._checks import check_seed

from .types import Initializer

__all__ = ["DrawnSeed", "layer_initializers", "layer_seeds", "with_seed"]

_MODULUS = 2**31  # seeds that every Keras initializer takes on every back end
_STRIDE = 0x9E3779B1  # odd, so that multiples of it are distinct modulo a power of two


class DrawnSeed(int):
    """A seed that nobody chose. A configuration has None in its place, so that a clone draws its own."""


def layer_seeds(seed: int | None, count: int) -> list[int]:
    """Returns `count` different seeds; the first ones do not depend on `count`.

    `None` takes the root from Python's `random`, which `keras.utils.set_random_seed` seeds. Such seeds, and
    those from one of them, are `DrawnSeed`s.
    """
    kind = DrawnSeed if seed is None or isinstance(seed, DrawnSeed) else int
    seed = check_seed(seed)
    entropy = random.getrandbits(63) if seed is None else seed % 2**64
    root = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    return [kind((root + layer * _STRIDE) % _MODULUS) for layer in range(count)]


def with_seed(initializer: Initializer, seed: int) -> Initializer:
    """Returns a copy of `initializer` with the given seed, or `initializer` itself if it takes no seed."""
    # `RandomWalk` copies itself: a copy by its config would need a serializable activation.
    if hasattr(initializer, "reseeded"):
        return initializer.reseeded(seed)
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if "seed" not in config:
        return initializer
    twin = type(initializer).from_config({**config, "seed": seed})
    # Where Keras's initializers keep what their configuration says.
    if isinstance(seed, DrawnSeed) and hasattr(twin, "_init_seed"):
        twin._init_seed = None
    return twin


def layer_initializers(initializer: Initializer, count: int) -> list[Initializer]:
    """Returns an initializer for each of `count` equal layers, no two of which draw the same values.

    An int seed is the root of the layers' seeds. Without a seed, every layer gets a random one. A
    `keras.random.SeedGenerator` changes at every draw, so that all layers share it.
    """
    if isinstance(getattr(initializer, "seed", None), keras.random.SeedGenerator):
        return [initializer] * count
    root = None
    if hasattr(initializer, "reseeded") or isinstance(getattr(initializer, "seed", None), DrawnSeed):
        root = getattr(initializer, "seed", None)
    elif isinstance(initializer, keras.initializers.Initializer):
        root = initializer.get_config().get("seed")
    return [with_seed(initializer, seed) for seed in layer_seeds(root, count)]
