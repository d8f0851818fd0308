"""Corrects a model's kernels by the walk that a batch of data takes through them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np

from keras_rwinit._keras.types import ArrayTree, Tensor
from keras_rwinit._probing.measure import measure_layers, warn_unseen
from keras_rwinit._probing.measurements import CallKey, LayerMeasurement
from keras_rwinit._probing.objective import make_objective
from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.kernels import Kernel, KernelIdentity
from keras_rwinit._tracing.signals import Signal

from ._output_scale import output_rms

__all__ = ["Calibration", "calibrate"]

_ROUNDS = 8
_GOOD_DRIFT = 1e-3  # nats per layer; the walk of one network and one batch cannot resolve less than that
_RESPONSES = (0.3, 2.0)  # of the drift to ln(factor): 1 for two slopes, less where activations saturate
_LARGEST_STEP = 0.5  # of ln(factor) in one round

Measurements = Mapping[CallKey, LayerMeasurement]


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` did.

    Args:
        factors: The factors that kernels were multiplied with, by the kernel's identity.
        drift: Mean drift over all links after the calibration, in nats per link; None without a link.
        drift_before: The same before it.
    """

    factors: Mapping[KernelIdentity, float] = field(default_factory=dict)
    drift: float | None = None
    drift_before: float | None = None


class _Link(NamedTuple):
    """Two applications of kernels, the second fed by the first and by nothing else.

    Args:
        first, second: The applications, in the order of the forward pass.
        wanted: The desired step of `ln|delta|` from the second to the first: 0, or the log of the second
            kernel's share of a sum or of a gate.
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
        kernels: The kernels at the ends of links; the chain's first kernel is not included.
        links: The links between them.
        trials: The factors tried so far, the present one last.
    """

    kernels: list[Kernel] = field(default_factory=list)
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
        self.log_factors: dict[KernelIdentity, float] = {}
        self.measurements: Measurements = {}

    def measure(self) -> None:
        """Runs the model once more."""
        found = measure_layers(self.model, self.inputs, self.objective, training=self.training)
        if not self.measurements:
            warn_unseen(found)
        self.measurements = {measurement.layer_call.key: measurement for measurement in found.layers}

    def scale(self, log_factors: Mapping[Kernel, float]) -> None:
        """Multiplies each kernel with the exponential of its number."""
        by_variable: dict[int, list[tuple[Kernel, float]]] = {}
        for kernel, log_factor in log_factors.items():
            by_variable.setdefault(id(kernel.variable), []).append((kernel, log_factor))
            before = self.log_factors.get(kernel.identity, 0.0)
            self.log_factors[kernel.identity] = before + log_factor
        # The layers of a stack in one operation: it may have thousands.
        for scaled in by_variable.values():
            variable, axes = scaled[0][0].variable, len(scaled[0][0].variable.shape)
            factor: Tensor = float(np.exp(scaled[0][1]))
            if scaled[0][0].stacked:
                factors = np.ones((scaled[0][0].stacked, *[1] * (axes - 1)))
                for kernel, log_factor in scaled:
                    factors[kernel.index or 0] = np.exp(log_factor)
                factor = keras.ops.convert_to_tensor(factors, dtype=variable.dtype)
            variable.assign(keras.ops.cast(variable.value * factor, variable.dtype))

    def scale_to_rms(self, rms: Mapping[KernelContext, float]) -> None:
        """Scales kernels so that the root mean square of their pre-activations is the number given."""
        log_factors = {}
        for context, wanted in rms.items():
            measurement = self.measurements.get(CallKey.of(context))
            # A sum shares its variance among its terms, and a normalization undoes any scale.
            adjustable = not (context.terms or context.normalized_after)
            if adjustable and measurement and np.isfinite(measurement.rms) and measurement.rms > 0.0:
                log_factors[context.kernel] = float(np.log(wanted / measurement.rms))
        self.scale(log_factors)

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
        changes = {
            kernel: log_factor - chain.trials[-1].log_factor
            for chain, log_factor in log_factors.items()
            for kernel in chain.kernels
        }
        self.scale(changes)
        for chain, log_factor in log_factors.items():
            chain.trials.append(_Trial(log_factor, float("nan")))
        self.measure()
        for chain in log_factors:
            chain.record_drift(self.measurements)


