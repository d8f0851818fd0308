"""`count_parameters`: the size of a plain network before it is built."""

from __future__ import annotations

__all__ = ["count_parameters"]


def count_parameters(depth: int, width: int, inputs: int, classes: int) -> int:
    """Returns the number of weights and biases of `deep_mlp(depth, width)`, without building it.

    Example:
        >>> count_parameters(1000, 64, 64, 10)
        4160650
    """
    # Each unit has a bias beside its weights.
    hidden = (inputs + 1) * width + (depth - 1) * (width + 1) * width
    return hidden + (width + 1) * classes
