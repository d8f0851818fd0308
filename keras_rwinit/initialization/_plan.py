"""Chooses how each kernel is drawn: its distribution, its entries, and the units that come in pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from keras_rwinit._keras.drawing import KernelLayout, NoCenterError, kernel_layout
from keras_rwinit._tracing.contexts import KernelContext
from keras_rwinit._tracing.graph import Graph
from keras_rwinit._tracing.kernels import KernelIdentity
from keras_rwinit.theory.distributions import DISTRIBUTIONS, Distribution

from ._mirroring import Mirroring, find_mirrorings

__all__ = ["KernelPlan", "Places", "plan_kernels"]

Places: TypeAlias = Mapping[KernelIdentity, Sequence[KernelContext]]
"""All contexts of each kernel."""

_CENTERED = DISTRIBUTIONS["delta_orthogonal"]
_ORTHOGONAL = DISTRIBUTIONS["orthogonal"]
_NOT_MIRRORED = Mirroring()

# Multiplications of the QR decomposition of an isometry, about a second; that of a 4096 x 4096 kernel would
# take ten, and of a large model's kernels an hour.
_MOST_MULTIPLICATIONS = 2.0**34


@dataclass(frozen=True)
class KernelPlan:
    """How a kernel is drawn.

    Args:
        distribution: Distribution of its entries, or of the matrix that it is mirrored from.
        layout: Which of its entries are drawn.
        mirroring: Which of its units come in pairs.
        note: For reports, why it is drawn otherwise than the distribution says; else empty.
    """

    distribution: Distribution
    layout: KernelLayout
    mirroring: Mirroring = _NOT_MIRRORED
    note: str = ""

    @property
    def name(self) -> str:
        """Name of the distribution that the kernel gets in fact."""
        if self.mirroring.inputs or self.mirroring.outputs:
            return "looks_linear"
        if self.distribution.orthogonal:
            return "orthogonal" if self.layout.center is None else "delta_orthogonal"
        return self.distribution.name


def plan_kernels(
    graph: Graph,
    contexts: Sequence[KernelContext],
    trainable: Places,
    drawn: Iterable[KernelIdentity],
    distribution: Distribution | None,
) -> dict[KernelIdentity, KernelPlan]:
    """Returns the plan of each kernel, and sets the center in the contexts of those that are drawn at it.

    Args:
        graph: The model.
        contexts: The contexts of all its kernels.
        trainable: The kernels that can be drawn.
        drawn: Those of them that are. With "looks_linear" they are mirrored among themselves.
        distribution: The distribution. `None`: mirrored kernels in the chains that gain by them, and
            orthogonal ones elsewhere, whichever of them are drawn.

    Raises:
        ValueError: The distribution is mirrored, and no kernel can be.
    """
    if distribution is None:
        plans = _choose_plans(graph, contexts, trainable)
    else:
        plans = _plans_of(distribution, graph, contexts, set(drawn))
    for context in contexts:
        plan = plans.get(context.kernel.identity)
        if plan is not None and plan.layout.center is not None:
            # The fan-in is then the number of channels.
            context.kernel = replace(context.kernel, center=plan.layout.center)
    return plans


def _choose_plans(
    graph: Graph, contexts: Sequence[KernelContext], trainable: Places
) -> dict[KernelIdentity, KernelPlan]:
    """Returns the plans where the user names no distribution."""
    centered, _ = _find_layouts(contexts, _CENTERED)
    once = {identity: centered[identity] for identity, used in trainable.items() if len(used) == 1}
    mirrorings = find_mirrorings(graph, contexts, once, only_gaining=True)
    plans = {}
    for identity, (context, *_) in trainable.items():
        mirroring = mirrorings.get(identity, _NOT_MIRRORED)
        if mirroring.inputs or mirroring.outputs:
            plans[identity] = KernelPlan(_CENTERED, centered[identity], mirroring)
            continue
        plan = KernelPlan(_ORTHOGONAL, KernelLayout(context.kernel.shape, context.kernel.contracted))
        if _multiplications(plan.layout) > _MOST_MULTIPLICATIONS:
            note = "normal: an orthogonal kernel of its size takes long to draw"
            plan = replace(plan, distribution=DISTRIBUTIONS["normal"], note=note)
        plans[identity] = plan
    return plans


def _multiplications(layout: KernelLayout) -> float:
    short, long = sorted((layout.fan_in, layout.fan_out))
    return 2.0 * short**2 * long


def _plans_of(
    distribution: Distribution,
    graph: Graph,
    contexts: Sequence[KernelContext],
    drawn: set[KernelIdentity],
) -> dict[KernelIdentity, KernelPlan]:
    """Returns the plans by a distribution of the user's."""
    # Kernels that are not mirrored get the kind of matrix that mirrored kernels are made of.
    unmirrored = _CENTERED if distribution.mirrored else distribution
    layouts, reasons = _find_layouts(contexts, unmirrored)
    mirrorings: Mapping[KernelIdentity, Mirroring] = {}
    if distribution.mirrored:
        uses = Counter(context.kernel.identity for context in contexts if not context.step.copied)
        once = {identity: layouts[identity] for identity in drawn if uses[identity] == 1}
        mirrorings = find_mirrorings(graph, contexts, once)
        _check_mirrored(mirrorings)
    notes = {identity: f"orthogonal: {reason}" for identity, reason in reasons.items()}
    return {
        identity: KernelPlan(
            unmirrored, layout, mirrorings.get(identity, _NOT_MIRRORED), notes.get(identity, "")
        )
        for identity, layout in layouts.items()
    }


def _find_layouts(
    contexts: Sequence[KernelContext], distribution: Distribution
) -> tuple[dict[KernelIdentity, KernelLayout], dict[KernelIdentity, str]]:
    """Returns the layout of each kernel, and why a centered distribution draws some of them whole."""
    layouts: dict[KernelIdentity, KernelLayout] = {}
    reasons: dict[KernelIdentity, str] = {}
    uses = Counter(context.kernel.identity for context in contexts)
    for context in contexts:
        kernel = context.kernel
        if kernel.identity in layouts:
            continue
        plain = KernelLayout(kernel.shape, kernel.contracted)
        try:
            layout = kernel_layout(distribution, kernel.shape, kernel.contracted, kernel.layer, kernel.kind)
            # A tied decoder may apply it the other way round.
            if layout.center is not None and uses[kernel.identity] > 1:
                layout = plain
                reasons[kernel.identity] = "it is applied several times"
        except NoCenterError as error:
            layout = plain
            reasons[kernel.identity] = error.reason
        layouts[kernel.identity] = layout
    return layouts, reasons


def _check_mirrored(mirrorings: Mapping[KernelIdentity, Mirroring]) -> None:
    """Raises ValueError where no two kernels of a model can be mirrored."""
    if any(mirroring.inputs is not None for mirroring in mirrorings.values()):
        return
    reasons = [mirroring.reason for mirroring in mirrorings.values() if mirroring.reason]
    raise ValueError(
        "distribution 'looks_linear' mirrors kernels that follow each other with an activation between them, "
        f"and the model has no two that can be{reasons[0] if reasons else ''}. Use 'orthogonal', or leave "
        "`distribution` out. Received: distribution='looks_linear'"
    )
