"""The strategies by name, and the one that a run asks for."""

from __future__ import annotations

import keras

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
"""Names on the command line, and the back end each belongs to."""


def make_strategy(name: str, width: int) -> Strategy:
    """The strategy of a name, its devices found and, on TensorFlow, set up.

    To be called before anything else makes TensorFlow compute: workers cannot be joined later.

    Args:
        name: A key of `STRATEGIES`.
        width: Of the network, which model parallelism cuts into equal parts.

    Raises:
        ValueError: There is no such strategy on this back end, or not what it needs on this machine.
    """
    if name not in STRATEGIES:
        raise ValueError(f"`strategy` must be one of {', '.join(STRATEGIES)}. Received: {name!r}")
    needed, backend = STRATEGIES[name], keras.backend.backend()
    if needed is None:
        return Strategy()
    if needed != backend:
        others = [other for other, of in STRATEGIES.items() if of in (None, backend)]
        raise ValueError(
            f"The strategy {name} is one of Keras's {needed} back end. Received: {backend}; "
            f"set KERAS_BACKEND={needed}, or choose among {', '.join(others)}"
        )
    if needed == "tensorflow":
        from .tensorflow import tensorflow_strategy

        return tensorflow_strategy(name)
    from .jax import jax_strategy

    return jax_strategy(name, width)
