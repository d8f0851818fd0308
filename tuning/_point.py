"""`Point`: one network of the search space."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Point"]


@dataclass(frozen=True)
class Point:
    """A network and its training, as a point of the search space.

    Args:
        gain_ratio: Gain of the hidden kernels over the analytic one.
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        activation: Name of their activation.
        distribution: Name of the kernels' distribution. `None`: that of `deep_mlp`.
        input_gain_ratio: Gain of the first kernel over the one that `deep_mlp` gives it.
        output_gain_ratio: The same for the classifier's kernel.
        learning_rate: Learning rate of the optimizer.
        optimizer: Keras optimizer id.
    """

    gain_ratio: float
    width: int
    depth: int
    activation: str
    distribution: str | None
    input_gain_ratio: float
    output_gain_ratio: float
    learning_rate: float
    optimizer: str
