"""Sample walks of the gradient's log-norm, and the exponents of their spread in depth and width.

python examples/paper/sample_walks.py [--quick] [--output DIRECTORY]

Linear and ReLU networks have normal kernels and the computed gain. A walk over `depth` hidden layers makes
`depth - 1` independent steps, so that its spread grows exactly with the square root of `depth - 1`. The
variance of a step is 2 / width for linear and 5 / width for ReLU layers only asymptotically. From width 400
up, the exponent of the exact law (column `exponent_predicted`) is within 0.0012 of -1/2, a fifteenth of the
confidence interval.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from _experiment import Experiment, Row, parse_options, select
from _networks import BASELINES, KERNELS, initializer_arguments
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from keras_rwinit import gradient_walk, model_zoo, predict_walk, simulate_walk
from keras_rwinit.plots import new_figure

ROOT = 0  # root of all seeds
ACTIVATIONS = ("linear", "relu")
# Width of the networks whose depth is varied, and depth of those whose width is varied.
WIDTH, DEPTH = 100, 11
LAWS = {"depth": 0.5, "width": -0.5}
WALK_WIDTHS, WALKS = (50, 500), 40  # widths and number of walks in the picture
CONFIDENCE = 0.95
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # ticks of the spread, in nats


def points(law: str, quick: bool) -> list[tuple[int, int]]:
    """Returns width and depth of each point of a law."""
    if law == "depth":
        return [(WIDTH, 1 + 2**k) for k in (range(3, 8) if quick else range(3, 11))]
    return [(400 * 2**k, DEPTH) for k in range(4 if quick else 6)]


def simulate(run: Row) -> Row:
    """Returns mean and spread of simulated walks over all layers, in nats, with standard errors."""
    predicted = predict_walk(run["activation"], run["width"], run["depth"])
    walks = simulate_walk(
        run["activation"], run["width"], run["depth"], samples=run["samples"], seed=run["seed"]
    )
    std, error = spread(walks[:, 0])
    return {
        "gain": predicted.gain,
        "mean": float(walks[:, 0].mean()),
        "mean_error": std / run["samples"] ** 0.5,
        "std": std,
        "std_error": error,
        "std_predicted": float(predicted.std[0]),
    }


def spread(values: ArrayLike) -> tuple[float, float]:
    """Returns the standard deviation of a sample and its standard error, for any distribution.

    The error follows by the delta method from `Var(s^2) = (m4 - s^4 (n - 3) / (n - 1)) / n`, where `m4`
    is the fourth central moment.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        raise ValueError("The gradient became zero in a network; use wider layers.")
    n, variance = len(values), float(values.var(ddof=1))
    fourth = float(((values - values.mean()) ** 4).mean())
    error = np.sqrt((fourth - variance**2 * (n - 3) / (n - 1)) / n) / (2.0 * np.sqrt(variance))
    return variance**0.5, float(error)


def fit_exponent(abscissa: ArrayLike, std: ArrayLike, error: ArrayLike) -> Row:
    """Fits `std = c * abscissa ** exponent` by weighted least squares of the logarithms.

    Args:
        abscissa: Numbers above 0, shape (points,).
        std: Spreads of independent samples.
        error: Their standard errors. They count as known, so that the interval is a normal one.

    Returns:
        `exponent`, its `exponent_error`, the bounds `low` and `high` of the 95 % confidence interval, the
        `factor` c, and the `p_value` of the chi-squared test that the points are on a power law.
    """
    x, y = np.log(np.asarray(abscissa, float)), np.log(np.asarray(std, float))
    sigma = np.asarray(error, float) / np.asarray(std, float)
    design = np.stack([x, np.ones_like(x)], axis=1) / sigma[:, None]
    covariance = np.linalg.inv(design.T @ design)
    exponent, constant = covariance @ design.T @ (y / sigma)
    chi_squared = float((((y - constant - exponent * x) / sigma) ** 2).sum())
    half = float(stats.norm.ppf(0.5 + CONFIDENCE / 2.0)) * covariance[0, 0] ** 0.5
    return {
        "exponent": float(exponent),
        "exponent_error": float(covariance[0, 0] ** 0.5),
        "low": float(exponent - half),
        "high": float(exponent + half),
        "factor": float(np.exp(constant)),
        "p_value": float(stats.chi2.sf(chi_squared, len(x) - 2)),
    }


