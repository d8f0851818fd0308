"""Draws every kernel of a Keras model anew, each with the gain that its context asks for."""

from ._initialize import initialize
from ._report import InitializationReport, InitializedKernel

__all__ = ["InitializationReport", "InitializedKernel", "initialize"]
