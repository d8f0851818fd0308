"""`WalkRecord`: the walk at one moment of a training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["WalkRecord"]

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False, eq=False)
class WalkRecord:
    """The walk at one moment of the training.

    Args:
        epoch: Number of finished epochs, from 0.
        step: Number of finished batches, from 0.
        verdict: `GradientWalk.verdict`, after the first step that of a trained model, or "not measured" and
            the reason.
        drift: `GradientWalk.drift`, nats per layer; nan if not measured.
        relative: Mean over the examples of `ln(|delta_d| / |delta_last|)`, shape (layers,); empty if not
            measured.
        advice: `GradientWalk.advice`: what to try if the verdict is not fine; empty if it is.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.callbacks import WalkRecord
        >>> WalkRecord(epoch=1, step=45, verdict="fine", drift=0.01, relative=np.array([0.02, 0.01, 0.0]))
        <WalkRecord: epoch 1, step 45: fine, drift +0.0100 nats per layer over 3 layers>
    """

    epoch: int
    step: int
    verdict: str
    drift: float
    relative: Array
    advice: str = ""

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}, step {self.step}: {self.verdict}, drift {self.drift:+.4f} nats per layer "
            f"over {len(self.relative):,} layers"
        )

    def __repr__(self) -> str:
        return f"<WalkRecord: {self}>"
