"""A model that computes its loss itself, for the tests of losses."""

from __future__ import annotations

from typing import Any

import keras


class OwnLoss(keras.Model):
    """Computes its loss itself."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        del sample_weight, training
        return keras.ops.mean(keras.ops.abs(y_pred - y)) + 0.1 * keras.ops.mean(x) * keras.ops.mean(y_pred**2)
