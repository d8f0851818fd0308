"""The optimal gain for tanh over width and depth: a map, computed, with simulated points on it.

python examples/paper/optimal_gain.py [--quick] [--output DIRECTORY]

Kernels are normal. The computed gain is of first order in 1 / width. The simulated gain is the one at which
the mean of the exactly simulated walk is zero. From width 100 up the two agree; at width 30 and 100 layers
they differ by 0.3 %. The paper recommends 1.1 to 1.3 for tanh; TensorFlow's old random-walk initializer had
the constant 1.13.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from _experiment import Experiment, Row, parse_options, select
from _networks import KERNELS
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from keras_rwinit import NoGainError, gain, predict_walk, simulate_walk
from keras_rwinit.plots import new_figure

ROOT = 0  # root of all seeds
PAPER, CONSTANT = (1.1, 1.3), 1.13
LEVELS = (1.07, 1.2, 1.5, 1.7)  # thin contours of the map
POINTS = (
    *((30, 10), (30, 100), (30, 1000), (100, 10), (100, 100), (100, 1000)),
    *((300, 30), (300, 200), (1000, 10), (1000, 100)),
)
# Limits for each simulated gain: unit activations in all its networks, and number of networks.
BUDGET, MOST = 10**8, 4000
RATIOS = np.linspace(-0.04, 0.04, 5)  # ln(gain / pilot's gain) of the simulated gains
BASELINES: dict[str, tuple[float | None, str]] = {**KERNELS, "constant 1.13": (CONSTANT, "normal")}


def compute_gain(run: Row) -> Row:
    """Returns the computed gain; empty where there is none."""
    try:
        return {"gain": gain("tanh", run["width"], run["depth"])}
    except NoGainError:
        return {"gain": ""}


def simulate_gain(run: Row) -> Row:
    """Returns the gain at which the mean of simulated walks is zero, and the computed gain.

    A pilot with few networks, the same ones at every gain, finds the root roughly. Independent networks at
    five gains around it give five means, and the root of a parabola through them is the result.
    """
    width, depth = run["width"], run["depth"]
    seeds = np.random.SeedSequence([run["root"], width, depth]).generate_state(1 + len(RATIOS)).tolist()

    def walks(log_gain: float, samples: int, seed: int) -> NDArray[np.float64]:
        g = float(np.exp(log_gain))
        return simulate_walk("tanh", width, depth, gain=g, samples=samples, seed=seed)[:, 0]

    pilot = optimize.brentq(
        lambda log_gain: walks(log_gain, run["pilot"], seeds[0]).mean(), 0.0, np.log(2.5), xtol=1e-3
    )
    totals = [
        walks(pilot + ratio, run["samples"], seed) for ratio, seed in zip(RATIOS, seeds[1:], strict=True)
    ]
    errors = [total.std(ddof=1) / run["samples"] ** 0.5 for total in totals]
    root, error = root_of_means(RATIOS, [total.mean() for total in totals], errors)
    simulated_gain = float(np.exp(pilot + root))
    result = {**compute_gain(run), "gain_simulated": simulated_gain, "gain_error": simulated_gain * error}
    if result["gain"]:
        result["deviation"] = (result["gain"] - simulated_gain) / result["gain_error"]
    return result


def root_of_means(x: ArrayLike, means: ArrayLike, errors: ArrayLike) -> tuple[float, float]:
    """Returns where a weighted parabola through independent means is zero, and the standard error.

    The error is `sqrt(Var m(root)) / |m'(root)|`, the delta method.

    Args:
        x: Abscissas, shape (points,).
        means: Means there.
        errors: Their standard errors.

    Raises:
        ValueError: If the parabola has no root or two between the first and the last of `x`.
    """
    x, errors = np.asarray(x, float), np.asarray(errors, float)
    design = np.stack([np.ones_like(x), x, x * x], axis=1) / errors[:, None]
    covariance = np.linalg.inv(design.T @ design)
    curve = np.polynomial.Polynomial(covariance @ design.T @ (np.asarray(means, float) / errors))
    roots = [r.real for r in curve.roots() if abs(r.imag) < 1e-12 and x.min() <= r.real <= x.max()]
    if len(roots) != 1:
        raise ValueError(
            f"The means must cross zero once; simulate more networks. Received: {np.asarray(means)}"
        )
    root = float(roots[0])
    at_root = np.array([1.0, root, root * root])
    return root, float(np.sqrt(at_root @ covariance @ at_root) / abs(curve.deriv()(root)))


def predict_baseline(run: Row) -> Row:
    """Returns the predicted mean and spread of the gradient's walk over all layers, in nats of `|delta|`."""
    used, distribution = BASELINES[run["initializer"]]
    predicted = predict_walk("tanh", run["width"], run["depth"], gain=used, distribution=distribution)
    return {"gain": predicted.gain, "drift": float(predicted.mean[0]), "std": float(predicted.std[0])}


