"""`initialize`: redraws every kernel of a Keras model, each with the gain that its context requires."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import keras
import numpy as np

from keras_rwinit._keras.layer_kinds import Effect, layer_kind
from keras_rwinit._keras.seeding import layer_seeds
from keras_rwinit._keras.types import ArrayTree, Tensor
from keras_rwinit._probing.examples import check_examples, first_batch
from keras_rwinit._tracing.checks import check_model, check_shapes
from keras_rwinit._tracing.contexts import KernelContext, trace_contexts
from keras_rwinit._tracing.kernels import KernelIdentity, kernels_of, skip_reason
from keras_rwinit._tracing.signals import Signal
from keras_rwinit._tracing.trace import trace
from keras_rwinit.theory.distributions import resolve_distribution

from ._calibration import Calibration, calibrate
from ._convolutions import Window, count_windows, padded_window
from ._drawing import draw_planned_kernels
from ._initialized_kernel import InitializedKernel
from ._plan import KernelPlan, Places, plan_kernels
from ._report import BiasCount, InitializationReport
from ._rules import GainRule, gain_rule, repeated_rule
from ._selection import select_variables

__all__ = ["initialize"]

_UNSEEN = "a kernel that the model was not seen to apply"


def initialize(
    model: keras.Model,
    x: ArrayTree = None,
    distribution: str | None = None,
    seed: int | None = None,
    *,
    layers: Iterable[keras.layers.Layer | str] | None = None,
) -> InitializationReport:
    r"""Redraws every kernel of a Keras model in place, each with the gain that its context requires.

    A kernel gets entries of variance

        Var W = gain^2 / fan_in

    with the gain that `keras_rwinit.gain` computes for the activation that feeds it (Sussillo & Abbott,
    arXiv:1412.6558, section 3), its own fan-in and the model's depth. Activations are seen through
    normalization, pooling, dropout, reshaping and concatenation, in nested models and layers made of
    layers:

    - Kernels fed by a sum get the linear gain, and so do those fed by data before an activation of two
      slopes. Before a smooth one they get its gain, since that counts on pre-activations of variance gain^2.
    - An activation is what the operations between two kernels compute, be it `keras.ops.clip(h, 0, 6)` or
      `h / (1 + abs(h))`. Where that cannot be found out, the report says that the gain is a guess.
    - After a normalization, and where an activation has no gain for the model's depth (GELU, SiLU), the
      gain is that of one step with pre-activations of unit variance.
    - The last kernel of a branch that is added to a shortcut is scaled by one over the square root of the
      number of such sums, so that the sum keeps its variance over depth up to a factor below e (Hanin &
      Rolnick, arXiv:1803.01719; Arpit et al., arXiv:1906.02341). Where the branch ends in a normalization
      the scale would be undone, and the kernel keeps its gain.
    - Constants, dropout, average pooling and gates on the way to a kernel are made up for in its gain:
      dropout takes `sqrt(1 - rate)`, a gate s(v) takes `1 / sqrt(E s(v)^2)`. Kernels of gates such as a
      sigmoid are scaled by one over the square root of the number of gates in a row. With dropout the walk
      is unbiased in training (`gradient_walk(..., training=True)`).
    - The scales of branches and of what is on the way are equation (branches) of the theory page, to leading
      order.
    - A kernel that is applied several times gets the geometric mean of the gains of its places.
    - Convolutions padded with zeros make up for what is lost at the edges; transposed ones with strides
      count the inputs that an output really has.
    - Each layer of a `DenseStack` is treated as the Dense layer in its place.
    - Without a `distribution`, kernels are mirrored in chains of which other kernels would pass on less than
      1 / 200 linearly: from eight relu layers on, and from ten gelu layers. Convolutions behind a
      normalization do not count. All other kernels are orthogonal: chains that are short or nearly linear,
      as in the branches of residual networks, train as well or better with these.
    - With `"delta_orthogonal"` a convolution's fan-in is its number of channels. Depthwise and transposed
      convolutions have kernels without a center and are drawn as `"orthogonal"`.
    - With `"looks_linear"` kernels are mirrored from the first to the last of each chain of kernels with
      nothing between them but activations with `f(a) - f(-a) = c a`, normalization before the activation,
      dropout, average pooling and rearrangements, and the chain is linear at first: its gradient neither
      vanishes nor spreads. Data, sums and maximum pooling end a chain. All other kernels are drawn as
      `"delta_orthogonal"`, and the report says why.
    - Embeddings, recurrent kernels and weights that are not trainable are left as they are, and so are all
      biases, those of a trained model too; the report says how many of them are not zero. Kernels that the
      model was not seen to apply, as inside a mapped function, are left as well, and a warning names them.

    The gain goes by the activation that feeds a kernel, since this is the one whose slope the gradient
    meets behind the kernel; `keras_rwinit.initializers.RandomWalk` explains how that agrees with the gain
    by a layer's own activation.

    With a batch `x` it then calibrates. Kernels that read the data are scaled to pre-activations of mean
    square one, or of the square of the gain that a smooth activation asks for. Kernels that follow each other
    directly are scaled by a common factor until the measured walk of the gradient is unbiased. The output
    kernels are scaled to outputs (before their activation) of root mean square 1. It is 0.3 where the model
    was compiled with losses that are zero at the target and grow in both directions, such as the mean squared
    error: what a regression begins with is an error. So compile a regression before you initialize it.

    The optimizer of a compiled model is set back to its beginning (all but the learning rate); everything
    else stays as it was.

    Args:
        model: A built Keras model of any kind.
        x: Inputs to calibrate with, shape (examples, ...), finite, in the structure the model takes, or a
            data set as `fit` takes it, of which the first batch is used. `None`: the gains are the theory's.
        distribution: Distribution of the kernels: `"normal"`, `"truncated_normal"`, `"uniform"`,
            `"orthogonal"`, `"delta_orthogonal"` or `"looks_linear"`; see
            `keras_rwinit.initializers.RandomWalk`. `None`: mirrored ("looks_linear") kernels in the chains
            that gain by them, and orthogonal ones elsewhere; the report says which each kernel got.
        seed: Root of the seeds of all kernels. `None`: a random root, repeatable after
            `keras.utils.set_random_seed`.
        layers: Layers of the model or their names; only kernels in these and in layers inside them are
            drawn and calibrated, as for a new head on a trained network. They get the gains and, from the
            same seed, the values that they have when the whole model is drawn; only with "looks_linear" are
            they mirrored among themselves. `None`: all.

    Returns:
        An `InitializationReport`.

    Raises:
        ValueError: The model is not built or has no kernel, `x` is empty, zero, not finite or does not fit
            the model, `layers` has something that is no layer of the model, no kernel can be mirrored, or
            another argument is wrong. The model is then as it was.

    Example:
        >>> import keras, keras_rwinit
        >>> inputs = keras.Input((8,))
        >>> outputs = keras.layers.Dense(3)(keras.layers.Dense(100, "relu")(inputs))
        >>> model = keras.Model(inputs, outputs)
        >>> report = keras_rwinit.initialize(model, seed=0)
        >>> [round(kernel.gain, 3) for kernel in report.kernels]
        [1.0, 1.425]

    References:
        Sussillo & Abbott, Random Walk Initialization for Training Very Deep Feedforward Networks,
        arXiv:1412.6558.
    """
    check_model(model)
    named = None if distribution is None else resolve_distribution(distribution)
    inputs = None
    if x is not None:
        inputs, _ = check_examples("x", first_batch(x, input_shape=getattr(model, "input_shape", None))[0])
        check_shapes(model, inputs)
        if not any(array.any() for array in keras.tree.flatten(inputs) if array is not None):
            raise ValueError(
                "`x` must not be zero everywhere: no kernel could be scaled by it. Received: zeros"
            )
    selected = select_variables(model, layers)
    graph = trace(model, inputs)
    contexts, output = trace_contexts(graph)

    places: dict[KernelIdentity, list[KernelContext]] = {}
    copied: set[KernelIdentity] = set()
    for context in contexts:
        if context.step.copied:
            copied.add(context.kernel.identity)
        elif context.kernel.variable.trainable:
            places.setdefault(context.kernel.identity, []).append(context)
    if not any(variable_id in selected for variable_id, _ in places):
        unbuilt = [layer.name for layer in model._flatten_layers() if not layer.built]
        if unbuilt:
            raise ValueError(
                f"{len(unbuilt)} layers of the model have no weights yet, {unbuilt[0]} among them: call the "
                f"model once, as in `model(x[:1])`. Received: model={model.name!r}"
            )
        raise ValueError(
            "The model has no kernel to draw: no Dense, EinsumDense or convolutional layer, and no layer "
            f"of your own with one kernel, that is trainable{'' if layers is None else ' and in `layers`'}. "
            f"Received: model={model.name!r}"
        )

    # All that can fail on wrong arguments comes before the first change.
    seeds = dict(zip(places, layer_seeds(seed, len(places)), strict=True))
    drawn = {identity: used for identity, used in places.items() if identity[0] in selected}
    plans = plan_kernels(graph, contexts, places, drawn, named)
    rules = _find_rules(drawn, output, count_windows(contexts), plans)
    unseen = _unseen_kernels(model, {id(context.kernel.variable) for context in contexts})
    optimizer_values = _initial_optimizer_values(model)
    with _restore_on_error(model):
        draw_planned_kernels(drawn, rules, plans, seeds)
        calibration = Calibration()
        if inputs is not None:
            shares = {identity: rule.share for identity, rule in rules.items()}
            calibration = calibrate(model, inputs, contexts, output, shares, incomplete=bool(unseen))
        for variable, value in optimizer_values:
            variable.assign(value)
    skipped = list(_skipped_weights(model, {variable_id for variable_id, _ in drawn}, selected, unseen))
    left = [path for path, reason in skipped if reason == _UNSEEN]
    if left:
        warnings.warn(
            "Some kernels were left as they were, since the model was not seen to apply them: "
            f"{', '.join(left)}.",
            stacklevel=2,
        )
    return InitializationReport(
        tuple(_describe(drawn, rules, plans, calibration.factors, copied)),
        tuple(skipped),
        calibration.drift,
        calibration.drift_before,
        _count_biases(model),
    )


def _find_rules(
    places: Places,
    output: Signal,
    windows: Mapping[Window, int],
    plans: Mapping[KernelIdentity, KernelPlan],
) -> dict[KernelIdentity, GainRule]:
    """Returns the rule of each kernel, by all places where it is applied."""
    rules = {}
    known: dict[tuple[object, ...], GainRule] = {}
    for identity, contexts in places.items():
        plan = plans[identity]
        distribution, mirroring = plan.distribution, plan.mirroring
        of_contexts = []
        for context in contexts:
            # A deep chain has thousands of kernels in the same situation.
            situation = (
                *_size(context),
                context.kernel.turned,
                context.signal.reads_data,
                _what_it_feeds(context),
                context.normalized_after,
                context.signal.situation,
                tuple(term._replace(signal=term.signal.situation) for term in context.terms),
                tuple(context.gate_of),
                distribution.name,
                mirroring.inputs is None,
                mirroring.reason,
            )
            if situation not in known:
                known[situation] = gain_rule(
                    context, output.layers - 1, output, distribution, windows, mirroring
                )
            of_contexts.append(known[situation])
        rule = repeated_rule(of_contexts, contexts)
        rules[identity] = replace(rule, why=f"{rule.why}; {plan.note}") if plan.note else rule
    return rules


def _size(context: KernelContext) -> tuple[object, ...]:
    """Returns what a gain depends on of a kernel itself."""
    window = padded_window(context)
    return context.kernel.fan_in, window, None if window is None else context.kernel.channels


def _what_it_feeds(context: KernelContext) -> tuple[tuple[object, ...], ...]:
    """Returns what a kernel that reads the data feeds, by which its gain may go."""
    if not context.signal.reads_data:
        return ()
    return tuple((follower.signal.situation, *_size(follower)) for follower in context.followers)


def _describe(
    places: Places,
    rules: Mapping[KernelIdentity, GainRule],
    plans: Mapping[KernelIdentity, KernelPlan],
    factors: Mapping[KernelIdentity, float],
    copied: Container[KernelIdentity],
) -> Iterator[InitializedKernel]:
    """Yields a row for each kernel, and one for layers of a stack that have the gain and reason in common."""

    def row(
        item: tuple[KernelIdentity, Sequence[KernelContext]],
    ) -> tuple[int, str, float, float, str, bool, str]:
        identity, (context, *_) = item
        rule, factor = rules[identity], factors.get(identity, 1.0)
        why = rule.why + (
            "; the model also holds a copy, which stays as it was" if identity in copied else ""
        )
        name = plans[identity].name
        return identity[0], context.signal.activation.name, rule.gain, factor, why, context.guessed, name

    for (_, activation, gain, factor, why, guessed, name), group in itertools.groupby(places.items(), row):
        kernels = [contexts[0].kernel for _, contexts in group]
        first, last = kernels[0], kernels[-1]
        path, shape = first.variable.path, first.shape
        if first.index is not None and last.index is not None:
            whole = len(kernels) == first.stacked
            one = len(kernels) == 1
            shape = (len(kernels), *shape) if whole or not one else shape
            path += "" if whole else f"[{first.index}]" if one else f"[{first.index}:{last.index + 1}]"
        yield InitializedKernel(
            path,
            shape,
            first.fan_in,
            activation,
            gain * factor,
            factor,
            why + ("; position guessed" if guessed else ""),
            len(kernels),
            name,
        )


def _unseen_kernels(model: keras.Model, seen: set[int]) -> set[int]:
    """Returns the ids of the kernels that the model was not seen to apply.

    They may be of layers that it does not call, or that run where tracing does not reach, as inside a mapped
    function.
    """
    skipped = {id(v) for layer in model._flatten_layers() if skip_reason(layer) for v in layer.variables}
    kernels = {id(kernel.variable) for layer in model._flatten_layers() for kernel in kernels_of(layer)}
    return kernels - seen - skipped


def _skipped_weights(
    model: keras.Model, drawn: Container[int], selected: Container[int], unseen: Container[int]
) -> Iterator[tuple[str, str]]:
    """Yields path and reason of each weight that was not drawn."""
    reasons: dict[int, str] = {}
    for layer in model._flatten_layers():
        if skip_reason(layer):
            reasons |= {id(variable): skip_reason(layer) for variable in layer.variables}
        elif layer_kind(layer).effect is Effect.NORMALIZATION:
            for variable in layer.variables:
                kind = "moving statistic" if variable.name.startswith("moving_") else "scale or offset"
                reasons[id(variable)] = f"a {kind} of a normalization"
    for variable in model.weights:
        if id(variable) in drawn:
            continue
        if id(variable) in reasons:
            yield variable.path, reasons[id(variable)]
        elif not variable.trainable:
            yield variable.path, "not trainable"
        elif "bias" in variable.name:
            yield variable.path, "a bias"
        elif id(variable) not in selected:
            yield variable.path, "not in `layers`"
        elif id(variable) in unseen:
            yield variable.path, _UNSEEN
        else:
            yield variable.path, "neither a kernel nor a bias, such as a scale, a slope or a table"


def _count_biases(model: keras.Model) -> BiasCount:
    """Counts the trainable biases, and those that are not zero.

    Those of layers whose weights are none of a walk are left out: the forget gate of an LSTM begins at one.
    """
    skipped = [layer for layer in model._flatten_layers() if skip_reason(layer)]
    others = {id(variable) for layer in skipped for variable in layer.variables}
    biases = [
        variable
        for variable in model.trainable_variables
        if "bias" in variable.name and id(variable) not in others
    ]
    nonzero = sum(bool(np.any(keras.ops.convert_to_numpy(bias.value))) for bias in biases)
    return BiasCount(len(biases), nonzero)


@contextmanager
def _restore_on_error(model: keras.Model) -> Iterator[None]:
    """Gives a model and its optimizer their state back if anything goes wrong, Ctrl-C included."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.trainable_variables, *(optimizer.variables if optimizer else ())]
    before = [(variable, keras.ops.copy(variable.value)) for variable in variables]
    try:
        yield
    except BaseException:
        for variable, value in before:
            variable.assign(value)
        raise


def _initial_optimizer_values(model: keras.Model) -> Sequence[tuple[keras.Variable, Tensor]]:
    """Returns the optimizer's variables but the learning rate, with the values of a new one."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return []
    try:
        new = type(optimizer).from_config(optimizer.get_config())
        # Weights that were trainable when the optimizer was built may have been frozen since.
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        new.build(getattr(inner, "_trainable_variables", model.trainable_variables))
        pairs = list(zip(optimizer.variables, new.variables, strict=True))
    except Exception as error:  # of an optimizer from outside Keras
        raise ValueError(
            "The optimizer cannot be reset: it cannot be rebuilt from its `get_config`. "
            f"Received: {type(optimizer).__name__}, and {type(error).__name__}: {error}. Initialize the "
            "model before you compile it."
        ) from error
    return [(old, fresh.value) for old, fresh in pairs if old.name != "learning_rate"]
