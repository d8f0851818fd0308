"""Redraws every kernel of a Keras model, each with the gain that its context requires."""

from ._initialize import initialize
from ._report import InitializationReport, InitializedKernel

__all__ = ["InitializationReport", "InitializedKernel", "initialize"]
