"""Redraws every kernel of a Keras model, each with the gain that its context requires."""

from ._initialize import initialize
from ._initialized_kernel import InitializedKernel
from ._report import InitializationReport

__all__ = ["InitializationReport", "InitializedKernel", "initialize"]
