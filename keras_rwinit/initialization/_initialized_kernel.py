"""`InitializedKernel`: a row of the report of `initialize`."""

from __future__ import annotations

import dataclasses

__all__ = ["InitializedKernel"]


@dataclasses.dataclass(frozen=True)
class InitializedKernel:
    """One kernel that `initialize` drew, or several layers of a `DenseStack` with the same gain and reason.

    Args:
        path: Path of the weight, as Keras calls it, followed by the layers of a stack if they are not all:
            `stack/kernel[1:200]`.
        shape: Shape of the weight, or of that part of it.
        fan_in: Inputs that an output unit sums over: their mean number in a strided transposed convolution,
            the channels where a convolution is drawn at its center.
        activation: Name of the activation that feeds it.
        gain: Gain of the kernel: its entries have variance `gain**2 / fan_in`.
        correction: Factor of `gain` that the calibration with data put there; 1 without data.
        why: How the gain was found.
        count: Number of kernels that the row stands for.
        distribution: The distribution that it was drawn from: "looks_linear" where it is mirrored, and
            "delta_orthogonal" where only the center of a convolution is drawn.

    Example:
        >>> from keras_rwinit import initialize, model_zoo
        >>> model = model_zoo.deep_mlp(depth=1, width=8, input_shape=(4,))
        >>> kernel = initialize(model, seed=0).kernels[0]
        >>> kernel.path, kernel.shape, kernel.gain, kernel.why
        ('hidden_1/kernel', (4, 8), 1.0, 'reads the data')
    """

    path: str
    shape: tuple[int, ...]
    fan_in: float
    activation: str
    gain: float
    correction: float
    why: str
    count: int = 1
    distribution: str = ""
