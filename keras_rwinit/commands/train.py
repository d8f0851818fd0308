"""`keras-rwinit train`: a very deep network, next to the same one under another initializer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import keras
import typer

from keras_rwinit import data
from keras_rwinit._checks import check_count, check_positive
from keras_rwinit._files import new_folder
from keras_rwinit.models.model_zoo import deep_mlp, presets
from keras_rwinit.training.run import TrainingRun
from keras_rwinit.training.settings import Settings
from keras_rwinit.training.strategies.select import STRATEGIES

from .options import INTEGER, NUMBER, Depth, Distribution, Seed, Width, console, plain_errors

__all__ = ["train"]


main_job = presets["digits_tanh_1000"]


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
            run.run_worker(folder)
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
        run.run_worker(None)
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
