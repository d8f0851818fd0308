"""The loop over a stack of Dense layers on JAX: `lax.scan`, differentiated by JAX."""

from __future__ import annotations

from collections.abc import Callable

import jax

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

    def layer(h: Tensor, weights: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        w, b = weights
        a = h @ w.astype(h.dtype)
        # A scan's carry keeps its dtype; some of Keras's functions return float32 for float64.
        return activation(a if b is None else a + b.astype(h.dtype)).astype(h.dtype), None

    # Unrolling the scan (2, 5, 10 layers at widths 64, 100, 256) made no step faster, and compiling slower.
    def layers(h: Tensor, weights: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        return jax.lax.scan(layer, h, weights)

    depth = kernel.shape[0]
    if segment is None or segment >= depth:
        return layers(x, (kernel, bias))[0]
    # A scan takes segments of equal length: the layers left over run before it.
    short = depth % segment
    if short:
        x, _ = jax.checkpoint(layers)(x, jax.tree.map(lambda w: w[:short], (kernel, bias)))
    segments = jax.tree.map(
        lambda w: w[short:].reshape(depth // segment, segment, *w.shape[1:]), (kernel, bias)
    )
    return jax.lax.scan(jax.checkpoint(layers), x, segments)[0]
