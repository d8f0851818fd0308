"""Judges a measured walk in a few words, and says what to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._probing.norms import mean_log_norm

from ._correlation import WalkCorrelation

__all__ = ["Verdict", "judge"]

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

ALIKE = 0.95
"""Mean correlation of examples above which they count as alike.

Their directions are then about 18 degrees apart, and the loss is some twenty times as curved along what the
examples share as along what tells them apart.
"""

HALF_LOST = 0.5
"""Share of the directions that alike examples have lost; see DIRECTIONS_LOST.

Of the networks of seed 0 in `benchmarks/results/verdicts_compared.csv`, the six that are called alike ended
their 300 steps with a median loss of 0.53, those that are called fine with one of 0.06. Any limit from a half
to two thirds calls the same networks alike there.
"""

PARALLEL = 0.99
"""Mean correlation of examples above which they count as parallel.

Their directions are then about 8 degrees apart, and the loss is some hundred times as curved along what the
examples share as along what tells them apart.
"""

DIRECTIONS_LOST = 0.75
"""Share of the directions in which the inputs differ, beyond the first, that parallel examples have lost.

The directions are the effective rank of the batch less its mean. Parallel examples alone can be told apart:
sigmoid layers add one large vector to all of them, and keep the differences in their directions (a rank of
14 of 19 at a correlation of 0.999999); such networks learn. In a ReLU network the differences themselves
become parallel. Of the networks of seed 0 in `benchmarks/results/verdicts_compared.csv` whose examples are
parallel, those that learned have lost two fifths at most, and those of collapsed inputs more than nine
tenths.
"""

INITIALIZE = (
    "Draw the kernels anew with `keras_rwinit.initialize(model, x)`. If the verdict stays, use fewer layers "
    "or wider ones. In a residual network, let the branches begin at zero: "
    '`gamma_initializer="zeros"` in the normalization at the end of each. A model that has been trained '
    "would lose its training: measure it with `trained=True`."
)
KEEP_APART = (
    'The activation shaped for the depth keeps inputs apart: "shaped(relu)", "shaped(sigmoid)" and so on in '
    '`deep_mlp`, `keras_rwinit.layers.get_activation("shaped(sigmoid)", depth=60)` in a layer of Keras. So '
    'do kernels of the distribution "looks_linear", the default of `deep_mlp` for relu and gelu, and tanh '
    "with orthogonal kernels."
)
MEASURE_TRAINING = (
    "First measure with `training=True`: without it, a BatchNormalization that has seen no data passes its "
    "inputs on as they are. "
)
ADVICE = {
    "kernels repeat": "Give each layer an initializer of its own: another seed for each, or none.",
    "not finite": "Draw the kernels anew with `keras_rwinit.initialize(model, x)`, and train at a lower "
    "learning rate or with clipped gradients.",
    "dead": "Use an activation that always has a slope, such as `leaky_relu(0.1)`, and biases and kernels "
    "that do not switch all units of a layer off.",
    "vanishing": INITIALIZE,
    "exploding": INITIALIZE,
    "shrinking": INITIALIZE,
    "growing": INITIALIZE,
    "inputs alike": f"Training may start slowly, or not at all. {KEEP_APART}",
    "inputs collapsed": KEEP_APART,
}
"""What to try, by what is wrong."""


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a network, where, and what to try.

    Args:
        text: The verdict in words.
        faults: What is wrong, a word or two each, the first cause first; empty for a network that is fine.
        unnormalized: Whether the network was measured without the normalization that it has in training.
        layers: The layers that the text names, from 0.
    """

    text: str
    faults: tuple[str, ...] = ()
    unnormalized: bool = False
    layers: tuple[int, ...] = ()

    @property
    def advice(self) -> str:
        """What to try, in a sentence or two; empty for a network that is fine."""
        if not self.faults:
            return ""
        first = MEASURE_TRAINING if self.unnormalized and self.faults[0] != "kernels repeat" else ""
        return first + ADVICE[self.faults[0]]


