"""`keras-rwinit tune`: gain and width searched around the analytic optimum, by one process or many."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from keras_rwinit import data
from keras_rwinit._checks import check_count
from keras_rwinit._files import new_folder, write_atomically
from keras_rwinit.models.model_zoo import presets
from keras_rwinit.plots import check_matplotlib, new_figure

from .options import INTEGER, Seed, console, plain_errors

if TYPE_CHECKING:
    from keras_rwinit.tuning import SearchResult
    from keras_rwinit.tuning.search_job import SearchJob

__all__ = ["tune"]

_preset = presets["digits_tanh_100"]
_FREE = ("output", "resume", "workers")  # may differ from what a search began with


def _space(kind: type[Any], names: str) -> dict[str, Any]:
    """Arguments of `typer.Option` for `VALUE`, `LOW:HIGH` or `A,B,C`."""

    def parse(text: Any) -> Any:
        if not isinstance(text, str):
            return text  # the default
        try:
            if ":" in text and kind is not str:
                low, high = text.split(":")
                return kind(low), kind(high)
            values = [kind(part) for part in text.split(",")]
        except ValueError as error:
            raise typer.BadParameter(
                f"it must be {names}, a range LOW:HIGH or choices A,B. Received: {text}"
            ) from error
        return values[0] if len(values) == 1 else values

    return {"parser": parse, "metavar": "SPACE"}


_INTEGERS, _NUMBERS = _space(int, "an integer"), _space(float, "a number")
_NAMES = {**_space(str, "a name"), "metavar": "NAME[,NAME...]"}


def _pair(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        depth, width = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise typer.BadParameter(f"it must be DEPTHxWIDTH, as in 100x64. Received: {text}") from error
    return depth, width


@plain_errors
def tune(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(help=f"{', '.join(data.available())}.")] = _preset.recipe.dataset,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of prepared tensorflow-datasets sets.")
    ] = None,
    gain_ratio: Annotated[Any, typer.Option(**_NUMBERS, help="Gain over the analytic one.")] = "0.8:1.25",
    width: Annotated[Any, typer.Option(**_INTEGERS, help="Units of a hidden layer.")] = "16:64",
    depth: Annotated[Any, typer.Option(**_INTEGERS, help="Number of hidden layers.")] = "100",
    activation: Annotated[Any, typer.Option(**_NAMES, help="Of the hidden layers.")] = "tanh",
    distribution: Annotated[Any, typer.Option(**_NAMES, help="Of the kernels.")] = "orthogonal",
    input_gain_ratio: Annotated[
        Any, typer.Option(**_NUMBERS, help="Gain of the first kernel over the other hidden ones'.")
    ] = "1",
    output_gain_ratio: Annotated[
        Any, typer.Option(**_NUMBERS, help="Gain of the classifier over a linear layer's.")
    ] = "1",
    learning_rate: Annotated[
        Any, typer.Option(**_NUMBERS, help="0.03 / depth, at most 0.001, if left out.")
    ] = None,
    optimizer: Annotated[Any, typer.Option(**_NAMES, help="Keras optimizer.")] = _preset.recipe.optimizer,
    max_parameters: Annotated[
        int | None, typer.Option(**INTEGER, help="Budget under which width and a range of depths trade.")
    ] = None,
    same_parameters_as: Annotated[
        Any, typer.Option(parser=_pair, metavar="DEPTHxWIDTH", help="The budget: that of this network.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="val_loss, loss, val_accuracy or accuracy, after the last epoch.")
    ] = "val_loss",
    trials: Annotated[int, typer.Option(**INTEGER, help="Networks to try.")] = 20,
    epochs: Annotated[int, typer.Option(**INTEGER, help="Passes over the training set a trial.")] = 2,
    batch: Annotated[int, typer.Option(**INTEGER, help="Examples a step.")] = _preset.recipe.batch_size,
    executions: Annotated[int, typer.Option(**INTEGER, help="Networks trained a trial.")] = 1,
    seeds: Annotated[
        int, typer.Option(**INTEGER, help="Fresh runs of the best and the analytic point; 0 for none.")
    ] = 3,
    workers: Annotated[
        int, typer.Option(**INTEGER, help="Processes on this machine; with more than 1, a chief besides.")
    ] = 1,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="New folder for the search; runs/tune-N if left out.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the search in --output.")] = False,
) -> None:
    """Search gain and width, from the analytic optimum outwards.

    SPACE is a value (fixed), a range LOW:HIGH or choices A,B,C.

    With KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT set, the command is the chief
    (an ID with "chief" in it) or a worker of a search over several machines that share the folder --output.
    """
    from keras_rwinit.tuning import DeepMLPHyperModel
    from keras_rwinit.tuning._processes.role import process_role
    from keras_rwinit.tuning.search_job import SearchJob

    check_matplotlib()
    check_count("workers", workers)
    shared = process_role() is not None
    if output is None and (resume or shared):
        raise ValueError("Name the folder of the search to go on with, or to take part in: --output FOLDER.")
    if resume:
        assert output is not None
        job = _begun(context, output)
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
        job = SearchJob(
            dataset,
            space,
            data_dir,
            console,
            objective=objective,
            trials=trials,
            epochs=epochs,
            batch_size=batch,
            executions_per_trial=executions,
            seeds=seeds,
            seed=seed,
        )
    job.role(workers)
    folder = output or new_folder(None, Path("runs"), "tune")
    result = job.start(folder, workers, resume)
    if shared and "chief" not in os.environ["KERASTUNER_TUNER_ID"]:
        console.print("The search is over; its chief writes the table.", highlight=False)
        return
    figure, ax = new_figure()
    result.plot_landscape(ax)
    write_atomically(folder / "landscape.png", figure.savefig)
    console.print(_table(result), highlight=False)
    for row in result:
        if row.reason is not None:
            console.print(f"Trial {row.trial} failed: {row.reason}", highlight=False, soft_wrap=True)
    console.print(result.summary, highlight=False, soft_wrap=True)
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True)


def _begun(context: typer.Context, folder: Path) -> SearchJob:
    """The search that began in `folder`, which no other option may contradict."""
    from keras_rwinit.tuning._settings import SearchSettings
    from keras_rwinit.tuning.search_job import SearchJob

    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in _FREE and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise ValueError(f"A search goes on with the settings it began with; leave out {', '.join(given)}.")
    settings = SearchSettings.load(folder)
    if not settings.data["load"]:
        raise ValueError(
            f"The search in {folder} is on data of its own: go on with keras_rwinit.tuning.search."
        )
    own = ("data", "space", "backend", "dtype_policy")
    options = {name: value for name, value in vars(settings).items() if name not in own}
    name, data_dir = settings.data["dataset"], settings.data["data_dir"]
    return SearchJob(name, settings.hypermodel(), data_dir, console, **options)


def _table(result: SearchResult) -> Table:
    """The trials, the best first, then the failed ones."""
    tuned = list(result[0].others) if len(result) else []
    title = f"Trials by {result.objective}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True)
    columns = ("trial", "ratio", "gain", "width", "depth", "parameters", *tuned)
    for column in (*columns, "drift", "spread", result.objective, "seconds"):
        table.add_column(column, justify="right")
    ranking = result.ranking
    for row in (*ranking, *(row for row in result if row.score is None)):
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
