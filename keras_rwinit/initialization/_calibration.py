"""Corrects a model's kernels by the walk that a batch of data takes through them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np

from keras_rwinit._keras.types import ArrayTree
from keras_rwinit._probing.measurements import CallKey, LayerMeasurement
from keras_rwinit._probing.objective import make_objective
from keras_rwinit._probing.probe import measure_layers
from keras_rwinit._tracing.contexts import KernelContext

__all__ = ["Calibration", "calibrate"]

_ROUNDS = 8
_GOOD_DRIFT = 1e-3  # nats per layer; the walk of one network and one batch cannot resolve less than that
_RESPONSES = (0.3, 2.0)  # of the drift to ln(factor): 1 for two slopes, less where activations saturate
_LARGEST_STEP = 0.5  # of ln(factor) in one round
# Root mean square of the outputs, so that a loss begins near that of a constant prediction. With 1 an
# autoencoder of 39 layers was at 0.90 after 300 steps, with 0.1 at 0.64 (the network of
# benchmarks/initializers_compared.py).
_OUTPUT_RMS = 0.1

Measurements = Mapping[CallKey, LayerMeasurement]


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` did.

    Args:
        factors: The factors that kernels were multiplied with, by the variable's id.
        drift: Mean drift over all links after the calibration, in nats per link; None without a link.
        drift_before: The same before it.
    """

    factors: Mapping[int, float] = field(default_factory=dict)
    drift: float | None = None
    drift_before: float | None = None


class _Link(NamedTuple):
    """Two applications of kernels, the second fed by the first and by nothing else.

    Args:
        first, second: The applications, in the order of the forward pass.
        wanted: The desired step of `ln|delta|` from the second to the first: 0, or the log of the second
            kernel's share of a sum.
    """

    first: CallKey
    second: CallKey
    wanted: float


class _Trial(NamedTuple):
    """ln of a factor that a chain's kernels were scaled by, and the drift with it; nan before it is known."""

    log_factor: float
    drift: float


@dataclass(eq=False)
class _CalibratedChain:
    """Kernels that follow each other directly, and one factor that scales them all.

    Args:
        variables: The kernels at the ends of links; the chain's first kernel is not included, unless it is a
            stack.
        links: The links between them, those between the layers of a stack included.
        trials: The factors tried so far, the present one last.
    """

    variables: list[keras.Variable] = field(default_factory=list)
    links: list[_Link] = field(default_factory=list)
    trials: list[_Trial] = field(default_factory=lambda: [_Trial(0.0, float("nan"))])

    @property
    def drift(self) -> float:
        """Mean step of `ln|delta|` beyond the wanted one, in nats per link; nan if no gradient arrives."""
        return self.trials[-1].drift

    @property
    def best_trial(self) -> _Trial:
        return min(self.trials, key=lambda trial: abs(trial.drift))

    def record_drift(self, measurements: Measurements) -> None:
        """Notes the drift that the present factor gives."""
        steps = [
            _mean_step(measurements[link.first], measurements[link.second]) - link.wanted
            for link in self.links
        ]
        self.trials[-1] = self.trials[-1]._replace(drift=float(np.mean(steps)))

    def next_log_factor(self) -> float:
        """ln of the factor to try next, by the secant through the last two trials."""
        last, response = self.trials[-1], 1.0
        if len(self.trials) > 1 and self.trials[-2].log_factor != last.log_factor:
            before = self.trials[-2]
            response = (before.drift - last.drift) / (before.log_factor - last.log_factor)
        # Clipped, because the slope between two close trials is mostly noise.
        step = last.drift / np.clip(response, *_RESPONSES)
        return last.log_factor - float(np.clip(step, -_LARGEST_STEP, _LARGEST_STEP))


class _Calibrator:
    """Scales the kernels of a model, measures the model, and keeps the factors and the last measurements."""

    def __init__(self, model: keras.Model, inputs: ArrayTree, training: bool) -> None:
        self.model, self.inputs, self.training = model, inputs, training
        self.objective = make_objective(model, None, None, 0)
        self.log_factors: dict[int, float] = {}
        self.measurements: Measurements = {}

    def measure(self) -> None:
        """Runs the model once more."""
        found, _ = measure_layers(self.model, self.inputs, self.objective, training=self.training)
        self.measurements = {measurement.layer_call.key: measurement for measurement in found}

    def scale(self, variable: keras.Variable, log_factor: float) -> None:
        """Multiplies a kernel with `exp(log_factor)`."""
        variable.assign(keras.ops.cast(variable.value * float(np.exp(log_factor)), variable.dtype))
        self.log_factors[id(variable)] = self.log_factors.get(id(variable), 0.0) + log_factor

    def scale_to_rms(self, rms: float, contexts: Iterable[KernelContext]) -> None:
        """Scales kernels so that the root mean square of their pre-activations is `rms`."""
        for context in contexts:
            measurement = self.measurements.get(CallKey.of(context))
            # A stack has one scale for all its layers, a sum shares its variance among its terms, and a
            # normalization undoes any scale.
            adjustable = not (context.kernel.stacked or context.terms or context.normalized_after)
            if adjustable and measurement and np.isfinite(measurement.rms) and measurement.rms > 0.0:
                self.scale(context.kernel.variable, float(np.log(rms / measurement.rms)))

    def remove_drift(self, chains: Sequence[_CalibratedChain]) -> None:
        """Searches the factor of each chain that leaves no drift; all chains move in each round."""
        for _ in range(_ROUNDS):
            drifting = [chain for chain in chains if abs(chain.drift) > _GOOD_DRIFT]
            if not drifting:
                break
            self._try_factors({chain: chain.next_log_factor() for chain in drifting})
        # Some searches end farther off than they once were; the best factor is as good as it gets.
        worse = [chain for chain in chains if not abs(chain.drift) <= abs(chain.best_trial.drift)]
        if worse:
            self._try_factors({chain: chain.best_trial.log_factor for chain in worse})

    def _try_factors(self, log_factors: Mapping[_CalibratedChain, float]) -> None:
        for chain, log_factor in log_factors.items():
            for variable in chain.variables:
                self.scale(variable, log_factor - chain.trials[-1].log_factor)
            chain.trials.append(_Trial(log_factor, float("nan")))
        self.measure()
        for chain in log_factors:
            chain.record_drift(self.measurements)


