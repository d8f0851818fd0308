"""Finds the strategy of a name."""

from __future__ import annotations

import keras

from keras_rwinit._checks import did_you_mean

from .base import Strategy

__all__ = ["STRATEGIES", "make_strategy"]

STRATEGIES = {
    "none": None,
    "mirrored": "tensorflow",
    "multi-worker": "tensorflow",
    "tpu": "tensorflow",
    "data-parallel": "jax",
    "model-parallel": "jax",
}
"""Names on the command line, and the back end that each needs."""


def make_strategy(name: str, width: int) -> Strategy:
    """Returns the strategy of a name, its devices found and, on TensorFlow, set up.

    Call it before anything makes TensorFlow compute: workers cannot join a cluster later.

    Args:
        name: A key of `STRATEGIES`.
        width: Width of the network, which model parallelism cuts into equal parts.

    Raises:
        ValueError: There is no such strategy on this back end, or this machine lacks what it needs.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"`strategy` must be one of {', '.join(STRATEGIES)}. Received: {name!r}"
            f"{did_you_mean(name, STRATEGIES)}"
        )
    needed, backend = STRATEGIES[name], keras.backend.backend()
    if needed is None:
        return Strategy()
    if needed != backend:
        usable = [other for other, needs in STRATEGIES.items() if needs in (None, backend)]
        raise ValueError(
            f"The strategy {name} needs Keras's {needed} back end. Received: {backend}; "
            f"set KERAS_BACKEND={needed}, or choose among {', '.join(usable)}"
        )
    # Imported here: each needs a back end that need not be installed.
    if needed == "tensorflow":
        from .tensorflow import tensorflow_strategy

        return tensorflow_strategy(name)
    from .jax import jax_strategy

    return jax_strategy(name, width)
