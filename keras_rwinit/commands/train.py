"""`keras-rwinit train`: a very deep network, next to the same one under another initializer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import keras
import typer

from keras_rwinit import data
from keras_rwinit._checks import check_count, check_positive, did_you_mean
from keras_rwinit._files import latest_run, new_directory
from keras_rwinit._keras.activations import concrete_activation, theory_activation
from keras_rwinit._keras.names import RANDOM_WALK
from keras_rwinit.models import model_zoo
from keras_rwinit.models.kernel_defaults import kernel_defaults
from keras_rwinit.training.run import TrainingRun
from keras_rwinit.training.settings import Settings
from keras_rwinit.training.strategies.select import STRATEGIES

from .options import (
    INTEGER,
    NUMBER,
    RUNS,
    Activation,
    BestDistribution,
    DataDir,
    Depth,
    Seed,
    Width,
    can_draw,
    console,
    given_options,
    plain_errors,
    resumable,
)

__all__ = ["train"]

_MAIN_JOB = "digits_tanh_1000"
_main_job = model_zoo.presets[_MAIN_JOB]


def _use_preset(context: typer.Context, name: str | None) -> str | None:
    """Makes a preset's network and recipe the defaults of those options that do not depend on others."""
    if name is None:
        return None
    if name not in model_zoo.presets:
        raise typer.BadParameter(
            f"it must be one of {', '.join(model_zoo.presets)}. Received: {name!r}"
            f"{did_you_mean(name, model_zoo.presets)}"
        )
    network, recipe = model_zoo.presets[name].config, model_zoo.presets[name].recipe
    context.default_map = {
        "depth": network["depth"],
        "width": network["width"],
        "activation": network["activation"],
        "dataset": recipe.dataset,
        "optimizer": recipe.optimizer,
        "cosine_decay": recipe.cosine_decay,
        "batch": recipe.batch_size,
        "epochs": recipe.epochs,
    }
    return name


class _Kernels(NamedTuple):
    """The settings of the random walk's kernels and of the biases."""

    distribution: str
    input_gain: float | None
    output_gain: float | None
    bias_stddev: float | None


def _choose_kernels(
    preset: model_zoo.Preset,
    activation: str,
    depth: int,
    width: int,
    *,
    distribution: str | None,
    input_gain: float | None,
    output_gain: float | None,
    bias_stddev: float | None,
) -> _Kernels:
    """Returns the settings of the kernels; those that are None are chosen.

    They are the preset's if the activation is the preset's. With another activation they are the defaults of
    `deep_mlp`, which train with any activation.
    """
    config = preset.config if activation == preset.config["activation"] else {}
    bias_stddev = _first_given(bias_stddev, config.get("bias_stddev"))
    defaults = kernel_defaults(
        theory_activation(concrete_activation(activation, depth), width),
        width,
        config.get("distribution") if distribution is None else distribution,
        random_biases=bias_stddev is not None,
    )
    return _Kernels(
        distribution=defaults.distribution,
        input_gain=_first_given(input_gain, config.get("input_gain"), defaults.input_gain),
        output_gain=_first_given(output_gain, config.get("output_gain"), defaults.output_gain),
        bias_stddev=bias_stddev,
    )


def _first_given(*values: float | None) -> float | None:
    """Returns the first value that is not None, if there is one."""
    return next((value for value in values if value is not None), None)


@plain_errors
def train(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Option(
            callback=_use_preset,
            is_eager=True,  # before the options whose defaults it sets
            help="Network and recipe; other options override them. Its distribution and gains are for its "
            "activation, and its learning rate is for its depth and width. One of: "
            f"{', '.join(model_zoo.presets)}.",
        ),
    ] = None,
    dataset: Annotated[
        str, typer.Option(help=f"Data set: {', '.join(data.available())}.")
    ] = _main_job.recipe.dataset,
    data_dir: DataDir = None,
    depth: Depth = _main_job.config["depth"],
    width: Width = _main_job.config["width"],
    activation: Activation = _main_job.config["activation"],
    distribution: BestDistribution = None,
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

    Without options: 1000 hidden tanh layers on 8x8 handwritten digits, about two minutes on two cores.

    Strategies with TensorFlow: mirrored (all GPUs of this machine), multi-worker and tpu.

    Strategies with JAX: data-parallel and model-parallel.

    With multi-worker, start the same command on every worker in TF_CONFIG; only the chief writes.
    """
    if resume:
        _resume(context, output)
        return
    # Checked here under the names of the options; Settings has names of its own.
    depth, width = check_count("depth", depth), check_count("width", width)
    base = model_zoo.presets[preset or _MAIN_JOB]
    if learning_rate is None:
        learning_rate = _learning_rate(base, depth, width, decays=cosine_decay)
    kernels = _choose_kernels(
        base,
        activation,
        depth,
        width,
        distribution=distribution,
        input_gain=input_gain,
        output_gain=output_gain,
        bias_stddev=bias_stddev,
    )
    settings = Settings(
        dataset=dataset,
        data_dir=None if data_dir is None else str(data_dir.resolve()),
        depth=depth,
        width=width,
        activation=str(concrete_activation(activation, depth)),
        distribution=kernels.distribution,
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
        input_gain=kernels.input_gain,
        output_gain=kernels.output_gain,
        bias_stddev=kernels.bias_stddev,
    )
    run = TrainingRun(settings, console, draw=can_draw())
    # Made last: a command that is refused leaves nothing behind.
    directory = None
    if run.strategy.chief:
        directory = new_directory(output, RUNS, "train", name="--output", resume="--resume")
    _execute(run, directory, new=True)


def _learning_rate(preset: model_zoo.Preset, depth: int, width: int, *, decays: bool) -> float:
    """Returns the preset's learning rate for its own network, else that of the size."""
    recipe = preset.recipe
    if (depth, width, decays) == (preset.config["depth"], preset.config["width"], recipe.cosine_decay):
        return recipe.learning_rate
    return model_zoo.learning_rate(depth, width, decays=decays)


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