def points_of_law(rows: Sequence[Row], activation: str, law: str) -> tuple[list[Row], NDArray[np.float64]]:
    """Returns the points of a law, and the abscissa of each: the steps of the walk, or the width."""
    fixed = {"width": WIDTH} if law == "depth" else {"depth": DEPTH}
    of_points = select(rows, activation=activation, **fixed)
    return of_points, np.array([row["depth"] - 1.0 if law == "depth" else row["width"] for row in of_points])


def fit_exponents(experiment: Experiment, rows: Sequence[Row]) -> list[Row]:
    """Returns a row for each activation and law, with the columns of `fit_exponent` and more."""

    def work(run: Row) -> Row:
        of_points, abscissa = points_of_law(rows, run["activation"], run["law"])
        std, error, predicted = np.array(
            [[row[name] for name in ("std", "std_error", "std_predicted")] for row in of_points]
        ).T
        fit = fit_exponent(abscissa, std, error)
        return {
            **fit,
            "exponent_predicted": fit_exponent(abscissa, predicted, error / std * predicted)["exponent"],
            "inside": "yes" if fit["low"] <= run["expected"] <= fit["high"] else "no",
        }

    runs = [
        {
            "activation": activation,
            "law": law,
            "expected": expected,
            "fixed": f"width {WIDTH}" if law == "depth" else f"depth {DEPTH}",
            "points": len(points(law, experiment.quick)),
            "samples": rows[0]["samples"],
            "root": ROOT,
        }
        for activation, (law, expected) in itertools.product(ACTIVATIONS, LAWS.items())
    ]
    return experiment.run(runs, work, table="exponents.csv")


def measure_network(run: Row) -> Row:
    """Returns the drift of a Keras network's gradient over all hidden layers in nats, and its prediction.

    The drift is the mean over the examples, `example_variance` its variance over them.
    """
    name, depth, width = run["initializer"], run["depth"], run["width"]
    model = model_zoo.deep_mlp(
        depth, width, "relu", input_shape=(width,), seed=run["seed"], **initializer_arguments(name, depth)
    )
    inputs = np.random.default_rng([ROOT, run["seed"]]).standard_normal((run["examples"], width))
    walks = gradient_walk(model, inputs).relative[:, 0]
    result: Row = {"drift": float(walks.mean()), "example_variance": float(walks.var(ddof=1))}
    if name in KERNELS:
        used, distribution = KERNELS[name]
        predicted = predict_walk("relu", width, depth, gain=used, distribution=distribution)
        result |= {"mean_predicted": float(predicted.mean[0]), "std_predicted": float(predicted.std[0])}
    return result


def deviation_of_walks(rows: Sequence[Row]) -> float:
    """Returns the standard deviation of the walk of one example through one network, in nats.

    By the law of total variance it is that of the networks' means plus that within a network. The mean of n
    examples has itself a variance of `example_variance / n`, so that the estimate without bias is

        Var(drift) + (1 - 1 / n) mean(example_variance).

    Args:
        rows: Measurements of `measure_network` for several seeds.
    """
    between = float(np.var([row["drift"] for row in rows], ddof=1))
    within = float(np.mean([row["example_variance"] for row in rows]))
    return float(np.sqrt(between + (1.0 - 1.0 / rows[0]["examples"]) * within))


def main(arguments: Sequence[str] | None = None) -> dict[str, list[Row]]:
    """Completes the tables, draws them, and returns exponents and networks."""
    experiment = parse_options("sample_walks", __doc__, arguments)
    quick = experiment.quick
    sizes = [
        (activation, *point)
        for law, activation in itertools.product(LAWS, ACTIVATIONS)
        for point in points(law, quick)
    ]
    seeds = np.random.SeedSequence(ROOT).generate_state(len(sizes)).tolist()
    names = ("activation", "width", "depth")
    runs = [
        {**dict(zip(names, size, strict=True)), "samples": 300 if quick else 3000, "seed": seed}
        for size, seed in zip(sizes, seeds, strict=True)
    ]
    rows = experiment.run(runs, simulate)
    fits = fit_exponents(experiment, rows)
    keys = {"depth": 30 if quick else 100, "width": 100, "examples": 16}
    networks = [
        {"initializer": name, "seed": seed, **keys}
        for name, seed in itertools.product(("random_walk", *BASELINES), range(2 if quick else 10))
    ]
    measurements = experiment.run(networks, measure_network, table="networks.csv")
    draw_walks(experiment, 200 if quick else 1000)
    draw_exponents(experiment, rows, fits)
    return {"exponents": fits, "networks": measurements}


