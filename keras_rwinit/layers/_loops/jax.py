"""The loop over a stack of Dense layers on JAX: `lax.scan`, differentiated by JAX.

JAX keeps for the gradient what the loop's body computes. From pre-activations to pre-activations under
`jax.checkpoint`, that is one array a layer, from which the activation and its slope are computed again. From
outputs to outputs it would be the inputs and the slopes, at the least: a step of tanh layers then takes a
quarter longer, and one of relu layers as long.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

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

    def activate(a: Tensor) -> Tensor:
        # A scan's carry keeps its dtype; some of Keras's functions return float32 for float64.
        return activation(a).astype(a.dtype)

    def layer(
        carry: tuple[Tensor, Tensor], weights: tuple[Tensor, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], None]:
        a, is_first = carry
        w, b = weights
        # The first layer's inputs do not pass the activation. 0.5 stands for them: there sqrt, log and arcsin
        # have values and slopes.
        h = jnp.where(is_first, a, activate(jnp.where(is_first, 0.5, a)))
        a = h @ w.astype(h.dtype)
        return (a if b is None else a + b.astype(h.dtype), jnp.zeros((), bool)), None

    # Unrolling the scan (2, 5, 10 layers at widths 64, 100, 256) made no step faster, and compiling slower.
    def layers(h: Tensor, weights: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        run_layer = jax.checkpoint(layer, prevent_cse=False)
        (a, _), _ = jax.lax.scan(run_layer, (h, jnp.ones((), bool)), weights)
        return activate(a), None

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
