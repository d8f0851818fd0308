"""Draws every kernel of a Keras model anew, each with the gain that its place asks for."""

from ._initialize import InitializationReport, InitializedKernel, initialize

__all__ = ["InitializationReport", "InitializedKernel", "initialize"]
