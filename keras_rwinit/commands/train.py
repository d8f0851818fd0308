"""`keras-rwinit train`: a very deep network, next to the same one under another initializer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import keras
import typer

from keras_rwinit import data
from keras_rwinit._checks import check_count, check_positive
from keras_rwinit._files import latest_run, new_directory
from keras_rwinit._keras.names import RANDOM_WALK
from keras_rwinit.models import model_zoo
from keras_rwinit.training.run import TrainingRun
from keras_rwinit.training.settings import Settings
from keras_rwinit.training.strategies.select import STRATEGIES

from .options import (
    INTEGER,
    NUMBER,
    RUNS,
    Activation,
    DataDir,
    Depth,
    Distribution,
    Seed,
    Width,
    can_draw,
    console,
    given_options,
    plain_errors,
    resumable,
)

__all__ = ["train"]

_main_job = model_zoo.presets["digits_tanh_1000"]


def _use_preset(context: typer.Context, name: str | None) -> str | None:
    """Makes a preset's network and recipe the defaults of the other options."""
    if name is None:
        return None
    if name not in model_zoo.presets:
        raise typer.BadParameter(f"it must be one of {', '.join(model_zoo.presets)}. Received: {name!r}")
    network, recipe = dict(model_zoo.presets[name].config), model_zoo.presets[name].recipe
    del network["input_shape"]  # the data set has one
    context.default_map = {
        **network,
        "dataset": recipe.dataset,
        "optimizer": recipe.optimizer,
        "learning_rate": recipe.learning_rate,
        "cosine_decay": recipe.cosine_decay,
        "batch": recipe.batch_size,
        "epochs": recipe.epochs,
    }
    return name


@plain_errors
def train(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Option(
            callback=_use_preset,
            is_eager=True,  # before the options whose defaults it sets
            help=f"Network and recipe; other options override them: {', '.join(model_zoo.presets)}.",
        ),
    ] = None,
    dataset: Annotated[
        str, typer.Option(help=f"Data set: {', '.join(data.available())}.")
    ] = _main_job.recipe.dataset,
    data_dir: DataDir = None,
    depth: Depth = _main_job.config["depth"],
    width: Width = _main_job.config["width"],
    activation: Activation = _main_job.config["activation"],
    distribution: Distribution = _main_job.config["distribution"],
    input_gain: Annotated[
        float | None,
        typer.Option(**NUMBER, help="Gain of the first kernel, for random_walk; computed by default."),
    ] = None,
    output_gain: Annotated[
        float | None,
        typer.Option(
            **NUMBER, help="Gain of the output layer's kernel, for random_walk; computed by default."
        ),
    ] = None,
    bias_stddev: Annotated[
        float | None,
        typer.Option(**NUMBER, help="Standard deviation of the hidden biases; default: zero biases."),
    ] = None,
    initializer: Annotated[
        str, typer.Option(help="Initializer of the kernels: random_walk or a Keras initializer.")
    ] = RANDOM_WALK,
    compare: Annotated[
        str, typer.Option(help="Initializer of a second network, which is trained in the same way.")
    ] = "glorot_uniform",
    no_compare: Annotated[bool, typer.Option("--no-compare", help="Train one network only.")] = False,
    optimizer: Annotated[str, typer.Option(help="Keras optimizer.")] = _main_job.recipe.optimizer,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            **NUMBER,
            help="Learning rate; default: 1.92 / (depth x width), a third of it with --no-cosine-decay, at "
            "most 0.001.",
        ),
    ] = None,
    cosine_decay: Annotated[
        bool, typer.Option(help="Let the learning rate fall to zero along half a cosine.")
    ] = _main_job.recipe.cosine_decay,
    batch: Annotated[
        int, typer.Option(**INTEGER, help="Examples per step, on all devices together.")
    ] = _main_job.recipe.batch_size,
    epochs: Annotated[
        int, typer.Option(**INTEGER, help="Passes over the training set.")
    ] = _main_job.recipe.epochs,
    strategy: Annotated[str, typer.Option(help=f"Devices to train on: {', '.join(STRATEGIES)}.")] = "none",
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="New directory for the run; default: runs/train-N.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(help="Resume the interrupted run in --output; default: the latest in runs/."),
    ] = False,
) -> None:
    """Train a very deep network, next to the same one under another initializer.

    Without options: 1000 hidden tanh layers on 8x8 handwritten digits, about a minute on two cores.

    Strategies with TensorFlow: mirrored (all GPUs of this machine), multi-worker and tpu.

    Strategies with JAX: data-parallel and model-parallel.

    With multi-worker, start the same command on every worker in TF_CONFIG; only the chief writes.
    """
    if resume:
        _resume(context, output)
        return
    # Checked here under the names of the options; Settings has names of its own.
    depth, width = check_count("depth", depth), check_count("width", width)
    if learning_rate is None:
        learning_rate = model_zoo.learning_rate(depth, width, decays=cosine_decay)
    settings = Settings(
        dataset=dataset,
        data_dir=None if data_dir is None else str(data_dir.resolve()),
        depth=depth,
        width=width,
        activation=activation,
        distribution=distribution,
        initializer=initializer,
        compare=None if no_compare else compare,
        optimizer=optimizer,
        learning_rate=check_positive("learning_rate", learning_rate),
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
    run = TrainingRun(settings, console, draw=can_draw())
    # Made last: a command that is refused leaves nothing behind.
    directory = None
    if run.strategy.chief:
        directory = new_directory(output, RUNS, "train", name="--output", resume="--resume")
    _execute(run, directory, new=True)


def _resume(context: typer.Context, output: Path | None) -> None:
    others = given_options(context, but=("output", "resume"))
    if others:
        raise ValueError(f"A resumed run keeps its settings; leave out {', '.join(others)}.")
    directory = output or latest_run(RUNS, "train")
    if directory is None:
        raise ValueError(f"There is no run to resume in {RUNS}/: name its directory with --output.")
    _execute(TrainingRun(Settings.load(directory), console, draw=can_draw()), directory, new=False)


def _execute(run: TrainingRun, directory: Path | None, new: bool) -> None:
    if directory is None:
        run.execute(directory, new)
        return
    with resumable("train", directory):
        run.execute(directory, new)
