"""Models of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from oracle_cases import (
    CASES,
    OUTPUT,
    Case,
    Problem,
    Size,
    case,
    labels,
    normal,
    solve,
)

L = keras.layers


def images(
    kind: str, wide: Size, layer: Callable[[Any, Size, int], Any], side: int = 8, **options: Any
) -> None:
    """Adds a chain of convolutions with a head of numbers."""

    def build(size: Size) -> Problem:
        h = inputs = keras.Input((side, side, 3))
        for number in range(size.depth):
            h = layer(h, size, number)
        return solve(inputs, L.Dense(2, name=OUTPUT)(L.Flatten()(h)), normal(side, side, 3))

    CASES[kind] = Case(build, wide=wide, **options)


def conv(h: Any, size: Size, number: int, **options: Any) -> Any:
    settings = {"padding": "same", "activation": "relu", "name": f"conv{number}", **options}
    return L.Conv2D(size.width, 3, **settings)(h)


images("convolutions", Size(16, 6), conv, default=True)
images(
    "strided convolutions",
    Size(24, 4),
    lambda h, s, n: conv(h, s, n, strides=1 + n % 2, activation="tanh"),
    16,
)
images("maximum pooling", Size(24, 4), lambda h, s, n: conv(L.MaxPooling2D(2)(h) if n % 2 else h, s, n), 16)
images(
    "average pooling", Size(24, 4), lambda h, s, n: conv(L.AveragePooling2D(2)(h) if n % 2 else h, s, n), 16
)
images(
    "dilation and groups",
    Size(16, 4),
    lambda h, s, n: conv(h, s, n, dilation_rate=1 + n % 2, groups=1 if n % 2 or not n else 4),
    4,
)
images(
    "separable convolutions",
    Size(24, 6),
    lambda h, s, n: L.SeparableConv2D(s.width, 3, padding="same", activation="relu", name=f"conv{n}")(h),
)
images(
    "depthwise convolutions",
    Size(32, 4),
    lambda h, s, n: L.Conv2D(s.width, 1, activation="relu", name=f"point{n}")(
        L.DepthwiseConv2D(3, padding="same", activation="relu", name=f"depth{n}")(h)
    ),
)
images(
    "group normalization, residual",
    Size(16, 5),
    lambda h, s, n: (
        h
        + L.Conv2D(s.width, 3, padding="same", name=f"branch{n}")(
            L.Activation("silu")(L.GroupNormalization(2)(h))
        )
        if n
        else L.Conv2D(s.width, 3, padding="same", name="stem")(h)
    ),
)


@case("transposed convolutions, a number a pixel", wide=Size(24, 3))
def decoder(size: Size) -> Problem:
    h = inputs = keras.Input((3, 3, size.width))
    for number in range(size.depth):
        h = L.Conv2DTranspose(
            size.width, 3, strides=1 + number % 2, padding="same", activation="relu", name=f"up{number}"
        )(h)
    return solve(inputs, L.Conv2D(3, 1, name=OUTPUT)(h), normal(3, 3, size.width))


@case("U-Net, a label a pixel", wide=Size(16, 3))
def unet(size: Size) -> Problem:
    h = inputs = keras.Input((16, 16, 2))
    skips = []
    for number in range(size.depth):
        h = conv(h, size, number, name=f"down{number}")
        skips.append(h)
        h = L.MaxPooling2D(2)(h)
    for number, skip in enumerate(reversed(skips)):
        h = L.Concatenate()([L.UpSampling2D(2)(h), skip])
        h = conv(h, size, number, name=f"up{number}")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return solve(inputs, L.Conv2D(3, 1, name=OUTPUT)(h), normal(16, 16, 2), labels(3, 16, 16), loss)


@case("volumes", wide=Size(12, 4))
def volumes(size: Size) -> Problem:
    h = inputs = keras.Input((4, 4, 4, 2))
    for number in range(size.depth):
        h = L.Conv3D(size.width, 2, padding="same", activation="tanh", name=f"conv{number}")(h)
    return solve(inputs, L.Dense(2, name=OUTPUT)(L.Flatten()(h)), normal(4, 4, 4, 2))
