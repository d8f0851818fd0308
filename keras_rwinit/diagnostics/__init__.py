"""Measures the gradient's walk through a model."""

from ._correlation import WalkCorrelation
from ._measure import gradient_walk
from ._record import GradientWalk

__all__ = ["GradientWalk", "WalkCorrelation", "gradient_walk"]
