"""The last correction of a model's kernels, from the walk that a batch of data really takes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_rwinit._probing.objective import make_objective
from keras_rwinit._probing.probe import Observation, observe
from keras_rwinit._tracing.contexts import KernelContext

__all__ = ["Calibration", "calibrate"]

_ROUNDS = 8
_GOOD = 1e-3  # nats a layer; the walk of one network and one batch says no more than that
_RESPONSES = (0.3, 2.0)  # of the drift to ln(factor): 1 for two slopes, less where activations saturate
_MOST = 0.5  # ln(factor) in one round
# Of the outputs, so that a loss begins about where a constant prediction puts it. With 1 an autoencoder of 39
# layers was at 0.90 after 300 steps and with 0.1 at 0.64 (benchmarks/initializers_compared.py's network).
_OUTPUT_SCALE = 0.1

LayerCall = tuple[int, int, int]
Seen = Mapping[LayerCall, Observation]


@dataclass(frozen=True)
class Calibration:
    """The factors that kernels were multiplied with, by the variable's id, and the drift they removed."""

    corrections: Mapping[int, float] = field(default_factory=dict)
    drift: float | None = None
    drift_before: float | None = None


@dataclass(eq=False)
class _Run:
    """Kernels that follow each other directly, all but the first of them: one factor scales them all.

    Args:
        variables: The kernels.
        links: For each of them the sites before and after it, and the log-step its share of a sum asks for.
        tried: Pairs of ln(factor) and the drift with it.
    """

    variables: list[Any] = field(default_factory=list)
    links: list[tuple[LayerCall, LayerCall, float]] = field(default_factory=list)
    tried: list[tuple[float, float]] = field(default_factory=list)

    def look(self, seen: Seen) -> float:
        """Notes the drift, in nats a link; nan if no gradient arrives."""
        factor = self.tried[-1][0] if self.tried else 0.0
        steps = [_step(seen[before], seen[after]) - asked for before, after, asked in self.links]
        self.tried[-1:] = [(factor, float(np.mean(steps)))]
        return self.tried[-1][1]

    def next_factor(self) -> float:
        """ln of the factor to try next, by the secant through the last two."""
        (factor, drift), response = self.tried[-1], 1.0
        if len(self.tried) > 1 and self.tried[-2][0] != factor:
            response = (self.tried[-2][1] - drift) / (self.tried[-2][0] - factor)
        return factor - float(np.clip(drift / np.clip(response, *_RESPONSES), -_MOST, _MOST))


