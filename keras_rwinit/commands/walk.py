"""`keras-rwinit walk`: the gradient's walk through a saved model, or a fresh network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import typer

from keras_rwinit import data
from keras_rwinit._checks import check_count
from keras_rwinit._files import new_folder, write_atomically
from keras_rwinit.data import Dataset
from keras_rwinit.diagnostics import GradientWalk, gradient_walk
from keras_rwinit.models.model_zoo import deep_mlp, presets
from keras_rwinit.plots import check_matplotlib, new_figure, plot_walk

from .options import INTEGER, Seed, console, plain_errors

__all__ = ["walk"]

_preset = presets["digits_tanh_1000"]


@plain_errors
def walk(
    model: Annotated[
        Path | None, typer.Argument(help="A model saved by Keras; a fresh network if left out.")
    ] = None,
    dataset: Annotated[str, typer.Option(help=f"{', '.join(data.available())}.")] = _preset.recipe.dataset,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of prepared tensorflow-datasets sets.")
    ] = None,
    examples: Annotated[int, typer.Option(**INTEGER, help="Of the test set, to measure with.")] = 50,
    depth: Annotated[
        int | None, typer.Option(**INTEGER, help="Hidden layers of a fresh network; 100 if left out.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(**INTEGER, help="Units of its hidden layers; 100 if left out.")
    ] = None,
    activation: Annotated[str | None, typer.Option(help="Of its hidden layers; relu if left out.")] = None,
    initializer: Annotated[
        str | None, typer.Option(help="Of its kernels: random_walk (if left out) or any of Keras's.")
    ] = None,
    distribution: Annotated[
        str | None, typer.Option(help="Of its kernels under random_walk; normal if left out.")
    ] = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="New folder for picture, table and JSON; runs/walk-N if left out.")
    ] = None,
) -> None:
    """Measure the gradient's walk through a model: a picture, a table and a JSON file."""
    check_matplotlib()
    examples, seed = check_count("examples", examples), check_count("seed", seed, minimum=0)
    of_network: dict[str, Any] = {
        "depth": depth,
        "width": width,
        "activation": activation,
        "initializer": initializer,
        "distribution": distribution,
    }
    given = [f"--{name}" for name, value in of_network.items() if value is not None]
    if model is not None and given:
        raise ValueError(f"A saved model has its own layers: leave out {', '.join(given)}, or {model}.")
    network = _loaded(model) if model is not None else None
    examples_of = data.load(dataset, data_dir)
    if network is None:
        network = _fresh(examples_of, seed, **of_network)
    measured = _measured(network, examples_of, examples)
    folder = new_folder(output, Path("runs"), "walk")
    measured.save(folder / "gradient_walk.json")
    table = measured.summary()
    write_atomically(folder / "gradient_walk.txt", lambda path: path.write_text(table, encoding="utf-8"))
    figure, ax = new_figure()
    plot_walk(measured, measured.prediction, ax, label=f"mean of {len(measured.backward)} examples")
    ax.set_title(f"{network.name}: {measured.verdict}")
    write_atomically(folder / "gradient_walk.png", figure.savefig)
    console.print(table, highlight=False, soft_wrap=True)
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)


def _loaded(path: Path) -> keras.Model:
    if not path.exists():
        raise ValueError(f"There is no file {path}.")
    try:
        model = keras.saving.load_model(path)
    except Exception as error:  # of zip, HDF5, JSON or of somebody's own layer
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        raise ValueError(f"Cannot load {path} as a Keras model: {reason}") from error
    return model


def _fresh(
    examples: Dataset,
    seed: int,
    depth: int | None,
    width: int | None,
    activation: str | None,
    initializer: str | None,
    distribution: str | None,
) -> keras.Model:
    chosen: dict[str, Any] = {}
    if initializer not in (None, "random_walk"):
        chosen["kernel_initializer"] = initializer
        if distribution is not None:
            raise ValueError("--distribution is of random_walk's kernels: leave out it or --initializer.")
    elif distribution is not None:
        chosen["distribution"] = distribution
    return deep_mlp(
        100 if depth is None else depth,
        100 if width is None else width,
        activation or "relu",
        input_shape=(examples.features,),
        classes=examples.classes,
        seed=seed,
        **chosen,
    )


def _measured(model: keras.Model, examples: Dataset, count: int) -> GradientWalk:
    """With the cross-entropy of a classifier of the dataset's classes; of other models a random direction."""
    x, y = examples.x_test[:count], examples.y_test[:count]
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape[1:]):
        if math.prod(shape[1:]) != examples.features:
            raise ValueError(
                f"The model takes inputs of shape {shape[1:]}, and {examples.name} has {examples.features} "
                "features: choose another --dataset."
            )
        x = x.reshape(-1, *shape[1:])
    outputs = getattr(model, "output_shape", None)
    if not isinstance(outputs, tuple) or outputs != (None, examples.classes):
        return gradient_walk(model, x)
    values = keras.ops.convert_to_numpy(model(x, training=False)).astype(np.float64)
    probabilities = (values >= 0.0).all() and np.abs(values.sum(axis=1) - 1.0).max() < 1e-2
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)
    return gradient_walk(model, x, y, loss)