def draw_walks(experiment: Experiment, depth: int) -> None:
    """Draws sample walks and the predicted bands of one and two deviations, one color for each width."""
    figure, axes = new_figure(columns=len(ACTIVATIONS), width=11.0, height=4.6)
    layers = np.arange(1, depth + 1)
    panels = list(itertools.product(zip(axes, ACTIVATIONS, strict=True), enumerate(WALK_WIDTHS)))
    seeds = np.random.SeedSequence([ROOT, 1]).generate_state(len(panels)).tolist()
    for ((ax, activation), (number, width)), seed in zip(panels, seeds, strict=True):
        color, std = f"C{number}", predict_walk(activation, width, depth).std
        walks = simulate_walk(activation, width, depth, samples=WALKS, seed=seed)
        ax.plot(layers, walks.T, color=color, lw=0.5, alpha=0.3)
        for deviations, style in ((1.0, "--"), (2.0, "-")):
            ax.fill_between(layers, -deviations * std, deviations * std, color=color, alpha=0.08, lw=0)
            ax.plot(layers, np.outer(std, [-deviations, deviations]), color=color, lw=1.6, ls=style)
        ax.plot([], [], color=color, lw=1.6, label=f"width {width}: {WALKS} walks")
        ax.set_title(activation)
        ax.set_xlabel("hidden layer")
    for name, style in (("1 standard deviation", "--"), ("2 standard deviations", "-")):
        axes[0].plot([], [], color="0.3", lw=1.6, ls=style, label=f"predicted, ±{name}")
    axes[1].sharey(axes[0])
    top = max(np.abs(ax.get_ylim()).max() for ax in axes)
    axes[0].set_ylim(-top, top)
    axes[0].set_ylabel("ln |δ| relative to the last hidden layer (nats)")
    axes[0].legend(fontsize="small", frameon=False, loc="upper right")
    experiment.save_picture(figure)


def draw_exponents(experiment: Experiment, rows: Sequence[Row], fits: Sequence[Row]) -> None:
    """Draws the spread against the steps of the walk and against the width, with the fits."""
    figure, axes = new_figure(columns=len(LAWS), width=11.0, height=4.6)
    labels = {"depth": "steps of the walk, depth - 1", "width": "width"}
    for ax, law in zip(axes, LAWS, strict=True):
        for number, activation in enumerate(ACTIVATIONS):
            of_points, abscissa = points_of_law(rows, activation, law)
            fit = select(fits, activation=activation, law=law)[0]
            std, error = ([row[name] for row in of_points] for name in ("std", "std_error"))
            ax.errorbar(abscissa, std, error, color=f"C{number}", ls="", marker="o", ms=4, capsize=2)
            label = f"{activation}: {fit['exponent']:.3f}, [{fit['low']:.3f}, {fit['high']:.3f}]"
            line = fit["factor"] * abscissa ** fit["exponent"]
            ax.plot(abscissa, line, color=f"C{number}", lw=1.2, label=label)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(abscissa, [f"{tick:.0f}" for tick in abscissa])
        ticks = [tick for tick in TICKS if ax.get_ylim()[0] < tick < ax.get_ylim()[1]]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel(labels[law])
        ax.set_title(f"{fit['fixed']}, expected {fit['expected']:g}")
        ax.legend(
            fontsize="small", title=f"exponent, {CONFIDENCE:.0%} interval", alignment="left", frameon=False
        )
    axes[0].set_ylabel("standard deviation of ln |δ| over all layers (nats)")
    experiment.save_picture(figure, "exponents.png")


if __name__ == "__main__":
    main()