def calibrate(
    model: keras.Model, inputs: Any, contexts: Sequence[KernelContext], shares: Mapping[int, float]
) -> Calibration:
    """Scales kernels until the measured walk is unbiased; see `keras_rwinit.initialize`.

    Args:
        model: The model, its kernels drawn.
        inputs: NumPy arrays in the structure of the model's inputs.
        positions: Of its kernels.
        shares: The part of each drawn kernel's gain that is there for a sum, by the variable's id.
    """
    uses = Counter(id(context.kernel.variable) for context in contexts)
    free = [p for p in contexts if uses[id(p.kernel.variable)] == 1 and id(p.kernel.variable) in shares]
    # What a normalized model computes without a batch's statistics says nothing before it is trained.
    training = any(context.signal.normalized or context.normalized_after for context in contexts)
    objective = make_objective(model, None, None, 0)
    logs: dict[int, float] = {}

    def look() -> Seen:
        observations, _ = observe(model, inputs, objective, training)
        return {(*o.layer_call.step_key, o.layer_call.index or 0): o for o in observations}

    def scale(variable: Any, log: float) -> None:
        variable.assign(keras.ops.cast(variable.value * float(np.exp(log)), variable.dtype))
        logs[id(variable)] = logs.get(id(variable), 0.0) + log

    def to_scale(target: float, ends: Sequence[KernelContext], seen: Seen) -> None:
        for context in ends:
            found = seen.get(_call_key(context, first=True))
            adjustable = not (context.kernel.stacked or context.terms or context.normalized_after)
            if adjustable and found and np.isfinite(found.scale) and found.scale > 0.0:
                scale(context.kernel.variable, float(np.log(target / found.scale)))

    def try_factor(run: _Run, factor: float) -> None:
        for variable in run.variables:
            scale(variable, factor - run.tried[-1][0])
        run.tried.append((factor, float("nan")))

    def drift() -> float | None:
        links = sum(len(run.links) for run in runs)
        return sum(run.tried[-1][1] * len(run.links) for run in runs) / links if links else None

    seen = look()
    to_scale(1.0, [p for p in free if _reads_data(p)], seen)
    seen = look()
    runs = [run for run in _runs(free, contexts, shares, seen) if np.isfinite(run.look(seen))]
    before = drift()
    for _ in range(_ROUNDS):
        drifting = [run for run in runs if abs(run.tried[-1][1]) > _GOOD]
        if not drifting:
            break
        for run in drifting:
            try_factor(run, run.next_factor())
        seen = look()
        for run in drifting:
            run.look(seen)
    worse = [run for run in runs if not abs(run.tried[-1][1]) <= min(abs(d) for _, d in run.tried)]
    for run in worse:
        try_factor(run, min(run.tried, key=lambda pair: abs(pair[1]))[0])
    if worse:
        seen = look()
        for run in worse:
            run.look(seen)
    to_scale(_OUTPUT_SCALE, [p for p in free if not p.followed and not _reads_data(p)], seen)
    return Calibration({key: float(np.exp(log)) for key, log in logs.items()}, drift(), before)


def _reads_data(context: KernelContext) -> bool:
    return context.signal.sources == frozenset() and not context.signal.embedded


def _call_key(context: KernelContext, first: bool = False) -> LayerCall:
    last = 0 if first else max(context.kernel.stacked - 1, 0)
    return id(context.step.operation), context.call, last


def _step(towards_input: Observation, towards_output: Observation) -> float:
    with np.errstate(invalid="ignore"):
        steps = towards_input.backward - towards_output.backward
    steps = steps[np.isfinite(steps)]
    return float(steps.mean()) if len(steps) else float("nan")


def _runs(
    free: Sequence[KernelContext], contexts: Sequence[KernelContext], shares: Mapping[int, float], seen: Seen
) -> list[_Run]:
    """The runs of kernels that feed each other and nothing else, with no normalization or sum between."""
    adjustable = {id(context) for context in free}
    of_position: dict[int, _Run] = {}
    for number, context in enumerate(contexts):
        if id(context) not in adjustable:
            continue
        run = _Run()
        source = _only_source(context, contexts)
        if source is not None and id(contexts[source]) in adjustable:
            run = of_position[source]
        else:
            source = None
        of_position[number] = run
        links = _links(context, None if source is None else contexts[source], shares, seen)
        if links and (context.followed or context.kernel.stacked):
            run.variables.append(context.kernel.variable)
            run.links += links
    unique = {id(run): run for run in of_position.values() if run.links}
    return list(unique.values())


def _only_source(context: KernelContext, contexts: Sequence[KernelContext]) -> int | None:
    signal = context.signal
    if signal.sources is None or len(signal.sources) != 1 or signal.normalized or signal.summed:
        return None
    (source,) = signal.sources
    return source if contexts[source].followed == 1 else None


def _links(
    context: KernelContext, source: KernelContext | None, shares: Mapping[int, float], seen: Seen
) -> list[tuple[LayerCall, LayerCall, float]]:
    """The links that end at a position, those within a stack included."""
    own = _call_key(context, first=True)
    chain = [(*own[:2], index) for index in range(max(context.kernel.stacked, 1))]
    asked = float(np.log(shares[id(context.kernel.variable)]))
    links = [(before, after, 0.0) for before, after in itertools.pairwise(chain)]
    if source is not None and _call_key(source) != own:  # as the two kernels of a separable convolution
        links.insert(0, (_call_key(source), own, asked))
    return [link for link in links if link[0] in seen and link[1] in seen]
