"""Measures where the expansion in 1 / width holds: drift and spread of simulated networks at its gain.

The expansion gives each network a gain at which it predicts no drift. A line of the table has the drift of
simulated networks at that gain, in nats of the gradient's log-norm over all layers, its standard error, the
measured and the predicted spread, and the share of the networks whose gradient dies. Networks for which the
expansion finds no gain are left out. `keras_rwinit.gain` and `predict_walk` let a simulation decide where
these numbers are large.

    python benchmarks/expansion_region.py --output benchmarks/results/expansion_region.csv
    python benchmarks/expansion_region.py --activations tanh --widths 16 --depths 20 --networks 200
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence

import numpy as np
from _output import new_file, write_csv

from keras_rwinit.theory import NoGainError, resolve_activation, simulate_walk
from keras_rwinit.theory._analytic_gain import analytic_gain
from keras_rwinit.theory._long_walk import walk_totals
from keras_rwinit.theory.distributions import resolve_distribution

ACTIVATIONS = (
    *("tanh", "erf", "sin", "softsign", "sigmoid", "elu", "selu"),
    *("relu6", "hard_tanh", "hard_sigmoid"),
)
COLUMNS = (
    "activation",
    "distribution",
    "width",
    "depth",
    "gain",
    "networks",
    "drift",
    "standard_error",
    "spread",
    "predicted_spread",
    "dead",
)
_UNITS = 4_000_000  # of all networks of a line, which then takes about half a second


def measure(
    activation: str, distribution: str, width: int, depth: int, networks: int, seed: int
) -> dict[str, str] | None:
    """Simulates networks and returns their line of the table; None if the expansion has no gain for them."""
    known, entries = resolve_activation(activation), resolve_distribution(distribution)
    try:
        gain = analytic_gain(known, width, depth, entries)
    except NoGainError:
        return None
    networks = min(networks, _UNITS // (width * depth))
    predicted = walk_totals(known, np.array([gain]), width, depth, entries)
    walks = simulate_walk(
        activation, width, depth, gain=gain, samples=networks, distribution=distribution, seed=seed
    )[:, 0]
    alive = walks[np.isfinite(walks)]
    spread = float(alive.std()) if alive.size else float("nan")
    values = (
        activation,
        distribution,
        width,
        depth,
        f"{gain:.4f}",
        networks,
        f"{alive.mean() - predicted.mean[0]:+.3f}" if alive.size else "nan",
        f"{spread / np.sqrt(max(alive.size, 1)):.3f}",
        f"{spread:.3f}",
        f"{predicted.std[0]:.3f}",
        f"{1.0 - alive.size / networks:.3f}",
    )
    return dict(zip(COLUMNS, map(str, values), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all networks, prints a line for each and, with --output, writes them as CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--activations", nargs="+", default=ACTIVATIONS)
    parser.add_argument("--distributions", nargs="+", default=["normal", "orthogonal"])
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 12, 16, 24, 32, 64, 100])
    parser.add_argument("--depths", type=int, nargs="+", default=[5, 20, 100, 300])
    parser.add_argument("--networks", type=int, default=2000, help="fewer where a line would take too long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=new_file, help="new CSV file for the results")
    options = parser.parse_args(arguments)
    rows = []
    for case in itertools.product(options.activations, options.distributions, options.widths, options.depths):
        row = measure(*case, options.networks, options.seed)
        if row is None:
            continue
        rows.append(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    if options.output:
        command = " ".join(["python benchmarks/expansion_region.py", *(arguments or sys.argv[1:])])
        write_csv(options.output, command, COLUMNS, rows)


if __name__ == "__main__":
    main()
