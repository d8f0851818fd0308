"""Deep networks against three forms of residual network, each with its own learning rate, on the digits.

python examples/paper/tuned_baselines.py [--quick] [--output DIRECTORY]

All networks have 100 hidden layers and about as many weights. Each is trained by Adam at a constant rate.
For each, seed 0 chooses the rate and the scale of the classifier's kernel from the same grid, and three other
seeds give the results. The residual blocks, with He's kernels divided by the square root of the number of
blocks, are

    inside:      h <- f(h + W h + b)
    outside:     h <- h + f(W h + b)
    normalized:  h <- h + W f(n(h)) + b,  n(h) with mean 0 and variance 1 over the units.

The kernels of `near_identity` are the identity plus noise of standard deviation 0.085 / sqrt(N), as Lee, Choi
& Kim propose for tanh (arXiv:2410.02242).

A second table compares the computed gain with He's, `sqrt(2)`, in narrow ReLU networks.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from _experiment import Experiment, Row, mean_and_deviation, parse_options, select
from _networks import normalize

from keras_rwinit import data, gain, model_zoo
from keras_rwinit.plots import new_figure

DEPTH, WIDTH, BATCH = 100, 64, 64
RATES = {"tanh": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3), "relu": (1e-4, 3e-4, 1e-3, 3e-3)}
OUTPUT_SCALES = (1.0, 3.0, 10.0)
FORMS = ("inside", "outside", "normalized")
NARROW = (20, 50, 100)


@keras.saving.register_keras_serializable("keras_rwinit_paper")
class NearIdentityInitializer(keras.initializers.Initializer):
    """Draws the identity plus normal noise; a kernel that is not square has further ones at its side.

    Args:
        noise: Standard deviation of the noise times the square root of the fan-in.
        seed: Random seed.
    """

    def __init__(self, noise: float = 0.085, seed: int | None = None) -> None:
        self.noise, self.seed = noise, seed

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
        rows, columns = shape
        square = np.eye(min(shape))
        repeated = np.tile(square, (-(-rows // len(square)), -(-columns // len(square))))[:rows, :columns]
        identity = keras.ops.convert_to_tensor(repeated, dtype=dtype)
        deviation = self.noise / shape[0] ** 0.5
        return identity + keras.initializers.RandomNormal(stddev=deviation, seed=self.seed)(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"noise": self.noise, "seed": self.seed}


@keras.saving.register_keras_serializable("keras_rwinit_paper")
class ResidualStack(keras.layers.Layer):
    """Residual blocks with one kernel each.

    Args:
        depth: Number of blocks.
        activation: Name of the activation.
        form: One of `FORMS`.
    """

    def __init__(self, depth: int, activation: str, form: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth, self.form = depth, form
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the kernels and biases; `draw` gives the kernels their values."""
        width = input_shape[-1]
        self.kernel = self.add_weight(shape=(self.depth, width, width), initializer="zeros", name="kernel")
        self.bias = self.add_weight(shape=(self.depth, width), initializer="zeros", name="bias")

    def draw(self, seed: int) -> None:
        """Draws He's kernels, divided by the square root of the depth."""
        depth, width, _ = self.kernel.shape
        kernel = np.random.default_rng(seed).standard_normal((depth, width, width))
        self.kernel.assign(kernel * (2.0 / (width * depth)) ** 0.5)

    def call(self, inputs: Any) -> Any:
        """Returns the last block's outputs."""
        h = inputs
        for kernel, bias in zip(keras.ops.unstack(self.kernel), keras.ops.unstack(self.bias), strict=True):
            h = self._block(h, kernel, bias)
        return h

    def _block(self, h: Any, kernel: Any, bias: Any) -> Any:
        if self.form == "inside":
            return self.activation(h + keras.ops.matmul(h, kernel) + bias)
        if self.form == "outside":
            return h + self.activation(keras.ops.matmul(h, kernel) + bias)
        return h + keras.ops.matmul(self.activation(normalize(h)), kernel) + bias


def networks(quick: bool) -> Iterator[Row]:
    """Returns the networks of the first table."""
    depth = 3 if quick else DEPTH
    for activation in ("tanh",) if quick else ("tanh", "relu"):
        near_identity = ("near_identity",) if activation == "tanh" else ()
        every = ("deep_mlp", "orthogonal", *near_identity, *FORMS)
        for name in ("deep_mlp", "near_identity", "normalized") if quick else every:
            yield {"activation": activation, "depth": depth, "width": WIDTH, "network": name}


def narrow_networks(quick: bool) -> Iterator[Row]:
    """Returns the networks of the second table."""
    depth = 3 if quick else DEPTH
    for width, name in itertools.product(NARROW[:1] if quick else NARROW, ("computed gain", "he")):
        yield {"activation": "relu", "depth": depth, "width": width, "network": name}


