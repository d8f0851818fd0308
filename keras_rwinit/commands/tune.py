"""`keras-rwinit tune`: a search for gain and width around the analytic optimum, by one process or many."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

import typer
from rich.table import Table

from keras_rwinit import data
from keras_rwinit._checks import check_count
from keras_rwinit._files import latest_run, new_directory, write_atomically
from keras_rwinit.models.model_zoo import presets
from keras_rwinit.plots import new_figure

from .options import (
    BEST_DISTRIBUTION,
    INTEGER,
    RUNS,
    DataDir,
    Seed,
    can_draw,
    console,
    given_options,
    plain_errors,
    print_text,
    resumable,
)

if TYPE_CHECKING:
    from keras_rwinit.tuning import SearchResult
    from keras_rwinit.tuning.search_job import SearchJob

__all__ = ["tune"]

_preset = presets["digits_tanh_100"]
_WITH_RESUME = ("output", "resume", "workers")  # options that a resumed search takes

Parsed: TypeAlias = Any
"""What a parser below returns; Typer takes no unions, such as `float | tuple[float, float] | list[float]`."""


# Names have commas of their own in parentheses, as in `shaped(gelu, depth=100)`.
_COMMA = re.compile(r",(?![^(]*\))")


class SpaceOption(TypedDict):
    """Arguments of `typer.Option` for a hyperparameter."""

    parser: Callable[[str], Parsed]
    metavar: str


def _space_option(kind: type[int] | type[float] | type[str], name: str, metavar: str) -> SpaceOption:
    """Returns an option that takes `VALUE`, `LOW:HIGH` or `A,B,C`."""

    def parse(text: str) -> Parsed:
        try:
            if ":" in text and kind is not str:
                low, high = text.split(":")
                return kind(low), kind(high)
            values = [kind(part.strip()) for part in _COMMA.split(text)]
        except ValueError as error:
            raise typer.BadParameter(
                f"it must be {name}, a range LOW:HIGH or choices A,B. Received: {text}"
            ) from error
        return values[0] if len(values) == 1 else values

    return {"parser": parse, "metavar": metavar}


_INTEGERS = _space_option(int, "an integer", "SPACE")
_NUMBERS = _space_option(float, "a number", "SPACE")
_NAMES = _space_option(str, "a name", "NAME[,NAME...]")


def _parse_network(text: str) -> tuple[int, int]:
    try:
        depth, width = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise typer.BadParameter(f"it must be DEPTHxWIDTH, as in 100x64. Received: {text}") from error
    return depth, width


@plain_errors
def tune(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(help=f"{', '.join(data.available())}.")] = _preset.recipe.dataset,
    data_dir: DataDir = None,
    gain_ratio: Annotated[
        Parsed, typer.Option(**_NUMBERS, help="Gain divided by the analytic gain.")
    ] = "0.8:1.25",
    width: Annotated[Parsed, typer.Option(**_INTEGERS, help="Units of a hidden layer.")] = "16:64",
    depth: Annotated[Parsed, typer.Option(**_INTEGERS, help="Number of hidden layers.")] = "100",
    activation: Annotated[Parsed, typer.Option(**_NAMES, help="Activation of the hidden layers.")] = "relu",
    distribution: Annotated[
        Parsed,
        typer.Option(
            **_NAMES,
            help=f"Distribution of the kernels; {BEST_DISTRIBUTION}",
        ),
    ] = None,
    input_gain_ratio: Annotated[
        Parsed,
        typer.Option(**_NUMBERS, help="Gain of the first kernel divided by its default in deep_mlp."),
    ] = "1",
    output_gain_ratio: Annotated[
        Parsed,
        typer.Option(**_NUMBERS, help="Gain of the output layer divided by its default in deep_mlp."),
    ] = "1",
    learning_rate: Annotated[
        Parsed,
        typer.Option(
            **_NUMBERS,
            help="Learning rate; default: 1.92 / (depth x width) of each network, at most 0.001.",
        ),
    ] = None,
    optimizer: Annotated[Parsed, typer.Option(**_NAMES, help="Keras optimizer.")] = _preset.recipe.optimizer,
    max_parameters: Annotated[
        int | None, typer.Option(**INTEGER, help="Parameter budget; the depth then follows from the width.")
    ] = None,
    same_parameters_as: Annotated[
        Parsed,
        typer.Option(
            parser=_parse_network,
            metavar="DEPTHxWIDTH",
            help="Use this network's number of parameters as the budget, e.g. 100x64.",
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="val_loss, loss, val_accuracy or accuracy, after the last epoch.")
    ] = "val_loss",
    trials: Annotated[int, typer.Option(**INTEGER, help="Networks to try.")] = 20,
    epochs: Annotated[int, typer.Option(**INTEGER, help="Passes over the training set in a trial.")] = 2,
    batch: Annotated[int, typer.Option(**INTEGER, help="Examples per step.")] = _preset.recipe.batch_size,
    executions: Annotated[int, typer.Option(**INTEGER, help="Networks trained in a trial.")] = 1,
    seeds: Annotated[
        int, typer.Option(**INTEGER, help="Fresh runs of the best and the analytic point; 0 for none.")
    ] = 3,
    workers: Annotated[
        int,
        typer.Option(
            **INTEGER,
            help="Worker processes on this machine; with more than 1, a chief process is started too.",
        ),
    ] = 1,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="New directory for the search; default: runs/tune-N.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(help="Resume the interrupted search in --output; default: the latest in runs/."),
    ] = False,
) -> None:
    """Search gain and width, starting at the analytic optimum.

    SPACE is a value (fixed), a range LOW:HIGH or choices A,B,C.

    To search on several machines, start the command on each of them, with one shared directory --output.

    Set KERASTUNER_TUNER_ID there ("chief" on one machine, other names on the others).

    Set KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT there, the address of the chief.
    """
    # Imported here: keras-tuner is optional, and `--help` works without it.
    from keras_rwinit.tuning import DeepMLPHyperModel
    from keras_rwinit.tuning.search_job import SearchJob
    from keras_rwinit.tuning.settings import SearchOptions

    draw = can_draw()
    check_count("workers", workers)
    if resume:
        output = output or latest_run(RUNS, "tune")
        job = _resume_job(context, output, workers)
    else:
        found = data.load(dataset, data_dir)
        space = DeepMLPHyperModel(
            (found.features,),
            found.classes,
            gain_ratio=gain_ratio,
            width=width,
            depth=depth,
            activation=activation,
            distribution=distribution,
            input_gain_ratio=input_gain_ratio,
            output_gain_ratio=output_gain_ratio,
            learning_rate=learning_rate,
            optimizer=optimizer,
            max_parameters=max_parameters,
            same_parameters_as=same_parameters_as,
        )
        options = SearchOptions(
            objective=objective,
            trials=trials,
            epochs=epochs,
            batch_size=batch,
            executions_per_trial=executions,
            seeds=seeds,
            seed=seed,
        )
        job = SearchJob(dataset, space, options, data_dir=data_dir, workers=workers, verbose=1)
    # Each machine would count up its own numbered directories.
    if output is None and job.role is not None:
        raise ValueError("Name the directory that the machines of the search share: --output DIRECTORY.")
    directory = output or new_directory(None, RUNS, "tune")
    with resumable("tune", directory, *(["--workers", str(workers)] if workers > 1 else [])):
        result = job.run(directory, resume)
    if job.role is not None and job.role.kind == "worker":
        print_text("The search is over; its chief writes the table.")
    else:
        if draw:
            _draw(directory / "landscape.png", result)
        _report(result, directory)


def _resume_job(context: typer.Context, output: Path | None, workers: int) -> SearchJob:
    """Returns the search that began in `output`; other options may not contradict its settings."""
    from keras_rwinit.tuning.search_job import SearchJob

    if output is None:
        raise ValueError(f"There is no search to resume in {RUNS}/: name its directory with --output.")
    given = given_options(context, but=_WITH_RESUME)
    if given:
        raise ValueError(f"A resumed search keeps its settings; leave out {', '.join(given)}.")
    return SearchJob.from_directory(output, workers=workers, verbose=1)


def _draw(path: Path, result: SearchResult) -> None:
    figure, ax = new_figure()
    result.plot_landscape(ax)
    write_atomically(path, figure.savefig)


def _report(result: SearchResult, directory: Path) -> None:
    """Prints the table, the reasons of failed trials and the summary."""
    console.print(_result_table(result))
    for row in result:
        if row.reason is not None:
            print_text(f"Trial {row.trial} failed: {row.reason}")
    print_text(result.summary())
    print_text(f"Written to {directory}")


def _result_table(result: SearchResult) -> Table:
    """Returns the trials, the best first and the failed ones last."""
    tuned = list(result[0].others) if len(result) else []
    title = f"Trials by {result.objective}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True)
    columns = ("trial", "ratio", "gain", "width", "depth", "parameters", *tuned)
    for column in (*columns, "drift", "spread", result.objective, "seconds"):
        table.add_column(column, justify="right")
    for row in (*result.ranking, *(row for row in result if row.score is None)):
        table.add_row(
            str(row.trial),
            f"{row.gain_ratio:.4f}",
            f"{row.gain:.5f}",
            f"{row.width:,}",
            f"{row.depth:,}",
            f"{row.parameters:,}",
            *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.others.values()),
            f"{row.drift:+.4f}",
            f"{row.spread:.3f}",
            "failed" if row.score is None else f"{row.score:.4g}",
            "" if row.seconds is None else f"{row.seconds:.1f}",
        )
    return table
