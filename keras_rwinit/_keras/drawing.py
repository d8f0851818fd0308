"""Draws the kernel of any layer: a Dense layer's matrix, a convolution's window, or its center alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit.theory.distributions import Distribution, MirroredSide, Pairs, draw_kernels, draw_pairs

from .fans import assemble_kernel
from .layer_kinds import KernelKind, is_known_layer

__all__ = [
    "KernelLayout",
    "NoCenterError",
    "draw_layout",
    "draw_layouts",
    "draw_mirrored_layouts",
    "kernel_layout",
]

Array = NDArray[np.float64]


class NoCenterError(ValueError):
    """A kernel that a centered distribution does not draw.

    Args:
        message: What a user reads.
        reason: Why it does not, as a clause.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class KernelLayout:
    """Which entries of a kernel are drawn, and how they form a matrix.

    Args:
        shape: Shape of the kernel.
        contracted: The axes that an output unit sums over.
        center: The position in the window that is drawn, where all others are zero; None where all are drawn.
        groups: Number of groups of channels, each with a matrix of its own; 1 where all positions are drawn.
    """

    shape: tuple[int, ...]
    contracted: tuple[int, ...]
    center: tuple[int, ...] | None = None
    groups: int = 1

    @property
    def fan_in(self) -> int:
        """Entries of the kernel that an output unit sums over, without the zeros."""
        if self.center is not None:
            return self.shape[-2]
        return math.prod(self.shape[axis] for axis in self.contracted)

    @property
    def fan_out(self) -> int:
        """Columns of each matrix: outputs of the layer, with groups those of one group."""
        if self.center is not None:
            return self.shape[-1] // self.groups
        return math.prod(self.shape) // self.fan_in


def kernel_layout(
    distribution: Distribution,
    shape: Sequence[int],
    contracted: tuple[int, ...],
    layer: keras.layers.Layer | None = None,
    kind: KernelKind | None = None,
) -> KernelLayout:
    """Returns the layout of a kernel.

    Args:
        distribution: Distribution of the kernel.
        shape: Shape of the kernel.
        contracted: The axes that an output unit sums over.
        layer: The layer, if known. Without it a kernel of three and more axes is read as Keras reads it: as
            that of a convolution.
        kind: What the table of layer kinds says of the kernel.

    Raises:
        NoCenterError: The distribution is centered, and the kernel has no center or mixes no channels.
    """
    shape = tuple(shape)
    if not distribution.centered or len(shape) == 2:
        return KernelLayout(shape, contracted)
    if kind is not None and kind.transposed:
        raise _no_center(distribution, shape, layer, "a transposed convolution has no entry for that")
    if kind is not None and kind.zero_padded and contracted != tuple(range(len(shape) - 1)):
        raise _no_center(distribution, shape, layer, "a depthwise kernel keeps the channels apart")
    is_convolution = (
        layer is None or not is_known_layer(layer) or (kind is not None and kind.zero_padded)
    ) and contracted == tuple(range(len(shape) - 1))
    if is_convolution or set(shape[:-2]) == {1}:  # the latter a separable convolution's second kernel
        return KernelLayout(
            shape, contracted, _center(distribution, shape, layer), int(getattr(layer, "groups", 1))
        )
    if distribution.mirrored:
        raise NoCenterError(
            f"distribution {distribution.name!r} is for kernels of two axes, inputs and outputs, and for "
            f"convolutions. Received: shape={shape}",
            "its kernel has more than two axes and no window",
        )
    return KernelLayout(shape, contracted)


def _center(
    distribution: Distribution, shape: tuple[int, ...], layer: keras.layers.Layer | None
) -> tuple[int, ...]:
    """Returns the position in the window that reads the position it writes.

    Zeros are put before and behind an image such that this is entry `(k - 1) // 2` of a window of k, the
    first of the two in the middle where k is even. "causal" puts all zeros before, so that it is the last.
    """
    window = shape[:-2]
    padding = getattr(layer, "padding", None)
    if padding == "causal":
        return tuple(size - 1 for size in window)
    dilation = getattr(layer, "dilation_rate", 1)
    rates = (dilation,) * len(window) if isinstance(dilation, int) else tuple(dilation)
    if padding == "same" and any(
        size % 2 == 0 and rate > 1 for size, rate in zip(window, rates, strict=True)
    ):
        raise _no_center(distribution, shape, layer, "an even window with a dilation has no entry for that")
    return tuple((size - 1) // 2 for size in window)


def _no_center(
    distribution: Distribution, shape: tuple[int, ...], layer: keras.layers.Layer | None, reason: str
) -> NoCenterError:
    return NoCenterError(
        f"distribution {distribution.name!r} gives a convolution a matrix from channels to channels, in the "
        f"entry of the window that reads the position it writes, and {reason}; use 'orthogonal' there. "
        f"Received: shape={shape} in {type(layer).__name__}",
        reason,
    )


def draw_layout(
    layout: KernelLayout,
    distribution: Distribution,
    rng: np.random.Generator,
    *,
    mirrored: MirroredSide = "both",
) -> Array:
    """Draws a kernel of entries of variance `1 / fan_in`, but for the zeros around a center.

    With groups the units of a mirrored kernel come in pairs within each group.
    """
    return draw_layouts(layout, distribution, [rng], mirrored=mirrored)[0]


def draw_layouts(
    layout: KernelLayout,
    distribution: Distribution,
    generators: Sequence[np.random.Generator],
    *,
    mirrored: MirroredSide = "both",
) -> Array:
    """Draws the kernel that `draw_layout` draws from each generator, along the first axis."""
    blocks = [
        draw_kernels(distribution, generators, layout.fan_in, layout.fan_out, mirrored=mirrored)
        for _ in range(layout.groups)
    ]
    return _assemble(layout, blocks)


def draw_mirrored_layouts(
    layout: KernelLayout,
    generators: Sequence[np.random.Generator],
    inputs: Pairs | None,
    outputs: Pairs | None,
) -> Array:
    """Draws mirrored kernels whose units come in the given pairs, at a convolution's center.

    Args:
        layout: Layout of a matrix or of the center of a convolution.
        generators: Sources of the values, of one kernel each.
        inputs: Pairs among the units that the kernel sums over, those of all groups; None without any.
        outputs: Pairs among its outputs; None without any.

    Returns:
        The kernels along the first axis.
    """
    blocks = [
        draw_pairs(
            generators, _in_group(inputs, layout.fan_in, group), _in_group(outputs, layout.fan_out, group)
        )
        for group in range(layout.groups)
    ]
    return _assemble(layout, blocks)


def _assemble(layout: KernelLayout, blocks: Sequence[Array]) -> Array:
    """Returns kernels of the matrices of each group, shape (kernels, fan-in, fan-out)."""
    if layout.center is None:
        return assemble_kernel(blocks[0], layout.shape, layout.contracted)
    kernels = np.zeros((len(blocks[0]), *layout.shape))
    center: tuple[slice | int, ...] = (slice(None), *layout.center)
    kernels[center] = np.concatenate(blocks, axis=2)
    return kernels


def _in_group(pairs: Pairs | None, size: int, group: int) -> int | Pairs:
    """Returns the pairs within one group of channels, counted from its first; without pairs its size."""
    if pairs is None:
        return size
    inside = pairs.plus // size == group
    return Pairs(pairs.plus[inside] - group * size, pairs.minus[inside] - group * size, size)
