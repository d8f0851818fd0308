"""Layers for very deep feed-forward networks, and the chain that holds a thousand plain ones."""

from keras_rwinit._keras.activations import get_activation

from .deep_sequential import DeepSequential
from .dense_stack import DenseStack

__all__ = ["DeepSequential", "DenseStack", "get_activation"]
