"""Models of sequences, with masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from oracle_cases import (
    EXAMPLES,
    OUTPUT,
    Problem,
    Size,
    case,
    dense_chain,
    labels,
    normal,
    solve,
    tokens,
)

L = keras.layers


@case("causal convolutions, a label each step", wide=Size(48, 6))
def causal(size: Size) -> Problem:
    h = inputs = keras.Input((12, 3))
    for number in range(size.depth):
        h = L.Conv1D(
            size.width, 2, padding="causal", dilation_rate=2 ** (number % 3), activation="relu",
            name=f"conv{number}",
        )(h)  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return solve(inputs, L.Dense(4, name=OUTPUT)(h), normal(12, 3), labels(4, 12), loss)


@case("weights of time steps", backends=True)
def time_weights(size: Size) -> Problem:
    inputs = keras.Input((6, size.width))
    h = dense_chain(inputs, size, "tanh")
    weights = np.arange(EXAMPLES * 6.0).reshape(EXAMPLES, 6).astype("float32")
    return solve(inputs, L.Dense(3, name=OUTPUT)(h), normal(6, size.width), loss="mae", weights=weights)


@case("masked tokens", default=True, backends=True)
def masked(size: Size) -> Problem:
    inputs = keras.Input((6,), dtype="int32")
    h = dense_chain(L.Embedding(9, size.width, mask_zero=True, name="table")(inputs), size, "tanh")
    return solve(inputs, L.Dense(4, name=OUTPUT)(h), tokens(6))


@case("masking and a recurrent layer")
def recurrent(size: Size) -> Problem:
    inputs = keras.Input((6, 3))
    h = dense_chain(L.Masking()(inputs), size, "relu")
    h = L.SimpleRNN(size.width, return_sequences=True, name="rnn")(h)
    h = L.GRU(size.width, name="gru")(h)
    x = normal(6, 3)
    x[1, 4:] = 0.0
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), x)


@case("both directions")
def bidirectional(size: Size) -> Problem:
    inputs = keras.Input((5, 3))
    h = L.Bidirectional(L.LSTM(size.width, return_sequences=True), name="both")(inputs)
    h = dense_chain(h, size, "relu")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return solve(inputs, L.Dense(4, name=OUTPUT)(h), normal(5, 3), labels(4, 5), loss)


@case("TimeDistributed")
def time_distributed(size: Size) -> Problem:
    h = inputs = keras.Input((5, size.width))
    for number in range(size.depth):
        h = L.TimeDistributed(L.Dense(size.width), name=f"h{number}")(h)
        h = L.ReLU()(h)
    return solve(inputs, L.Dense(2, name=OUTPUT)(L.Flatten()(h)), normal(5, size.width))


@case("connectionist temporal classification")
def ctc(size: Size) -> Problem:
    inputs = keras.Input((8, size.width))
    h = dense_chain(inputs, size, "tanh")
    y = np.random.default_rng(1).integers(1, 4, (EXAMPLES, 3))
    return solve(inputs, L.Dense(4, name=OUTPUT)(h), normal(8, size.width), y, keras.losses.CTC())


def transformer(table: Any) -> Callable[[Size], Problem]:
    def build(size: Size) -> Problem:
        inputs = keras.Input((6,), dtype="int32")
        h = L.Embedding(9, size.width, mask_zero=True, embeddings_initializer=table, name="table")(inputs)
        for number in range(size.depth):
            n = L.LayerNormalization()(h)
            attention = L.MultiHeadAttention(2, size.width // 2, name=f"attention{number}")
            h = h + attention(n, n, use_causal_mask=True)
            n = L.Dense(2 * size.width, "gelu", name=f"inner{number}")(L.LayerNormalization()(h))
            h = h + L.Dense(size.width, name=f"outer{number}")(n)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return solve(inputs, L.Dense(4, name=OUTPUT)(h), tokens(6), labels(4, 6), loss)

    return build


case("transformer, causal and masked", wide=Size(32, 3))(
    transformer(keras.initializers.RandomNormal(stddev=1.0, seed=0))
)
case("transformer, Keras's own table", wide=Size(32, 4))(transformer("uniform"))


@case("grouped-query attention", wide=Size(32, 3))
def grouped_attention(size: Size) -> Problem:
    h = inputs = keras.Input((5, size.width))
    for number in range(size.depth):
        n = L.RMSNormalization()(h)
        h = h + L.GroupQueryAttention(size.width // 4, 4, 2, name=f"attention{number}")(n, n)
    return solve(inputs, L.Dense(2, name=OUTPUT)(L.GlobalAveragePooling1D()(h)), normal(5, size.width))


@case("mixer", wide=Size(32, 5))
def mixer(size: Size) -> Problem:
    h = inputs = keras.Input((7, size.width))
    for number in range(size.depth):
        h = L.EinsumDense("btc,ts->bsc", (7, size.width), activation="relu", name=f"mix{number}")(h)
        h = L.EinsumDense("bsc,cd->bsd", (7, size.width), activation="relu", name=f"channels{number}")(h)
    return solve(inputs, L.Dense(2, name=OUTPUT)(h), normal(7, size.width))
