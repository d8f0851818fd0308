"""The loop over a stack of Dense layers on JAX: `lax.scan`, differentiated by JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

__all__ = ["run_stack"]


def run_stack(
    x: Any, kernel: Any, bias: Any, activation: Callable[[Any], Any], inference: bool = False
) -> Any:
    """`depth` Dense layers; see `keras_rwinit.layers.dense_stack.run_stack`."""

    def layer(h: Any, weights: tuple[Any, Any]) -> tuple[Any, None]:
        w, b = weights
        a = h @ w
        return activation(a if b is None else a + b), None

    return jax.lax.scan(layer, x, (kernel, bias))[0]