def build(run: Row, digits: data.Dataset, seed: int) -> keras.Model:
    """Returns one of the networks with the weights of a seed."""
    name, depth, width, activation = (run[key] for key in ("network", "depth", "width", "activation"))
    sizes: dict[str, Any] = {"input_shape": (digits.features,), "classes": digits.classes, "seed": seed}
    if name in FORMS:
        inputs = keras.Input((digits.features,))
        first = keras.layers.Dense(width, kernel_initializer=keras.initializers.LecunNormal(seed))
        stack = ResidualStack(depth - 1, activation, name, name="hidden_stack")
        last = keras.layers.Dense(
            digits.classes, kernel_initializer=keras.initializers.LecunNormal(seed + 1), name="classifier"
        )
        model = keras.Model(inputs, last(stack(first(inputs))))
        stack.draw(seed)
        return model
    if name == "deep_mlp":
        return model_zoo.deep_mlp(depth, width, activation, output_gain=1.0, **sizes)
    if name == "orthogonal":
        kernels = keras.initializers.Orthogonal(2.0**0.5 if activation == "relu" else 1.0)
        return model_zoo.deep_mlp(depth, width, activation, kernel_initializer=kernels, **sizes)
    if name == "near_identity":
        return model_zoo.deep_mlp(
            depth, width, activation, kernel_initializer=NearIdentityInitializer(), **sizes
        )
    used = gain(activation, width) if name == "computed gain" else 2.0**0.5
    return model_zoo.deep_mlp(depth, width, activation, distribution="normal", gain=used, **sizes)


def train(
    model: keras.Model, start: Sequence[np.ndarray], digits: data.Dataset, run: Row
) -> dict[str, float]:
    """Trains from the weights `start`; returns the loss over the training set, and the test error."""
    model.set_weights(start)
    kernel = model.layers[-1].kernel
    kernel.assign(kernel * run["output_scale"])
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))
    model.optimizer.learning_rate = run["rate"]
    rng = np.random.default_rng(run["seed"])
    orders = [rng.permutation(len(digits.x_train)) for _ in range(run["epochs"])]
    order = np.concatenate(orders)[: run["epochs"] * len(digits.x_train) // BATCH * BATCH]
    model.fit(digits.x_train[order], digits.y_train[order], BATCH, shuffle=False, verbose=0)
    loss, _ = model.evaluate(digits.x_train, digits.y_train, len(digits.x_train), verbose=0)
    _, accuracy = model.evaluate(digits.x_test, digits.y_test, len(digits.x_test), verbose=0)
    return {"loss": loss if np.isfinite(loss) else np.inf, "test_error": 1.0 - accuracy}


def compile_network(run: Row, digits: data.Dataset) -> keras.Model:
    """Returns a compiled network, whose weights `train` replaces before every run."""
    model = build(run, digits, 0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def compare(
    experiment: Experiment, of: Iterable[Row], seeds: Sequence[int], scales: Sequence[float], table: str
) -> list[Row]:
    """Trains the networks missing in the table; returns the rows of all seeds at the best settings."""
    digits = data.load("digits")
    epochs = 1 if experiment.quick else 8
    # A network is compiled once for all its runs.
    compiled = functools.lru_cache(maxsize=1)(
        lambda *values: compile_network(dict(zip(keys, values, strict=True)), digits)
    )
    keys = ("activation", "depth", "width", "network", "epochs")

    def work(run: Row) -> dict[str, float]:
        return train(compiled(*(run[key] for key in keys)), weights(run), digits, run)

    def weights(run: Row) -> list[np.ndarray]:
        found: list[np.ndarray] = build(run, digits, run["seed"]).get_weights()
        return found

    rows = []
    for network in of:
        base = {**network, "epochs": epochs}
        rates = RATES[network["activation"]]
        grid = itertools.product(rates[2:3] if experiment.quick else rates, scales)
        tried = experiment.run(
            [{**base, "rate": rate, "output_scale": scale, "seed": 0} for rate, scale in grid], work, table
        )
        best = min(tried, key=lambda row: float(row["loss"]))
        chosen = {**base, "rate": best["rate"], "output_scale": best["output_scale"]}
        rows += experiment.run([{**chosen, "seed": seed} for seed in seeds], work, table)
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes both tables, draws the first, and returns its rows without those of seed 0."""
    experiment = parse_options("tuned_baselines", __doc__, arguments)
    quick = experiment.quick
    scales = OUTPUT_SCALES[:1] if quick else OUTPUT_SCALES
    rows = compare(experiment, networks(quick), (1,) if quick else (1, 2, 3), scales, "results.csv")
    # Both have the same kernel in the classifier, so that its scale needs no choice.
    seeds = (1,) if quick else range(1, 7)
    narrow = compare(experiment, narrow_networks(quick), seeds, OUTPUT_SCALES[:1], "narrow.csv")
    draw(experiment, rows)
    return [*rows, *narrow]


def draw(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws the training loss of each network, with its deviation over the seeds."""
    activations = list(dict.fromkeys(row["activation"] for row in rows))
    figure, axes = new_figure(columns=len(activations), width=4.5 * len(activations), height=4.0)
    for ax, activation in zip(np.atleast_1d(axes), activations, strict=True):
        of_activation = select(rows, activation=activation)
        names = list(dict.fromkeys(row["network"] for row in of_activation))
        cells = [mean_and_deviation(select(of_activation, network=name), "loss") for name in names]
        means, deviations = np.array(cells).T
        ax.errorbar(range(len(names)), means, yerr=np.nan_to_num(deviations), fmt="o", capsize=3)
        ax.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize="small")
        ax.set_yscale("log", nonpositive="clip")
        ax.margins(x=0.1)
        ax.set_title(f"{of_activation[0]['depth']} {activation} layers of width {WIDTH}")
    np.atleast_1d(axes)[0].set_ylabel("training loss (nats)")
    experiment.save_picture(figure)


if __name__ == "__main__":
    main()
