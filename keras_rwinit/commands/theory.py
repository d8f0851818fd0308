"""`keras-rwinit gain` and `keras-rwinit plan`: numbers of the theory, without Keras."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from keras_rwinit._checks import check_count
from keras_rwinit._files import check_new, write_json
from keras_rwinit.theory import gain as computed_gain
from keras_rwinit.theory import plan_width, predict_walk, simulate_walk

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
    console,
    plain_errors,
)

__all__ = ["gain", "plan"]


def _show(title: str, rows: dict[str, str], result: dict[str, Any], output: Path | None) -> None:
    if output is not None:
        try:
            write_json(output, result)
        except OSError as error:
            raise ValueError(f"Cannot write {output}: {error.strerror}. Choose another --output.") from error
    table = Table(show_header=False, box=None)
    for key, value in rows.items():
        table.add_row(f"[bold]{key}", value)
    console.print(f"[italic]{title}", highlight=False)
    console.print(table, highlight=False)


def _simulated(
    activation: str,
    width: int,
    depth: int,
    gain: float,
    distribution: str,
    samples: int,
    seed: int,
) -> tuple[float, float, float]:
    """Mean, its standard error and spread of the walk over `samples` simulated networks."""
    total = simulate_walk(activation, width, depth, gain, samples, distribution, seed)[:, 0]
    total = total[np.isfinite(total)]
    if not total.size:
        raise ValueError("The gradient died in every simulated network. Use a larger width.")
    return float(total.mean()), float(total.std() / math.sqrt(total.size)), float(total.std())


@plain_errors
def gain(
    activation: Activation = "relu",
    width: Width = 100,
    depth: Annotated[
        int | None, typer.Option(**INTEGER, help="Number of hidden layers; very many if left out.")
    ] = None,
    distribution: Distribution = "normal",
    refine: Annotated[bool, typer.Option(help="Polish with the exact simulation.")] = False,
    samples: Samples = 0,
    seed: Seed = 0,
    output: JsonOutput = None,
) -> None:
    """Print the gain that makes the gradient's log-norm an unbiased random walk."""
    if output is not None:
        check_new(output, "--output")
    check_count("seed", seed, minimum=0)
    value = computed_gain(activation, width, depth, distribution, refine=refine)
    rows = {"gain": f"{value:.10g}"}
    result: dict[str, Any] = {
        "activation": activation,
        "width": width,
        "depth": depth,
        "distribution": distribution,
        "refined": refine,
        "gain": value,
    }
    if samples:
        if depth is None:
            raise ValueError("Simulation needs a network's --depth. Received: none")
        mean, error, _ = _simulated(activation, width, depth, value, distribution, samples, seed)
        rows["simulated drift"] = f"{mean:+.4f} ± {error:.4f} nats over all layers"
        result |= {
            "simulated_mean": mean,
            "standard_error": error,
            "samples": samples,
            "seed": seed,
        }
    title = f"{activation}, width {width:,}, " + (f"depth {depth:,}" if depth else "any depth")
    _show(f"{title}, {distribution} kernels", rows, result, output)


@plain_errors
def plan(
    depth: Depth = 1000,
    spread: Annotated[
        float | None,
        typer.Option(**NUMBER, help="Nats: print the smallest width whose log-norm spreads by no more."),
    ] = None,
    width: Annotated[
        int | None, typer.Option(**INTEGER, help="Units of a hidden layer: print what to expect of it.")
    ] = None,
    activation: Activation = "relu",
    distribution: Distribution = "normal",
    samples: Samples = 0,
    seed: Seed = 0,
    output: JsonOutput = None,
) -> None:
    """Print the width a spread asks for, or the spread a width gives, before training."""
    if output is not None:
        check_new(output, "--output")
    check_count("seed", seed, minimum=0)
    if (spread is None) == (width is None):
        raise ValueError(
            f"Give one of --spread and --width. Received: {'both' if width is not None else 'neither'}"
        )
    if width is None:
        assert spread is not None
        width = plan_width(depth, spread, activation, distribution)
    walk = predict_walk(activation, width, depth, distribution=distribution)
    parameters = depth * width * (width + 1)
    rows = {
        "width": f"{width:,}",
        "gain": f"{walk.gain:.10g}",
        "predicted spread": f"{walk.std[0]:.4f} nats of ln|δ| over all layers",
        "dead networks": f"{walk.dead_probability:.3g}",
        "hidden parameters": f"{parameters:,}",
    }
    result: dict[str, Any] = {
        "activation": activation,
        "depth": depth,
        "distribution": distribution,
        "width": width,
        "gain": walk.gain,
        "predicted_spread": float(walk.std[0]),
        "dead_probability": walk.dead_probability,
        "hidden_parameters": parameters,
    }
    if samples:
        mean, error, std = _simulated(activation, width, depth, walk.gain, distribution, samples, seed)
        rows["simulated"] = f"drift {mean:+.4f} ± {error:.4f}, spread {std:.4f} nats"
        result |= {
            "simulated_mean": mean,
            "standard_error": error,
            "simulated_spread": std,
            "samples": samples,
            "seed": seed,
        }
    _show(f"{depth:,} {activation} layers, {distribution} kernels", rows, result, output)
