"""One architecture of every family of `keras.applications` through `initialize` and `gradient_walk`."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_rwinit import gradient_walk, initialize

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="minutes of compiling")

# The smallest inputs that each takes.
FAMILIES = {
    "ConvNeXtTiny": 32,
    "MobileNet": 32,
    "VGG16": 32,
}
BY_HAND = {
    "MobileNetV3Small": 32,
    "ResNet50": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNetV2": 32,
    "NASNetMobile": 32,
    "ResNet50V2": 32,
    "VGG19": 32,
    "Xception": 71,
}
MARKS = [pytest.mark.slow, pytest.mark.exhaustive]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(pytest.param(*family, marks=pytest.mark.slow) for family in FAMILIES.items()),
        *(pytest.param(*family, marks=MARKS) for family in BY_HAND.items()),
    ],
)
def test_every_family(name: str, size: int) -> None:
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=5)
    x = np.random.default_rng(0).uniform(0.0, 255.0, (2, size, size, 3)).astype("float32")
    before = {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.weights}
    report = initialize(model, x, seed=0)
    drawn = {kernel.path for kernel in report.kernels}
    matrices = {variable.path for variable in model.weights if len(variable.shape) > 1}
    assert {variable.path for variable in model.weights} == drawn | {path for path, _ in report.skipped}
    assert matrices >= drawn
    assert len(drawn) > 15
    assert not any("guess" in kernel.why for kernel in report.kernels)
    for kernel in report.kernels:  # on images of one pixel a window of 7 x 7 has one tap: a gain of 7
        largest = 3.0 * (7.0 if "padding" in kernel.why else 1.0) * (2.0 if "gated" in kernel.why else 1.0)
        largest *= 3.0 if "mean of 9 positions" in kernel.why else 1.0  # the square root of their number
        assert 0.05 < kernel.gain / kernel.correction < largest
    for variable in model.weights:
        same = np.array_equal(before[variable.path], keras.ops.convert_to_numpy(variable))
        assert same == (variable.path not in drawn)
    for layer in model._flatten_layers():  # a branch dropped at random has no gradient: its log-norm is -inf
        for rate in ("rate", "drop_path_rate"):
            if hasattr(layer, rate):
                setattr(layer, rate, 0.0)
    walk = gradient_walk(model, x, training=True)
    assert np.isfinite(walk.forward).all()
    assert np.isfinite(walk.backward).all()
    assert len(walk.layer_names) > 12