def judge(
    names: Sequence[str],
    forward: Array,
    backward: Array,
    relative: Array,
    waits: Array,
    drift: float,
    spread: float | None,
    repeats: NDArray[np.bool_],
    correlation: WalkCorrelation | None,
    trained: bool,
    initial_statistics: int,
) -> Verdict:
    """Returns the verdict.

    Args:
        names: Name of each layer.
        forward: `ln|h|`, shape (examples, layers).
        backward: `ln|delta|` when a gradient first reaches each layer, same shape.
        relative: The same relative to the last layer reached in that step.
        waits: Steps until then, inf for never. Shape (layers,).
        drift: Mean step towards the input, nats per layer.
        spread: Predicted standard deviation of the walk over networks, in nats; None where there is none.
        repeats: Whether each layer has the kernel of one before, shape (layers,).
        correlation: How alike the examples are; None where it was not measured.
        trained: Whether only what stops a training at any time counts.
        initial_statistics: Number of batch normalizations that were run with their initial statistics.
    """
    mean = np.nan_to_num(mean_log_norm(relative), nan=0.0)
    words = [_word_at(*at) for at in zip(forward.T, backward.T, mean, waits, strict=True)]
    fault, text, layer = _locate(words, names)
    # What follows has limits that were measured before training; networks that have learned go beyond them.
    at_start = not fault and not trained
    if at_start and _is_beyond_chance(drift, len(names), spread):
        slight = ["shrinking" if value < -SLIGHT else "growing" if value > SLIGHT else "" for value in mean]
        fault, text, layer = _locate(slight, names)
    # The gradient's fault comes first: its remedy may be the examples' too.
    if at_start and not fault and correlation is not None:
        fault, text, layer = _find_alike_inputs(correlation, waits, names)
    faults, parts, layers = ([fault], [text], [layer]) if fault else ([], [], [])
    if repeats.any():
        faults.insert(0, "kernels repeat")
        first = int(repeats.argmax())
        place = f"the first is {names[first]} (layer {first + 1} of {len(names)})"
        parts.append(f"kernels repeat at {int(repeats.sum())} of {len(names)} layers, {place}")
        layers.append(first)
    waiting = int(((waits > 0.0) & np.isfinite(waits)).sum())
    parts = parts or ["fine"]
    if waiting:
        parts.append(f"{waiting} of {len(names)} layers wait for weights that start at or near zero")
    if initial_statistics:
        parts.append(
            f"BatchNormalization layers without data: {initial_statistics} (measure with training=True)"
        )
    return Verdict("; ".join(parts), tuple(faults), initial_statistics > 0, tuple(layers))


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


def _locate(words: Sequence[str], names: Sequence[str]) -> tuple[str, str, int]:
    """Returns a word, it with the layers that it holds for, and the one named; "" and -1 if there is none."""
    count = len(names)
    found = [layer for layer in range(count) if words[layer]]
    if not found:
        return "", "", -1
    # Layers before one that fails may fail too, or be reached past it by a residual connection.
    from_input = next((layer for layer in range(count) if not words[layer]), count)
    layer = from_input - 1 if from_input else found[-1]
    place = f"{names[layer]} (layer {layer + 1} of {count})"
    word = words[layer]
    if from_input:
        return word, f"{word} from {place} on", layer
    partly = "partly " if word == "dead" else ""
    return word, f"{partly}{word} at {len(found)} of {count} layers, {place} nearest the output", layer


def _find_alike_inputs(
    correlation: WalkCorrelation, waits: Array, names: Sequence[str]
) -> tuple[str, str, int]:
    """Returns what `_locate` does, of layers up to the last in which examples are alike."""
    levels = (("inputs collapsed", PARALLEL, DIRECTIONS_LOST), ("inputs alike", ALIKE, HALF_LOST))
    for fault, limit, lost in levels:
        kept = 1.0 + (1.0 - lost) * (correlation.inputs_rank - 1.0)
        # Examples that differ by less than float32 tells have no rank.
        alike = (correlation.forward > limit) & ~(correlation.effective_rank >= kept)
        if (waits > 0.0).any():
            # Kernels that start at zero give all examples one output, and leave zero.
            alike &= ~np.isnan(correlation.effective_rank)
        # What the inputs do not have, the network does not lose.
        if alike[-1] and not np.isnan(kept) and correlation.inputs <= limit:
            apart = np.flatnonzero(~alike)
            layer = int(apart[-1]) + 1 if len(apart) else 0
            return fault, f"{fault} from {names[layer]} (layer {layer + 1} of {len(names)}) on", layer
    return "", "", -1
