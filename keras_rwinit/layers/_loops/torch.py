"""The loop over a stack of Dense layers on PyTorch: a plain Python loop, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

from keras_rwinit._keras.types import Tensor

__all__ = ["run_stack"]


def run_stack(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    activation: Callable[[Tensor], Tensor],
    inference: bool = False,
    segment: int | None = None,
) -> Tensor:
    """Applies `depth` Dense layers; see `keras_rwinit.layers.dense_stack.run_stack`."""
    depth = len(kernel)
    kernels = kernel.unbind(0)
    biases = [None] * depth if bias is None else bias.unbind(0)

    def layers(x: Tensor, first: int, last: int) -> Tensor:
        for w, b in zip(kernels[first:last], biases[first:last], strict=True):
            a = x @ w.to(x.dtype)
            x = activation(a if b is None else a + b.to(x.dtype))
        return x

    if segment is None or segment >= depth or not torch.is_grad_enabled():
        return layers(x, 0, depth)
    # The first segment may be short: it begins below 0, and `max` cuts it.
    short = depth % segment
    for first in range(short - segment if short else 0, depth, segment):
        # An element-wise activation draws no random numbers whose state would have to be kept.
        x = checkpoint(
            layers, x, max(first, 0), first + segment, use_reentrant=False, preserve_rng_state=False
        )
    return x
