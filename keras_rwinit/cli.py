"""The command line: `keras-rwinit gain | plan | train | walk | tune`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import typer
from rich.table import Table

from . import data
from ._files import check_new, new_folder, write_json
from ._jobs import Settings, TrainingRun
from ._options import (
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
from ._strategy import STRATEGIES
from ._tune_command import tune
from ._walk_command import walk
from .models.model_zoo import deep_mlp, presets
from .theory import gain as computed_gain
from .theory import plan_width, predict_walk, simulate_walk
from .theory._checks import check_count, check_positive

__all__ = ["app", "main"]


class _Commands(typer.core.TyperGroup):
    """The commands; what is wrong with their options is said in one line, as every other error."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Runs a command and ends the process, unless `standalone_mode` is off."""
        try:
            result = super().main(*args, **{**kwargs, "standalone_mode": False})
        except Exception as error:  # not every release of Typer exports its exceptions' base class
            message = getattr(error, "format_message", None)
            if not standalone_mode or message is None:
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(message(), err=True)
            else:
                typer.echo(f"keras-rwinit: {' '.join(message().split())}", err=True)
            sys.exit(2)
        if standalone_mode:
            sys.exit(result if isinstance(result, int) else 0)
        return result


app = typer.Typer(
    name="keras-rwinit",
    cls=_Commands,
    help="Random-walk initialization of very deep feed-forward networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
main_job = presets["digits_tanh_1000"]


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


@app.command()
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


@app.command()
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


@app.command()
@plain_errors
def train(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Option(help=f"Network and recipe, where no other option says otherwise: {', '.join(presets)}."),
    ] = None,
    dataset: Annotated[str, typer.Option(help=f"{', '.join(data.available())}.")] = main_job.recipe.dataset,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of prepared tensorflow-datasets sets.")
    ] = None,
    depth: Depth = main_job.config["depth"],
    width: Width = main_job.config["width"],
    activation: Annotated[str, typer.Option(help="Keras activation of the hidden layers.")] = main_job.config[
        "activation"
    ],
    distribution: Distribution = main_job.config["distribution"],
    input_gain: Annotated[
        float | None, typer.Option(**NUMBER, help="Of the random walk's first kernel; computed if left out.")
    ] = None,
    output_gain: Annotated[
        float | None, typer.Option(**NUMBER, help="Of the random walk's classifier; computed if left out.")
    ] = None,
    bias_stddev: Annotated[
        float | None,
        typer.Option(**NUMBER, help="Standard deviation of the hidden biases; zeros if left out."),
    ] = None,
    initializer: Annotated[str, typer.Option(help="random_walk, or any Keras initializer.")] = "random_walk",
    compare: Annotated[
        str, typer.Option(help="Initializer of a second network, trained alike.")
    ] = "glorot_uniform",
    no_compare: Annotated[bool, typer.Option("--no-compare", help="Train one network.")] = False,
    optimizer: Annotated[str, typer.Option(help="Keras optimizer.")] = main_job.recipe.optimizer,
    learning_rate: Annotated[
        float | None, typer.Option(**NUMBER, help="0.03 / depth, at most 0.001, if left out.")
    ] = None,
    cosine_decay: Annotated[
        bool, typer.Option(help="Bring the learning rate to zero along half a cosine.")
    ] = main_job.recipe.cosine_decay,
    batch: Annotated[
        int, typer.Option(**INTEGER, help="Examples a step, on all devices together.")
    ] = main_job.recipe.batch_size,
    epochs: Annotated[
        int, typer.Option(**INTEGER, help="Passes over the training set.")
    ] = main_job.recipe.epochs,
    strategy: Annotated[str, typer.Option(help=f"Devices to train on: {', '.join(STRATEGIES)}.")] = "none",
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="New folder for the run; runs/train-N if left out.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(help="Go on with the run in --output, or the latest in runs/, if interrupted."),
    ] = False,
) -> None:
    """Train a very deep network, next to the same one under another initializer.

    Without options: 1000 hidden tanh layers on 8x8 handwritten digits, about a minute on two cores.

    Strategies: mirrored (this machine's GPUs), multi-worker (the cluster in TF_CONFIG; start the same
    command on every worker, and only the chief writes) and tpu with TensorFlow; data-parallel and
    model-parallel with JAX.
    """
    given = [
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if resume:
        others = [f"--{name.replace('_', '-')}" for name in given if name not in ("output", "resume")]
        if others:
            raise ValueError(f"A run goes on with the settings it began with; leave out {', '.join(others)}.")
        folder = output or _latest_run()
        run = TrainingRun(Settings.load(folder), deep_mlp, console)
        if run.strategy.chief:
            run.execute(folder)
        else:
            run.take_part(folder)
        return
    if preset is not None:
        recorded = {name: value for name, value in _options_of(preset).items() if name not in given}
        train(context, **{**context.params, **recorded, "preset": None})
        return
    depth = check_count("depth", depth)
    settings = Settings(
        dataset=dataset,
        data_dir=None if data_dir is None else str(data_dir.resolve()),
        depth=depth,
        width=check_count("width", width),
        activation=activation,
        distribution=distribution,
        initializer=initializer,
        compare=None if no_compare else compare,
        optimizer=optimizer,
        learning_rate=check_positive(
            "learning_rate", min(0.03 / depth, 1e-3) if learning_rate is None else learning_rate
        ),
        cosine_decay=cosine_decay,
        batch_size=check_count("batch", batch),
        epochs=check_count("epochs", epochs),
        seed=check_count("seed", seed, minimum=0),
        backend=keras.backend.backend(),
        strategy=strategy,
        input_gain=input_gain,
        output_gain=output_gain,
        bias_stddev=bias_stddev,
    )
    run = TrainingRun(settings, deep_mlp, console)
    if not run.strategy.chief:
        run.take_part(None)
        return
    folder = new_folder(output, Path("runs"), "train")
    run.execute(folder, new=True)


def _options_of(name: str) -> dict[str, Any]:
    """What `train` is told by a preset, by parameter."""
    if name not in presets:
        raise ValueError(f"A preset is one of {', '.join(presets)}. Received: {name!r}")
    config, recipe = dict(presets[name].config), presets[name].recipe
    del config["input_shape"]  # that of the data set
    return {
        **config,
        "dataset": recipe.dataset,
        "optimizer": recipe.optimizer,
        "learning_rate": recipe.learning_rate,
        "cosine_decay": recipe.cosine_decay,
        "batch": recipe.batch_size,
        "epochs": recipe.epochs,
    }


def _latest_run() -> Path:
    runs = [path.parent for path in Path("runs").glob("train-*/settings.json")]
    if not runs:
        raise ValueError("There is no run to go on with in runs/: name its folder with --output.")
    return max(runs, key=lambda folder: (folder / "settings.json").stat().st_mtime)


app.command()(walk)
app.command()(tune)


def main() -> None:
    """Entry point of the command `keras-rwinit`."""
    app()
