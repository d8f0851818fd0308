"""What the commands share: options, plain output, and errors in one line."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, ParamSpec, TypedDict, TypeVar

import typer

from keras_rwinit._checks import check_count
from keras_rwinit._console import make_console
from keras_rwinit._files import check_new, has_settings
from keras_rwinit.plots import check_matplotlib
from keras_rwinit.theory import DISTRIBUTIONS

__all__ = [
    "BEST_DISTRIBUTION",
    "INTEGER",
    "NUMBER",
    "RUNS",
    "Activation",
    "BestDistribution",
    "DataDir",
    "Depth",
    "Distribution",
    "JsonOutput",
    "NumberOption",
    "Samples",
    "Seed",
    "Width",
    "can_draw",
    "check_output_and_seed",
    "console",
    "given_options",
    "plain_errors",
    "print_text",
    "resumable",
]

P = ParamSpec("P")
R = TypeVar("R")

# One console for all commands, so that progress bars and lines do not disturb each other.
console = make_console()

RUNS = Path("runs")
"""Parent of the directories of commands without `--output`."""


class NumberOption(TypedDict):
    """Arguments of `typer.Option` for a number."""

    parser: Callable[[str], float]
    metavar: str


def _number_option(kind: type[int] | type[float], name: str) -> NumberOption:
    """Returns options for a number whose error message quotes the received text."""

    def parse(text: str) -> float:
        try:
            return kind(text)
        except ValueError as error:
            raise typer.BadParameter(f"it must be {name}. Received: {text}") from error

    return {"parser": parse, "metavar": name.split()[-1].upper()}


# Typer's own number options do not say what they received.
INTEGER, NUMBER = _number_option(int, "an integer"), _number_option(float, "a number")

Activation = Annotated[
    str,
    typer.Option(
        help="Activation of the hidden layers, e.g. tanh, leaky_relu(0.1) or, shaped for the depth, "
        "shaped(gelu)."
    ),
]
Width = Annotated[int, typer.Option(**INTEGER, help="Units of a hidden layer.")]
Depth = Annotated[int, typer.Option(**INTEGER, help="Number of hidden layers.")]
Distribution = Annotated[str, typer.Option(help=f"Distribution of the kernels: {', '.join(DISTRIBUTIONS)}.")]
BEST_DISTRIBUTION = (
    "default: one that trains at any depth, looks_linear for relu, leaky_relu, gelu, silu and softplus, and "
    "orthogonal for others."
)
BestDistribution = Annotated[
    str | None,
    typer.Option(
        help=f"Distribution of the kernels under random_walk: {', '.join(DISTRIBUTIONS)}; {BEST_DISTRIBUTION}"
    ),
]
Seed = Annotated[int, typer.Option(**INTEGER, help="Random seed.")]
JsonOutput = Annotated[Path | None, typer.Option(help="New JSON file for the result.")]
Samples = Annotated[int, typer.Option(**INTEGER, help="Networks to simulate as a check; 0 for none.")]
DataDir = Annotated[Path | None, typer.Option(help="Directory of prepared tensorflow-datasets sets.")]


# Arguments of the package that a command knows under another name.
_OTHER_NAMES = {"batch_size": "batch", "executions_per_trial": "executions", "name": "dataset"}


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Ends a command with one line and exit code 2 for what a user can put right, 130 for Ctrl-C.

    The line names the command's options where the error names arguments.
    """
    options = _option_names(inspect.signature(command).parameters)

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (ValueError, ImportError, OSError, MemoryError) as error:
            # Messages of libraries can have many lines, or none (MemoryError).
            message = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"keras-rwinit: {_name_options(message, options)}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as interrupt:
            typer.echo("; ".join(["keras-rwinit: interrupted", *map(str, interrupt.args)]), err=True)
            raise typer.Exit(130) from interrupt

    return wrapped


def _option_names(parameters: Collection[str]) -> dict[str, str]:
    """Returns the options of a command by the names of the arguments that they set."""
    names = {name: name for name in parameters} | _OTHER_NAMES
    return {name: _option(option) for name, option in names.items() if option in parameters}


def _option(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


def _name_options(message: str, options: Mapping[str, str]) -> str:
    """Replaces an argument's name in backquotes, or before the value that was received, by the option.

    An argument in backquotes may have a value, as in `distribution='orthogonal'`.
    """

    def replace(match: re.Match[str]) -> str:
        option = options.get(match["quoted"] or match["received"])
        if option is None:
            return match[0]
        return option if match["value"] is None else f"{option} {shlex.quote(match['value'])}"

    argument = r"`(?P<quoted>\w+)(='(?P<value>[^`']*)')?`|(?<=Received: )(?P<received>\w+)(?==)"
    return re.sub(argument, replace, message)


@contextlib.contextmanager
def resumable(command: str, directory: Path, *options: str) -> Iterator[None]:
    """Adds to Ctrl-C how to continue, if a run or search began in `directory`.

    Args:
        command: The command.
        directory: Directory of the run or search.
        options: Options to continue with, beside `--resume` and `--output`.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not has_settings(directory):
            raise
        again = ["keras-rwinit", command, "--resume", "--output", str(directory), *options]
        raise KeyboardInterrupt(f"continue with {shlex.join(again)}") from interrupt


def can_draw() -> bool:
    """Returns whether there is matplotlib for pictures; says so if there is none."""
    try:
        check_matplotlib()
    except ImportError as error:
        print_text(f"No pictures are drawn. {error}")
        return False
    return True


def print_text(text: str) -> None:
    """Prints text as it is, and breaks no line."""
    console.print(text, soft_wrap=True)


def given_options(context: typer.Context, but: Collection[str] = ()) -> list[str]:
    """Returns the options on the command line, as in `--data-dir`, those of the parameters `but` left out."""
    # Typer and Click export no common name for the enumeration of sources.
    return [
        _option(name)
        for name in context.params
        if name not in but and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]


def check_output_and_seed(output: Path | None, seed: int) -> None:
    """Raises ValueError if the output exists or the seed is negative, before anything is computed."""
    if output is not None:
        check_new(output, "--output")
    check_count("seed", seed, minimum=0)
