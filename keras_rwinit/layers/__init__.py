"""Layers for very deep feed-forward networks, and the chain that holds a thousand plain ones."""

from .deep_sequential import DeepSequential
from .dense_stack import DenseStack

__all__ = ["DeepSequential", "DenseStack"]
