"""`keras-rwinit gain` and `keras-rwinit plan`: numbers of the theory, without Keras."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from keras_rwinit._checks import check_count
from keras_rwinit._files import write_json
from keras_rwinit.theory import gain as computed_gain
from keras_rwinit.theory import plan_width, predict_walk, resolve_activation, simulate_walk
from keras_rwinit.theory.distributions import resolve_distribution

from .arguments import EXAMPLES
from .options import (
    INTEGER,
    NUMBER,
    Activation,
    Depth,
    Distribution,
    JsonOutput,
    Samples,
    Seed,
    Width,
    check_output_and_seed,
    console,
    plain_errors,
)

__all__ = ["gain", "plan"]

_Result: TypeAlias = dict[str, str | float | None]


class _SimulatedWalk(NamedTuple):
    """The walk of simulated networks, in nats over all layers."""

    mean: float
    standard_error: float
    spread: float


@plain_errors
def gain(
    activation: Activation = "relu",
    width: Width = 100,
    depth: Annotated[
        int | None,
        typer.Option(**INTEGER, help="Number of hidden layers; default: the limit of a very deep network."),
    ] = None,
    distribution: Distribution = "normal",
    refine: Annotated[bool, typer.Option(help="Refine the gain by exact simulation.")] = False,
    samples: Samples = 0,
    seed: Seed = 0,
    output: JsonOutput = None,
) -> None:
    """Print the gain that makes the gradient's log-norm an unbiased random walk."""
    # First: `--refine` may take minutes, which a refused output would waste.
    check_output_and_seed(output, seed)
    activation = resolve_activation(activation, depth).name
    value = computed_gain(activation, width, depth, distribution=distribution, refine=refine)
    rows = {"gain": f"{value:.10g}"}
    result: _Result = {
        "activation": activation,
        "width": width,
        "depth": depth,
        "distribution": distribution,
        "refined": refine,
        "gain": value,
    }

    # A check by simulation
    if samples:
        if depth is None:
            raise ValueError(f"--samples simulates a network: give its --depth, as in {EXAMPLES['gain']}.")
        walk = _simulate(activation, width, depth, value, distribution, samples, seed)
        rows["simulated drift"] = f"{walk.mean:+.4f} ± {walk.standard_error:.4f} nats over all layers"
        result |= {
            "simulated_mean": walk.mean,
            "standard_error": walk.standard_error,
            "samples": samples,
            "seed": seed,
        }

    _write(output, result)
    depth_text = _describe_depth(activation, depth, distribution)
    _print_table(f"{activation}, width {width:,}, {depth_text}, {distribution} kernels", rows)


def _describe_depth(activation: str, depth: int | None, distribution: str) -> str:
    """Returns the depth that a gain is for; without one it is the limit of great depth."""
    if depth is not None:
        return f"depth {depth:,}"
    two_slopes = resolve_activation(activation).slopes is not None
    return "any depth" if two_slopes or resolve_distribution(distribution).mirrored else "very deep"


@plain_errors
def plan(
    depth: Depth = 1000,
    spread: Annotated[
        float | None,
        typer.Option(
            **NUMBER,
            help="Spread of the log-norm in nats: print the smallest width that does not exceed it.",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(**INTEGER, help="Units of a hidden layer: print the spread.")
    ] = None,
    activation: Activation = "relu",
    distribution: Distribution = "normal",
    samples: Samples = 0,
    seed: Seed = 0,
    output: JsonOutput = None,
) -> None:
    """Print the width for a given spread, or the spread at a given width, before training."""
    check_output_and_seed(output, seed)
    activation = resolve_activation(activation, depth).name
    width = _width_for(depth, spread, width, activation, distribution)

    # What to expect at this width
    walk = predict_walk(activation, width, depth, distribution=distribution)
    parameters = depth * width * (width + 1)
    rows = {
        "width": f"{width:,}",
        "gain": f"{walk.gain:.10g}",
        "predicted spread": f"{walk.spread:.4f} nats of ln|δ| over all layers",
        "dead networks": f"{walk.dead_probability:.3g}",
        "hidden parameters": f"{parameters:,}",
    }
    result: _Result = {
        "activation": activation,
        "depth": depth,
        "distribution": distribution,
        "width": width,
        "gain": walk.gain,
        "predicted_spread": walk.spread,
        "dead_probability": walk.dead_probability,
        "hidden_parameters": parameters,
    }

    # A check by simulation
    if samples:
        simulated = _simulate(activation, width, depth, walk.gain, distribution, samples, seed)
        rows["simulated"] = (
            f"drift {simulated.mean:+.4f} ± {simulated.standard_error:.4f}, "
            f"spread {simulated.spread:.4f} nats"
        )
        result |= {
            "simulated_mean": simulated.mean,
            "standard_error": simulated.standard_error,
            "simulated_spread": simulated.spread,
            "samples": samples,
            "seed": seed,
        }

    _write(output, result)
    _print_table(f"{depth:,} {activation} layers, {distribution} kernels", rows)


def _width_for(
    depth: int, spread: float | None, width: int | None, activation: str, distribution: str
) -> int:
    """Returns the given width, or the one for the given spread; ValueError unless one of them is given."""
    if spread is not None and width is None:
        return plan_width(depth, spread, activation=activation, distribution=distribution)
    if width is None or spread is not None:
        raise ValueError(
            f"Give one of --spread and --width, as in {EXAMPLES['plan']}. "
            f"Received: {'neither' if width is None else 'both'}"
        )
    return width


def _simulate(
    activation: str, width: int, depth: int, gain: float, distribution: str, samples: int, seed: int
) -> _SimulatedWalk:
    check_count("samples", samples, minimum=2)  # one network has no spread
    walks = simulate_walk(
        activation, width, depth, gain=gain, samples=samples, distribution=distribution, seed=seed
    )
    total = walks[:, 0]
    total = total[np.isfinite(total)]  # networks whose gradient died have -inf
    if total.size < 2:
        dead = "every simulated network" if not total.size else "all simulated networks but one"
        raise ValueError(f"The gradient died in {dead}. Use a larger width.")
    return _SimulatedWalk(float(total.mean()), float(total.std() / math.sqrt(total.size)), float(total.std()))


def _write(output: Path | None, result: _Result) -> None:
    if output is None:
        return
    try:
        write_json(output, result)
    except OSError as error:
        raise ValueError(f"Cannot write {output}: {error.strerror}. Choose another --output.") from error


def _print_table(title: str, rows: Mapping[str, str]) -> None:
    table = Table(show_header=False, box=None)
    for key, value in rows.items():
        table.add_row(Text(key, "bold"), value)
    console.print(Text(title, "italic"))
    console.print(table, highlight=False)