def main(arguments: Sequence[str] | None = None) -> dict[str, list[Row]]:
    """Completes the tables, draws them, and returns map, points and baselines."""
    experiment = parse_options("optimal_gain", __doc__, arguments)
    quick = experiment.quick
    widths, depths = (
        np.unique(np.geomspace(low, high, 5 if quick else 17).round().astype(int)).tolist()
        for low, high in ((20, 2000), (5, 200 if quick else 1000))
    )
    cells = experiment.run(
        ({"width": width, "depth": depth} for width, depth in itertools.product(widths, depths)), compute_gain
    )
    runs = []
    for width, depth in ((100, 10), (100, 50)) if quick else POINTS:
        samples = min(BUDGET // (50 if quick else 1) // (width * depth), MOST)
        runs.append({"width": width, "depth": depth, "pilot": samples // 8, "samples": samples, "root": ROOT})
    points = experiment.run(runs, simulate_gain, table="points.csv")
    baselines = experiment.run(
        (
            {"initializer": name, "width": 100, "depth": depth}
            for name, depth in itertools.product(BASELINES, (10, 100, 1000))
        ),
        predict_baseline,
        table="baselines.csv",
    )
    draw(experiment, cells, points)
    return {"map": cells, "points": points, "baselines": baselines}


def draw(experiment: Experiment, cells: Sequence[Row], points: Sequence[Row]) -> None:
    """Draws the map with the simulated points, and the gain against depth at a few widths."""
    figure, axes = new_figure(columns=2, width=13.0, height=5.2)
    for ax in axes:  # before the contours are labeled, since labels are placed by the scale
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    draw_map(axes[0], cells, points)
    draw_sections(axes[1], cells)
    experiment.save_picture(figure)


def draw_map(ax: Any, cells: Sequence[Row], points: Sequence[Row]) -> None:
    """Draws contours of the computed gain over width and depth, and the simulated points on them."""
    from matplotlib.colors import PowerNorm
    from matplotlib.patheffects import withStroke

    widths, depths = (sorted({row[name] for row in cells}) for name in ("width", "depth"))
    table = {(row["width"], row["depth"]): row["gain"] for row in cells}
    gains = np.array([[table[width, depth] or np.nan for width in widths] for depth in depths])
    low, high = float(np.nanmin(gains)), float(np.nanmax(gains))
    colors: dict[str, Any] = {"cmap": "viridis", "norm": PowerNorm(0.4, low, high)}
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    filled = ax.contourf(
        widths, depths, gains, levels=low + (high - low) * np.linspace(0, 1, 41) ** 2, **colors
    )
    for levels, style in (
        (LEVELS, {"colors": "white", "linewidths": 0.8}),
        (PAPER, {"colors": "white", "linewidths": 2.4}),
        ((CONSTANT,), {"colors": "C3", "linewidths": 2.0}),
    ):
        ax.clabel(ax.contour(widths, depths, gains, levels=levels, **style), fmt="%g", fontsize="small")
    sizes = [(row["width"], row["depth"]) for row in points]
    simulated_gains = [row["gain_simulated"] for row in points]
    ax.scatter(
        *zip(*sizes, strict=True),
        c=simulated_gains,
        s=60,
        edgecolors="black",
        zorder=3,
        clip_on=False,
        **colors,
    )
    for size, value in zip(sizes, simulated_gains, strict=True):
        text = ax.annotate(f"{value:.3f}", size, (7, -12), textcoords="offset points", fontsize="small")
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    ax.set_xlabel("width")
    ax.set_ylabel("hidden layers")
    ax.set_title(
        "gain for tanh: computed, and simulated (points)\nthe paper's range is between the thick lines"
    )
    ticks = [tick for tick in sorted({*LEVELS, *PAPER, CONSTANT}) if low <= tick <= high]
    ax.figure.colorbar(filled, ax=ax, label="gain", ticks=ticks, format="%g")


def draw_sections(ax: Any, cells: Sequence[Row]) -> None:
    """Draws the computed gain against depth, one line for each width, with the paper's range."""
    widths = sorted({row["width"] for row in cells})
    ax.axhspan(*PAPER, color="0.9", label="the paper, 1.1 to 1.3")
    ax.axhline(CONSTANT, color="C3", ls="--", lw=1.2, label="TensorFlow's constant, 1.13")
    for color, width in zip(("C0", "C1", "C2", "C4", "C5"), widths[:: len(widths) // 4], strict=True):
        of_width = [row for row in select(cells, width=width) if row["gain"]]
        depths, gains = ([row[name] for row in of_width] for name in ("depth", "gain"))
        ax.plot(depths, gains, color=color, lw=1.6, label=f"width {width}")
    ax.set_xlabel("hidden layers")
    ax.set_ylabel("gain")
    ax.legend(fontsize="small", frameon=False)


if __name__ == "__main__":
    main()
