"""The loop over a stack of Dense layers on PyTorch: a plain Python loop, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["run_stack"]


def run_stack(
    x: Any, kernel: Any, bias: Any, activation: Callable[[Any], Any], inference: bool = False
) -> Any:
    """`depth` Dense layers; see `keras_rwinit.layers.dense_stack.run_stack`."""
    kernels = kernel.unbind(0)
    biases = [None] * len(kernels) if bias is None else bias.unbind(0)
    for w, b in zip(kernels, biases, strict=True):
        a = x @ w
        x = activation(a if b is None else a + b)
    return x
