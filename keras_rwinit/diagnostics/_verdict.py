"""Judges a measured walk in a few words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._probing.norms import mean_log_norm

__all__ = ["EXCESS", "FACTOR", "LIMIT", "SLIGHT", "judge"]

Array = NDArray[np.float64]

LIMIT = float(np.log(1e4))
"""Nats of `ln|delta|`, relative to the last hidden layer, beyond which a gradient has vanished or exploded.

The order of the factor 1.7e4 between two layers' gradients with which He et al., arXiv:1502.01852, section
2.2, explain that a network stops learning.
"""

SLIGHT = float(np.log(10.0))
"""Nats beyond which a walk may shrink or grow; networks below learned as well as level ones."""

EXCESS = 2.0
"""Predicted standard deviations beyond which a walk is not put down to chance, as one in twenty is."""

FACTOR = float(np.log(1.05))
"""Nats per layer beyond which a walk shrinks or grows whatever its spread: it reaches LIMIT in 190 layers."""


def judge(
    names: Sequence[str],
    forward: Array,
    backward: Array,
    relative: Array,
    waits: Array,
    drift: float,
    spread: float | None,
) -> str:
    """Returns the verdict.

    Args:
        names: Name of each layer.
        forward: `ln|h|`, shape (examples, layers).
        backward: `ln|delta|` when a gradient first reaches each layer, same shape.
        relative: The same relative to the last layer reached in that step.
        waits: Steps until then, inf for never. Shape (layers,).
        drift: Mean step towards the input, nats per layer.
        spread: Predicted standard deviation of the walk over networks, in nats; None where there is none.
    """
    mean = np.nan_to_num(mean_log_norm(relative), nan=0.0)
    words = [_word_at(*at) for at in zip(forward.T, backward.T, mean, waits, strict=True)]
    verdict = _locate(words, names)
    if not verdict and _is_beyond_chance(drift, len(names), spread):
        slight = ["shrinking" if value < -SLIGHT else "growing" if value > SLIGHT else "" for value in mean]
        verdict = _locate(slight, names)
    waiting = int(((waits > 0.0) & np.isfinite(waits)).sum())
    note = f"; {waiting} of {len(names)} layers wait for weights that start at zero" if waiting else ""
    return (verdict or "fine") + note


def _word_at(forward: Array, backward: Array, mean: float, waits: float) -> str:
    """Returns what is wrong at a layer, in a word or two; empty if nothing is."""
    # -inf is the log-norm of a dead signal, nan and inf are those of weights or signals that overflowed.
    signals = np.concatenate([forward, backward])
    if not np.isfinite(signals[signals != -np.inf]).all():
        return "not finite"
    if np.isinf(waits) or (waits == 0.0 and (backward == -np.inf).mean() >= 0.5):
        return "dead"
    return "vanishing" if mean < -LIMIT else "exploding" if mean > LIMIT else ""


def _is_beyond_chance(drift: float, layers: int, spread: float | None) -> bool:
    total = abs(drift) * (layers - 1)
    return abs(drift) > FACTOR or (spread is not None and total > EXCESS * spread)


def _locate(words: Sequence[str], names: Sequence[str]) -> str:
    """Returns a word with the layers that it holds for; empty if it holds for none."""
    count = len(names)
    found = [layer for layer in range(count) if words[layer]]
    if not found:
        return ""
    # Layers before one that fails may fail too, or be reached past it by a residual connection.
    from_input = next((layer for layer in range(count) if not words[layer]), count)
    layer = from_input - 1 if from_input else found[-1]
    place = f"{names[layer]} (layer {layer + 1} of {count})"
    if from_input:
        return f"{words[layer]} from {place} on"
    partly = "partly " if words[layer] == "dead" else ""
    return f"{partly}{words[layer]} at {len(found)} of {count} layers, {place} nearest the output"
