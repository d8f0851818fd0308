"""`count_parameters`: the size of a plain network before it is built."""

from __future__ import annotations

from keras_rwinit._checks import check_count

__all__ = ["count_parameters"]


def count_parameters(depth: int, width: int, inputs: int, classes: int) -> int:
    """Returns the number of weights and biases of `deep_mlp(depth, width)`, without building it.

    Args:
        depth: Number of hidden layers, at least 1.
        width: Units of every hidden layer, at least 1.
        inputs: Number of features of one input, at least 1.
        classes: Units of the classifier, at least 1.

    Returns:
        The number of all weights and biases, those of the classifier included.

    Raises:
        ValueError: An argument is not an integer of at least 1.

    Example:
        >>> from keras_rwinit import model_zoo
        >>> model_zoo.count_parameters(depth=1000, width=64, inputs=64, classes=10)
        4160650
    """
    depth, width = check_count("depth", depth), check_count("width", width)
    inputs, classes = check_count("inputs", inputs), check_count("classes", classes)
    # Each unit has a bias beside its weights.
    hidden = (inputs + 1) * width + (depth - 1) * (width + 1) * width
    return hidden + (width + 1) * classes
