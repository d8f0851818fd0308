"""The graph of a model: the operations that it applies to numbered tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import keras

from .kernels import Kernel, kernels_of

__all__ = ["Graph", "Shape", "Step"]

Shape: TypeAlias = tuple[int | None, ...] | None


@dataclass(frozen=True, eq=False)
class Step:
    """One application of an operation (a layer, or a function of `keras.ops`).

    Args:
        operation: The Keras layer or operation.
        inputs, outputs: Numbers of its input and output tensors.
        input_shape: Shape of its first input, the batch included; None if unknown.
        guessed: Whether its inputs are a guess, because it is part of a layer that could not be looked into.
        arguments, keywords: Arguments of the call, its constants among them; empty if unknown.
        kernel: The kernel that it applies and nothing else, where a call of a layer was looked into, or where
            it uses the kernel of another layer; None for a whole layer.
        copied: Whether it applies a copy of that kernel's values, taken when the model was made.
    """

    operation: keras.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shape: Shape = None
    guessed: bool = False
    arguments: tuple[object, ...] = ()
    keywords: Mapping[str, object] = field(default_factory=dict)
    kernel: Kernel | None = None
    copied: bool = False

    @property
    def units(self) -> int | None:
        """Size of the last axis of its first input; None if unknown."""
        return self.input_shape[-1] if self.input_shape else None

    @property
    def kernels(self) -> list[Kernel]:
        """The kernels that it applies, in their order."""
        return kernels_of(self.operation) if self.kernel is None else [self.kernel]


@dataclass(frozen=True)
class Graph:
    """The steps of a model, each after those whose outputs it takes; see `trace`."""

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
