"""`GradientWalkCallback`: records the gradient's walk while a model trains."""

from ._callback import GradientWalkCallback
from ._record import WalkRecord

__all__ = ["GradientWalkCallback", "WalkRecord"]
