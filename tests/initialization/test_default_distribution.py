"""`initialize` without a distribution: mirrored kernels in chains that gain by them, else orthogonal ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import Array, to_numpy

from keras_rwinit import data, initialize
from keras_rwinit.initialization import InitializationReport, InitializedKernel
from keras_rwinit.layers import DenseStack

L = keras.layers
backends = pytest.mark.backends


def chain(*layers: Any, shape: tuple[int, ...] = (6,)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *layers, L.Dense(3)])


def dense(depth: int, activation: Any = "relu") -> list[Any]:
    return [L.Dense(6, activation) for _ in range(depth)]


def convolutions(depth: int, activation: str | None = "relu", **options: Any) -> list[Any]:
    return [L.Conv2D(4, 3, padding="same", activation=activation, **options) for _ in range(depth)]


def slightly_bent(a: Any) -> Any:
    return keras.ops.leaky_relu(a, 0.9)


def residual() -> keras.Model:
    h = inputs = keras.Input((6,))
    for _ in range(3):
        h = L.Add()([h, L.Dense(6)(L.Dense(6, "relu")(h))])
    return keras.Model(inputs, L.Dense(3)(h))


def distributions(report: InitializationReport) -> list[str]:
    return [kernel.distribution for kernel in report.kernels for _ in range(kernel.count)]


def kernels(model: keras.Model) -> list[Array]:
    return [to_numpy(weight) for weight in model.weights if "bias" not in weight.name]


ALIKE: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "deep relu": (lambda: chain(*dense(8)), "looks_linear"),
    "deep relu, stacked": (lambda: chain(L.Dense(6, "relu"), DenseStack(7)), "looks_linear"),
    "deep relu convolutions": (
        lambda: chain(*convolutions(8), L.Flatten(), shape=(4, 4, 2)),
        "looks_linear",
    ),
    "deep gelu": (lambda: chain(*dense(10, "gelu")), "looks_linear"),
    "shallow gelu": (lambda: chain(*dense(9, "gelu")), "orthogonal"),
    "shallow relu": (lambda: chain(*dense(7)), "orthogonal"),
    "shallow relu convolutions": (
        lambda: chain(*convolutions(2, strides=2), L.Flatten(), shape=(4, 4, 2)),
        "orthogonal",
    ),
    "tanh": (lambda: chain(*(L.Dense(32, "tanh") for _ in range(8))), "orthogonal"),
    "nearly linear": (lambda: chain(*dense(8, slightly_bent)), "orthogonal"),
    "linear": (lambda: chain(*dense(8, None)), "orthogonal"),
    "normalized relu": (
        lambda: chain(*(x for _ in range(8) for x in (L.Dense(6), L.BatchNormalization(), L.ReLU()))),
        "looks_linear",
    ),
    "normalized convolutions": (
        lambda: chain(
            *(x for c in convolutions(8, None) for x in (c, L.BatchNormalization(), L.ReLU())),
            L.Flatten(),
            shape=(2, 2, 2),
        ),
        "orthogonal",
    ),
    "short branches": (residual, "orthogonal"),
}


LONGEST = ("deep relu convolutions", "normalized convolutions", "normalized relu")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in LONGEST)) for case in ALIKE]
)
def test_the_kernels_are_those_of_the_distribution_that_is_chosen(case: str) -> None:
    build, expected = ALIKE[case]
    model, named = build(), build()
    report = initialize(model, seed=4)
    assert set(distributions(report)) == {expected}
    assert report.kernels == tuple(
        InitializedKernel(**{**vars(row), "path": own.path})
        for row, own in zip(
            initialize(named, distribution=expected, seed=4).kernels, report.kernels, strict=True
        )
    )
    for one, other in zip(kernels(model), kernels(named), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_chain_of_a_model_gets_its_own() -> None:
    """A normalization behind the activation ends a chain, and so does maximum pooling."""
    model = chain(*dense(9), L.LayerNormalization(), *dense(2))
    assert distributions(initialize(model, seed=0)) == ["looks_linear"] * 9 + ["orthogonal"] * 3
    layers = [*convolutions(9), L.MaxPooling2D(2), *convolutions(2), L.Flatten()]
    model = chain(*layers, shape=(4, 4, 2))
    assert distributions(initialize(model, seed=0)) == ["looks_linear"] * 9 + ["orthogonal"] * 3


def tied() -> keras.Model:
    inputs, twice = keras.Input((6,)), L.Dense(6, "relu")
    return keras.Model(inputs, L.Dense(3)(twice(twice(inputs))))


def attention() -> keras.Model:
    tokens = keras.Input((5,), dtype="int32")
    h = L.Embedding(7, 4)(tokens)
    h = L.Add()([h, L.MultiHeadAttention(2, 3)(h, h)])
    return keras.Model(tokens, L.Dense(2)(L.GRU(3)(L.EinsumDense("abc,cde->abde", (None, 2, 2))(h)[:, :, 0])))


def frozen() -> keras.Model:
    model = chain(*dense(3))
    model.layers[1].trainable = False
    return model


SITUATIONS: dict[str, Callable[[], keras.Model]] = {
    "one kernel": chain,
    "a single unit": lambda: chain(*(L.Dense(1, "relu") for _ in range(9))),
    "two units": lambda: chain(*(L.Dense(2, "relu") for _ in range(9))),
    "applied twice": tied,
    "embedded, attention, recurrent": attention,
    "frozen": frozen,
    "windows of all kinds": lambda: chain(
        L.DepthwiseConv2D(3, activation="relu"),
        L.Conv2DTranspose(4, 3, strides=2, activation="relu"),
        L.SeparableConv2D(4, 3, activation="relu"),
        L.Conv2D(4, 2, dilation_rate=2, padding="same", groups=2, activation="relu"),
        L.Flatten(),
        shape=(6, 6, 2),
    ),
}


@pytest.mark.parametrize(
    "situation",
    [pytest.param(name, marks=pytest.mark.slow if "attention" in name else ()) for name in SITUATIONS],
)
def test_it_works_wherever_normal_kernels_do(situation: str) -> None:
    """The same kernels are drawn, with finite values."""
    model = SITUATIONS[situation]()
    normal = initialize(model, distribution="normal", seed=0)
    report = initialize(model, seed=0)
    assert [kernel.path for kernel in report.kernels] == [kernel.path for kernel in normal.kernels]
    assert report.skipped == normal.skipped
    assert "not mirrored" not in str(report)
    assert all(np.isfinite(weight).all() for weight in kernels(model))


@backends
def test_kernels_of_named_layers_are_those_of_the_whole_model() -> None:
    """Also at the ends of what is named, where mirrored kernels read or feed kernels that stay."""
    model = chain(*dense(8))
    initialize(model, seed=5)
    whole = kernels(model)
    initialize(model, seed=6)
    rest = kernels(model)
    report = initialize(model, seed=5, layers=model.layers[3:6])
    assert distributions(report) == ["looks_linear"] * 3
    for index, kernel in enumerate(kernels(model)):
        np.testing.assert_array_equal(kernel, (whole if 3 <= index < 6 else rest)[index])


def test_kernels_that_take_long_to_orthogonalize_are_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_rwinit.initialization._plan._MOST_MULTIPLICATIONS", 2 * 6 * 6 * 6)
    model = chain(L.Dense(20, "relu"), L.Dense(6, "relu"), L.Dense(6, "relu"))
    report = initialize(model, seed=0)
    assert distributions(report) == ["normal", "normal", "orthogonal", "orthogonal"]
    assert "normal: an orthogonal kernel of its size takes long to draw" in report.kernels[1].why


def test_equal_kernels_in_a_row_are_one_row_of_the_summary() -> None:
    model = chain(*dense(6), L.Dense(5, "relu"), *dense(6))
    report = initialize(model, seed=0)
    assert len(report.kernels) == 14
    rows = [line for line in report.summary().splitlines() if line.startswith("│")]
    text = " ".join(" ".join(line.split("│")[1].split()) for line in rows)
    names = [kernel.path for kernel in report.kernels]
    assert text.split() == [
        *(names[0], names[1], "...", names[5], "(5)", names[6], names[7]),
        *(names[8], "...", names[12], "(5)", names[13]),
    ]


def test_rows_of_stacks_count_all_their_layers() -> None:
    stacks = [DenseStack(4, "relu", name=f"stack_{index}") for index in range(3)]
    report = initialize(chain(L.Dense(6, "relu"), *stacks), seed=0)
    assert [kernel.count for kernel in report.kernels] == [1, 4, 4, 4, 1]
    assert "(12)" in report.summary()


@pytest.mark.slow
def test_a_deep_relu_network_learns() -> None:
    """With normal kernels the inputs become parallel; this was the default."""
    keras.utils.set_random_seed(0)
    digits = data.load("digits")
    model = keras.Sequential([keras.Input((64,)), L.Dense(32, "relu"), DenseStack(19, "relu"), L.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    accuracies = {}
    for distribution in (None, "normal"):
        initialize(model, distribution=distribution, seed=0)
        history = model.fit(digits.x_train, digits.y_train, 64, epochs=2, verbose=0).history
        accuracies[distribution] = history["accuracy"][-1]
    assert accuracies[None] > 0.7
    assert accuracies["normal"] < 0.5