def calibrate(
    model: keras.Model,
    inputs: ArrayTree,
    contexts: Sequence[KernelContext],
    output: Signal,
    shares: Mapping[KernelIdentity, float],
    *,
    incomplete: bool = False,
) -> Calibration:
    """Scales kernels until the measured walk is unbiased; see `keras_rwinit.initialize`.

    Args:
        model: The model, its kernels drawn.
        inputs: NumPy arrays in the structure of the model's inputs.
        contexts: The contexts of its kernels.
        output: The deepest of the model's output signals.
        shares: The part of each drawn kernel's gain that is there for a sum or a gate, by the kernel's
            identity.
        incomplete: Whether the model has kernels that it was not seen to apply. They may lie wherever an
            operation could not be looked into.
    """
    uses = Counter(context.kernel.identity for context in contexts)
    # A kernel that is applied twice cannot have two scales.
    free = [
        context
        for context in contexts
        if uses[context.kernel.identity] == 1 and context.kernel.identity in shares
    ]
    training = any(_differs_in_training(context) for context in contexts)
    calibrator = _Calibrator(model, inputs, training)

    # Kernels that read the data, as though it had mean square one
    calibrator.measure()
    calibrator.scale_to_rms(
        {context: shares[context.kernel.identity] for context in free if _reads_data(context)}
    )

    # Chains of kernels
    calibrator.measure()
    # A link over a kernel that is out of sight would count its step for the link's own.
    linked = [context for context in free if not (incomplete and context.guessed)]
    chains = _find_chains(linked, contexts, shares, calibrator.measurements)
    for chain in chains:
        chain.record_drift(calibrator.measurements)
    chains = [chain for chain in chains if np.isfinite(chain.drift)]
    drift_before = _mean_drift(chains)
    calibrator.remove_drift(chains)

    # Kernels that give the outputs, if they can be told from those that feed a kernel out of sight
    if not (incomplete and (output.guessed or output.unknown)):
        rms = output_rms(model)
        calibrator.scale_to_rms(
            {context: rms for context in free if not context.followed and not _reads_data(context)}
        )
    factors = {key: float(np.exp(log_factor)) for key, log_factor in calibrator.log_factors.items()}
    return Calibration(factors, _mean_drift(chains), drift_before)


def _reads_data(context: KernelContext) -> bool:
    return context.signal.reads_data and not context.signal.embedded


def _differs_in_training(context: KernelContext) -> bool:
    """Returns whether a model computes otherwise in training, which is what the calibration is for.

    A normalized model computes with a batch's statistics there: the stored ones mean nothing before training.
    """
    signals = [context.signal, *(term.signal for term in context.terms)]
    random = any(factor.random for signal in signals for factor in signal.factors)
    return random or context.signal.normalized or context.normalized_after


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
    shares: Mapping[KernelIdentity, float],
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
        link = None if before is None else _link(before, context, shares, measurements)
        # The scale of the outputs is not the walk's.
        if link is not None and context.followed:
            chain.kernels.append(context.kernel)
            chain.links.append(link)
    return [chain for chain in chains if chain.links]


def _only_source(context: KernelContext, contexts: Sequence[KernelContext]) -> int | None:
    """Returns the index of the kernel that alone feeds `context` and nothing else; None if there is none."""
    signal = context.signal
    if signal.sources is None or len(signal.sources) != 1 or signal.normalized or signal.summed:
        return None
    # A gate's gradient comes from its kernels too.
    if signal.gate_sources:
        return None
    (source,) = signal.sources
    return source if contexts[source].followed == 1 else None


def _link(
    before: KernelContext,
    context: KernelContext,
    shares: Mapping[KernelIdentity, float],
    measurements: Measurements,
) -> _Link | None:
    """Returns the link between two kernels; None where an end was not measured."""
    first, second = CallKey.of(before), CallKey.of(context)
    # The two kernels of a separable convolution are one call, and nothing is measured between them.
    if first == second or first not in measurements or second not in measurements:
        return None
    return _Link(first, second, float(np.log(shares[context.kernel.identity])))
