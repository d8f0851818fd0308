"""`keras-rwinit walk`: the gradient's walk through a saved model, or a fresh network."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import typer
from numpy.typing import NDArray

from keras_rwinit import data, initializers, layers, optimizers  # noqa: F401  (registered for saved models)
from keras_rwinit._checks import check_count
from keras_rwinit._files import new_directory, write_atomically
from keras_rwinit._keras.names import RANDOM_WALK, check_initializer_name
from keras_rwinit.data import Dataset
from keras_rwinit.diagnostics import GradientWalk, gradient_walk
from keras_rwinit.models.model_zoo import deep_mlp
from keras_rwinit.plots import new_figure, plot_walk

from .arguments import suggest_command
from .options import INTEGER, RUNS, BestDistribution, DataDir, Seed, can_draw, plain_errors, print_text

__all__ = ["walk"]


@plain_errors
def walk(
    model: Annotated[
        Path | None, typer.Argument(help="A model saved by Keras; default: a fresh network.")
    ] = None,
    dataset: Annotated[str, typer.Option(help=f"Data set: {', '.join(data.available())}.")] = "digits",
    data_dir: DataDir = None,
    examples: Annotated[int, typer.Option(**INTEGER, help="Number of test examples to measure with.")] = 50,
    depth: Annotated[
        int | None, typer.Option(**INTEGER, help="Hidden layers of a fresh network; default: 100.")
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(**INTEGER, help="Units of a fresh network's hidden layers; default: 100."),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(help="Activation of a fresh network's hidden layers; default: relu."),
    ] = None,
    initializer: Annotated[
        str | None,
        typer.Option(help="Initializer of a fresh network: random_walk (default) or a Keras initializer."),
    ] = None,
    distribution: BestDistribution = None,
    training: Annotated[
        bool,
        typer.Option(help="Run the model as in training: batch normalization by the batch, and dropout."),
    ] = False,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="New directory for picture, table and JSON; default: runs/walk-N.")
    ] = None,
) -> None:
    """Measure the gradient's walk through a model: a picture, a table and a JSON file."""
    check_count("examples", examples)
    check_count("seed", seed, minimum=0)
    network: dict[str, str | int | None] = {
        "depth": depth,
        "width": width,
        "activation": activation,
        "initializer": initializer,
        "distribution": distribution,
    }
    chosen = {name: value for name, value in network.items() if value is not None}
    if model is not None and chosen:
        given = ", ".join(f"--{name}" for name in chosen)
        raise ValueError(f"A saved model has its own layers: leave out {given}, or {model}.")
    # Everything that can fail comes before the directory: a command that is refused leaves nothing behind.
    loaded = None if model is None else _load_model(model)
    test_data = data.load(dataset, data_dir)
    measured = _fresh_network(test_data, seed, chosen) if loaded is None else loaded
    result = _measure(measured, test_data, examples, training)
    directory = new_directory(output, RUNS, "walk", name="--output")
    _write(directory, result)
    if can_draw():
        _draw(directory / "gradient_walk.png", result, measured.name)
    print_text(result.summary())
    print_text(f"Written to {directory}")


def _load_model(path: Path) -> keras.Model:
    if not path.exists():
        suggestion = suggest_command("walk", inspect.signature(walk).parameters, [], [str(path)])
        raise ValueError(f"There is no file {path}.{f' Try: {suggestion}' if suggestion else ''}")
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # from zip, HDF5, JSON or a user's own layer
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        raise ValueError(f"Cannot load {path} as a Keras model: {reason}") from error


def _fresh_network(dataset: Dataset, seed: int, chosen: dict[str, str | int]) -> keras.Model:
    """Returns an untrained network for a data set, with the `chosen` arguments of `deep_mlp`."""
    initializer = chosen.pop("initializer", RANDOM_WALK)
    if initializer != RANDOM_WALK:
        if "distribution" in chosen:
            raise ValueError(
                "--distribution belongs to the random_walk initializer: leave out one of the two."
            )
        chosen["kernel_initializer"] = check_initializer_name(str(initializer))
    return deep_mlp(**chosen, input_shape=(dataset.features,), classes=dataset.classes, seed=seed)


def _measure(model: keras.Model, dataset: Dataset, count: int, training: bool) -> GradientWalk:
    """Returns the walk under the cross-entropy, or in a random direction if the model is no classifier."""
    x, y = _inputs_for(model, dataset, count), dataset.y_test[:count]
    _check_outputs(model, x[:1])
    outputs = getattr(model, "output_shape", None)
    if not isinstance(outputs, tuple) or outputs != (None, dataset.classes):
        return gradient_walk(model, x, training=training)
    # Values that are positive and sum to one are probabilities, whatever layer made them.
    values = keras.ops.convert_to_numpy(model(x, training=False)).astype(np.float64)
    probabilities = (values >= 0.0).all() and np.abs(values.sum(axis=1) - 1.0).max() < 1e-2
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)
    return gradient_walk(model, x, y, loss, training=training)


def _check_outputs(model: keras.Model, x: NDArray[np.float32]) -> None:
    """Raises ValueError if no output of a model passes a gradient, as indices of classes do not."""
    outputs = keras.tree.flatten(model(x, training=False))
    dtypes = [keras.backend.standardize_dtype(output.dtype) for output in outputs]
    if not any(keras.backend.is_float_dtype(dtype) for dtype in dtypes):
        raise ValueError(
            f"No gradient passes the model's outputs, which are not real numbers. Received: "
            f"{', '.join(dtypes)}; save a model that ends before its last rounding or argmax."
        )


def _inputs_for(model: keras.Model, dataset: Dataset, count: int) -> NDArray[np.float32]:
    """Returns the first test examples in the shape that a model takes."""
    x = dataset.x_test[:count]
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape[1:]):
        return x
    if math.prod(shape[1:]) != dataset.features:
        raise ValueError(
            f"The model takes inputs of shape {shape[1:]}, and {dataset.name} has {dataset.features} "
            "features: choose another --dataset."
        )
    return x.reshape(-1, *shape[1:])


def _write(directory: Path, result: GradientWalk) -> None:
    result.save(directory / "gradient_walk.json")
    table = result.summary()
    write_atomically(directory / "gradient_walk.txt", lambda path: path.write_text(table, encoding="utf-8"))


def _draw(path: Path, result: GradientWalk, name: str) -> None:
    figure, ax = new_figure()
    plot_walk(result, result.prediction, ax, label=f"mean of {len(result.backward)} examples")
    ax.set_title(f"{name}: {result.verdict}")
    write_atomically(path, figure.savefig)
