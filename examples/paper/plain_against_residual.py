"""Plain networks of 200 and 1000 layers against a residual one, each at its own learning rate, on MNIST.

KERAS_BACKEND=jax python examples/paper/plain_against_residual.py --data-dir DIRECTORY [--quick]

All networks of one depth have the same width, batch size, number of epochs and schedule: Adam with a rate
that rises over a twentieth of the steps and falls to zero along half a cosine. For each, seed 0 chooses one
of five rates, which are continued while the best stands at an end, and three other seeds give the results.

- `looks_linear`: `deep_mlp` as it is by default, with mirrored kernels.
- `shaped`: `deep_mlp(activation="shaped(relu)", distribution="orthogonal")`.
- `residual`: pre-activation blocks with layer normalization, `h <- h + W f(s n(h) + t) + b`, where `n` gives
  each example mean 0 and variance 1 over the units and `s` and `t` are trained, and a normalization before
  the classifier. The kernels are He's divided by the square root of the number of blocks.

The residual network has `2 width` parameters a layer more. Any back end runs this.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from _experiment import Experiment, Row, distinct, mean_and_deviation, parse_options, select
from _networks import normalize, train_classifier

from keras_rwinit import data, model_zoo
from keras_rwinit.plots import new_figure

WIDTH, BATCH, WARMUP = 100, 128, 0.05
EPOCHS = {200: 5, 1000: 3}
RATES = {200: (3e-5, 1e-4, 3e-4, 1e-3, 3e-3), 1000: (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)}
RESIDUAL_RATES = {200: RATES[200], 1000: (3e-4, 1e-3, 3e-3, 9e-3, 3e-2)}
SEEDS = (1, 2, 3)
NETWORKS = (
    ("relu", "looks_linear"),
    ("relu", "residual"),
    ("relu", "shaped"),
    ("gelu", "looks_linear"),
    ("silu", "looks_linear"),
)


@keras.saving.register_keras_serializable("keras_rwinit_paper")
class NormalizedResidualStack(keras.layers.Layer):
    """Pre-activation residual blocks with layer normalization, in a loop: the graph is as large at any depth.

    Args:
        depth: Number of blocks.
        activation: Name of the activation.
        seed: Random seed of the kernels.
    """

    def __init__(self, depth: int, activation: str, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth, self.seed = depth, seed
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights; the kernels are He's divided by the square root of the depth."""
        width = input_shape[-1]
        kernels = np.random.default_rng(self.seed).standard_normal((self.depth, width, width))
        self.kernel = self.add_weight(shape=kernels.shape, initializer="zeros", name="kernel")
        self.kernel.assign(kernels * (2.0 / (width * self.depth)) ** 0.5)
        shape = (self.depth, width)
        self.scale = self.add_weight(shape=shape, initializer="ones", name="scale")
        self.shift = self.add_weight(shape=shape, initializer="zeros", name="shift")
        self.bias = self.add_weight(shape=shape, initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        """Returns the last block's outputs."""

        def block(h: Any, weights: Any) -> Any:
            kernel, scale, shift, bias = weights
            a = scale * normalize(h) + shift
            return h + keras.ops.matmul(self.activation(a), kernel) + bias, None

        of_blocks = tuple(
            keras.ops.convert_to_tensor(weight) for weight in (self.kernel, self.scale, self.shift, self.bias)
        )
        return keras.ops.scan(block, inputs, of_blocks)[0]


def build(run: Row, examples: data.Dataset) -> keras.Model:
    """Returns one of the networks with the weights of its seed."""
    depth, width, activation, seed = (run[key] for key in ("depth", "width", "activation", "seed"))
    if run["network"] != "residual":
        shaped = run["network"] == "shaped"
        return model_zoo.deep_mlp(
            depth,
            width,
            f"shaped({activation})" if shaped else activation,
            input_shape=(examples.features,),
            classes=examples.classes,
            distribution="orthogonal" if shaped else None,
            seed=seed,
        )
    inputs = keras.Input((examples.features,))
    h = keras.layers.Dense(width, kernel_initializer=keras.initializers.LecunNormal(seed))(inputs)
    h = NormalizedResidualStack(depth - 1, activation, seed, name="residual_stack")(h)
    h = keras.layers.LayerNormalization()(h)
    last = keras.layers.Dense(examples.classes, kernel_initializer=keras.initializers.LecunNormal(seed + 1))
    return keras.Model(inputs, last(h))


def networks(quick: bool) -> Iterator[Row]:
    """Returns the settings of each network."""
    for depth, (activation, network) in itertools.product((3,) if quick else EPOCHS, NETWORKS):
        epochs = 1 if quick else EPOCHS[depth]
        yield {
            "depth": depth,
            "width": WIDTH,
            "activation": activation,
            "network": network,
            "epochs": epochs,
        }


def choose_rate(experiment: Experiment, network: Row, work: Any) -> float:
    """Returns the best rate of the grid for seed 0, continuing it while that stands at an end."""

    def losses(rates: Sequence[float]) -> dict[float, float]:
        rows = experiment.run([{**network, "rate": rate, "seed": 0} for rate in rates], work)
        return {row["rate"]: row["loss"] if np.isfinite(row["loss"]) else np.inf for row in rows}

    rates = RESIDUAL_RATES if network["network"] == "residual" else RATES
    tried = losses((1e-3,) if experiment.quick else rates[network["depth"]])
    while not experiment.quick:
        best = min(tried, key=lambda rate: tried[rate])
        beyond = {min(tried): best / 10.0**0.5, max(tried): best * 10.0**0.5}.get(best)
        if beyond is None:
            break
        tried |= losses((float(f"{beyond:.0e}"),))
    return min(tried, key=lambda rate: tried[rate])


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the table, draws it, and returns its rows without those of seed 0."""
    experiment = parse_options("plain_against_residual", __doc__, arguments)
    images = experiment.load_images()

    def work(run: Row) -> dict[str, float]:
        keras.utils.clear_session()
        return train_classifier(
            build(run, images),
            images,
            rate=run["rate"],
            epochs=run["epochs"],
            batch_size=BATCH,
            seed=run["seed"],
            warmup=WARMUP,
        )

    rows: list[Row] = []
    for network in networks(experiment.quick):
        chosen = {**network, "rate": choose_rate(experiment, network, work)}
        seeds = SEEDS[:1] if experiment.quick else SEEDS
        rows += experiment.run([{**chosen, "seed": seed} for seed in seeds], work)
    draw(experiment, rows)
    return rows


def draw(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws training loss and test error of each network, with their deviations over the seeds."""
    depths = distinct(rows, "depth")
    figure, axes = new_figure(columns=2, width=10.0, height=4.0)
    for ax, (column, label) in zip(
        axes, (("loss", "training loss (nats)"), ("test_error", "test error")), strict=True
    ):
        for depth in depths:
            names = list(
                dict.fromkeys((row["activation"], row["network"]) for row in select(rows, depth=depth))
            )
            cells = [
                mean_and_deviation(select(rows, depth=depth, activation=activation, network=network), column)
                for activation, network in names
            ]
            means, deviations = np.array(cells).T
            ax.errorbar(
                range(len(names)),
                means,
                np.nan_to_num(deviations),
                fmt="o",
                capsize=3,
                label=f"{depth} layers",
            )
        ax.set_xticks(range(len(names)), [f"{a}\n{n}" for a, n in names], fontsize="small")
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylabel(label)
        ax.margins(x=0.1)
    axes[0].legend()
    experiment.save_picture(figure)


if __name__ == "__main__":
    main()
