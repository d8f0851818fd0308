"""Architectures of `keras.applications`, as small as they get."""

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
    labels,
    normal,
)

L = keras.layers


def application(
    name: str, side: int, build_model: Callable[[dict[str, Any]], keras.Model], **options: Any
) -> None:
    def build(size: Size) -> Problem:
        model = build_model({"weights": None, "input_shape": (side, side, 3), "classes": 5})
        # In some of them the last kernel is a convolution's.
        next(layer for layer in reversed(model.layers) if hasattr(layer, "kernel")).name = OUTPUT
        model.compile("sgd", "sparse_categorical_crossentropy")
        return Problem(model, normal(side, side, 3), labels(5))

    CASES[f"applications, {name}"] = Case(build, **options)


def tiny_resnet(options: dict[str, Any]) -> keras.Model:
    from keras.src.applications.resnet import ResNet, stack_residual_blocks_v1

    def blocks(x: Any) -> Any:
        return stack_residual_blocks_v1(
            stack_residual_blocks_v1(x, 4, 3, stride1=1, name="a"), 4, 3, name="b"
        )

    return ResNet(blocks, preact=False, use_bias=True, **options)


def tiny_densenet(options: dict[str, Any]) -> keras.Model:
    return keras.src.applications.densenet.DenseNet([1, 1, 1, 1], **options)


def tiny_convnext(options: dict[str, Any]) -> keras.Model:
    from keras.src.applications.convnext import ConvNeXt

    return ConvNeXt([1, 1, 2, 1], [8, 8, 8, 8], default_size=32, **options)


def tiny_efficientnet(options: dict[str, Any]) -> keras.Model:
    from keras.src.applications.efficientnet import EfficientNet

    return EfficientNet(0.25, 0.1, 32, dropout_rate=0.0, drop_connect_rate=0.0, **options)


def tiny_head_on_vgg(options: dict[str, Any]) -> keras.Model:
    base = keras.applications.VGG16(**{**options, "include_top": False, "pooling": "max"})
    return keras.Model(base.inputs, L.Dense(options["classes"], "softmax")(base.output), name="model")


NORMALIZED = "normalization undoes the scale of its kernels"
apps = keras.applications
application(
    "MobileNet",
    32,
    lambda o: apps.MobileNet(alpha=0.25, dropout=0.0, **o),
    training=True,
    no_chain=NORMALIZED,
)
application(
    "MobileNetV2", 32, lambda o: apps.MobileNetV2(alpha=0.35, **o), training=True, no_chain=NORMALIZED
)
application(
    "MobileNetV3",
    32,
    lambda o: apps.MobileNetV3Small(alpha=0.75, dropout_rate=0.0, **o),
    training=True,
    no_chain=NORMALIZED,
)
application("ResNet", 32, tiny_resnet, training=True, no_chain=NORMALIZED)
application("DenseNet", 32, tiny_densenet, training=True, no_chain=NORMALIZED)
application("ConvNeXt", 32, tiny_convnext, no_chain=NORMALIZED)
application("EfficientNet", 32, tiny_efficientnet, training=True, no_chain=NORMALIZED)
application(
    "VGG16",
    32,
    tiny_head_on_vgg,
    seeds=1,
    fails={"theory": "maximum pooling enlarges the signal, and the gain keeps the gradient: 1.8 nats"},
)
