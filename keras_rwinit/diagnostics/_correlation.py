"""`WalkCorrelation`: how alike a model makes different examples, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._keras.types import ArrayTree
from keras_rwinit._probing.measurements import LayerMeasurement
from keras_rwinit._probing.norms import log_norm
from keras_rwinit._probing.pairs import centered_ranks, gram_matrices, mean_correlations
from keras_rwinit.theory.correlation import CorrelationPrediction

__all__ = ["WalkCorrelation", "measure_correlation"]

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class WalkCorrelation:
    """How alike different examples are at each layer of a measured walk.

    The correlation of two examples is the cosine of the angle between their vectors, which are not centered.
    The effective rank is `theory.ranks.effective_rank` of the batch less its mean: the number of directions
    in which examples differ, 1 where they differ along a line.

    Args:
        forward: Mean correlation of two examples' outputs of each layer, after its activation, over all
            pairs, shape (layers,). Examples whose output is zero or not finite are left out; nan where fewer
            than two remain.
        backward: The same of the gradients at the pre-activations.
        effective_rank: Effective rank of the layer's outputs, shape (layers,), of at most 32 examples that
            are spread evenly over the batch; nan where the outputs do not differ.
        inputs: Mean correlation of two examples of the model's inputs, from -1 to 1.
        inputs_rank: Effective rank of the inputs, at least 1; nan where they do not differ.
        prediction: Prediction of `forward` for a chain of Dense layers of one width whose activation has two
            slopes, such as relu; None for models of another kind. That of other activations takes seconds:
            call `predict_correlation`, and pass the result to `plots.plot_correlation`.

    Raises:
        ValueError: The parts do not fit together.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.diagnostics import WalkCorrelation
        >>> alike, ranks = np.array([0.2, 0.4, 0.5]), np.array([6.0, 5.0, 4.5])
        >>> WalkCorrelation(alike, alike, ranks, inputs=0.0, inputs_rank=7.0)
        WalkCorrelation(layers=3, inputs=0.0000, last=0.5000, rank=4.50)
    """

    forward: Array
    backward: Array
    effective_rank: Array
    inputs: float
    inputs_rank: float
    prediction: CorrelationPrediction | None = None

    def __post_init__(self) -> None:
        layers = np.shape(self.forward)
        for name in ("backward", "effective_rank"):
            if len(layers) != 1 or np.shape(getattr(self, name)) != layers:
                raise ValueError(
                    f"`forward` and `{name}` must have one number for each layer. Received: shapes {layers} "
                    f"and {np.shape(getattr(self, name))}"
                )
        prediction = self.prediction
        if prediction is not None and not np.shape(prediction.mean) == np.shape(prediction.std) == layers:
            raise ValueError(
                f"`prediction` must have {layers[0]} layers. Received: {np.shape(prediction.mean)} and "
                f"{np.shape(prediction.std)}"
            )

    def __repr__(self) -> str:
        return (
            f"WalkCorrelation(layers={len(self.forward)}, inputs={self.inputs:.4f}, "
            f"last={self.forward[-1]:.4f}, rank={self.effective_rank[-1]:.2f})"
        )


def measure_correlation(inputs: ArrayTree, hidden: Sequence[LayerMeasurement]) -> WalkCorrelation:
    """Combines what was measured of the pairs at each layer with the inputs' own correlation."""
    arrays = [array for array in keras.tree.flatten(inputs) if array is not None]
    examples = len(arrays[0])
    # Several inputs count as the parts of one.
    flat = np.concatenate([array.reshape(examples, -1) for array in arrays], axis=1)
    if flat.dtype.kind != "f":
        flat = flat.astype(np.float32)
    norms = log_norm(flat)[None]
    return WalkCorrelation(
        forward=np.array([layer.forward_correlation for layer in hidden]),
        backward=np.array([layer.backward_correlation for layer in hidden]),
        effective_rank=centered_ranks(np.stack([layer.gram for layer in hidden])),
        inputs=float(mean_correlations(flat[None], norms)[0]),
        inputs_rank=float(centered_ranks(gram_matrices(flat[None], norms))[0]),
    )