def calibrate(
    model: keras.Model, inputs: ArrayTree, contexts: Sequence[KernelContext], shares: Mapping[int, float]
) -> Calibration:
    """Scales kernels until the measured walk is unbiased; see `keras_rwinit.initialize`.

    Args:
        model: The model, its kernels drawn.
        inputs: NumPy arrays in the structure of the model's inputs.
        contexts: The contexts of its kernels.
        shares: The part of each drawn kernel's gain that is there for a sum, by the variable's id.
    """
    uses = Counter(id(context.kernel.variable) for context in contexts)
    # A kernel that is applied twice cannot have two scales.
    free = [
        context
        for context in contexts
        if uses[id(context.kernel.variable)] == 1 and id(context.kernel.variable) in shares
    ]
    # A normalized model computes with a batch's statistics: the stored ones mean nothing before training.
    training = any(context.signal.normalized or context.normalized_after for context in contexts)
    calibrator = _Calibrator(model, inputs, training)

    # Kernels that read the data, as though it had mean square one
    calibrator.measure()
    calibrator.scale_to_rms(1.0, [context for context in free if _reads_data(context)])

    # Chains of kernels
    calibrator.measure()
    chains = _find_chains(free, contexts, shares, calibrator.measurements)
    for chain in chains:
        chain.record_drift(calibrator.measurements)
    chains = [chain for chain in chains if np.isfinite(chain.drift)]
    drift_before = _mean_drift(chains)
    calibrator.remove_drift(chains)

    # Kernels that give the outputs
    outputs = [context for context in free if not context.followed and not _reads_data(context)]
    calibrator.scale_to_rms(_OUTPUT_RMS, outputs)
    factors = {key: float(np.exp(log_factor)) for key, log_factor in calibrator.log_factors.items()}
    return Calibration(factors, _mean_drift(chains), drift_before)


def _reads_data(context: KernelContext) -> bool:
    return context.signal.sources == frozenset() and not context.signal.embedded


def _mean_step(towards_input: LayerMeasurement, towards_output: LayerMeasurement) -> float:
    """Returns the examples' mean step of `ln|delta|` between two layers; nan if all are dead."""
    with np.errstate(invalid="ignore"):  # a dead gradient is at -inf
        steps = towards_input.backward - towards_output.backward
    steps = steps[np.isfinite(steps)]
    return float(steps.mean()) if len(steps) else float("nan")


def _mean_drift(chains: Sequence[_CalibratedChain]) -> float | None:
    links = sum(len(chain.links) for chain in chains)
    return sum(chain.drift * len(chain.links) for chain in chains) / links if links else None


def _find_chains(
    free: Sequence[KernelContext],
    contexts: Sequence[KernelContext],
    shares: Mapping[int, float],
    measurements: Measurements,
) -> list[_CalibratedChain]:
    """Returns the chains of kernels that feed only each other, without a normalization or sum between."""
    adjustable = {id(context) for context in free}
    chains: list[_CalibratedChain] = []
    chain_at: dict[int, _CalibratedChain] = {}
    for number, context in enumerate(contexts):
        if id(context) not in adjustable:
            continue
        source = _only_source(context, contexts)
        # A kernel extends the chain of its only source, or begins a new one.
        if source is not None and source in chain_at:
            chain, before = chain_at[source], contexts[source]
        else:
            chain, before = _CalibratedChain(), None
            chains.append(chain)
        chain_at[number] = chain
        links = _links_to(context, before, shares, measurements)
        # The scale of the outputs is not the walk's.
        if links and (context.followed or context.kernel.stacked):
            chain.variables.append(context.kernel.variable)
            chain.links += links
    return [chain for chain in chains if chain.links]


def _only_source(context: KernelContext, contexts: Sequence[KernelContext]) -> int | None:
    """Returns the index of the kernel that alone feeds `context` and nothing else; None if there is none."""
    signal = context.signal
    if signal.sources is None or len(signal.sources) != 1 or signal.normalized or signal.summed:
        return None
    (source,) = signal.sources
    return source if contexts[source].followed == 1 else None


def _links_to(
    context: KernelContext,
    before: KernelContext | None,
    shares: Mapping[int, float],
    measurements: Measurements,
) -> list[_Link]:
    """Returns the links that end at a kernel or lie in its stack, where both ends were measured."""
    calls = [CallKey.of(context, index) for index in range(max(context.kernel.stacked, 1))]
    links = [_Link(first, second, 0.0) for first, second in itertools.pairwise(calls)]
    if before is not None:
        last = CallKey.of(before, max(before.kernel.stacked - 1, 0))
        # The two kernels of a separable convolution are one call, and nothing is measured between them.
        if last != calls[0]:
            share = shares[id(context.kernel.variable)]
            links.insert(0, _Link(last, calls[0], float(np.log(share))))
    return [link for link in links if link.first in measurements and link.second in measurements]
