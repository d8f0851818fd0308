"""What the commands share: options, and errors in one line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from keras_rwinit.theory import DISTRIBUTIONS

__all__ = [
    "INTEGER",
    "NUMBER",
    "Activation",
    "Depth",
    "Distribution",
    "JsonOutput",
    "Samples",
    "Seed",
    "Width",
    "console",
    "plain_errors",
]

P = ParamSpec("P")
R = TypeVar("R")

console = Console()


def _number(kind: type[Any], name: str) -> dict[str, Any]:
    """Arguments of `typer.Option` for a number, whose message names what was received."""

    def parse(text: Any) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise typer.BadParameter(f"it must be {name}. Received: {text}") from error

    return {"parser": parse, "metavar": name.split()[-1].upper()}


INTEGER, NUMBER = _number(int, "an integer"), _number(float, "a number")

Activation = Annotated[str, typer.Option(help="Of the hidden layers, as in leaky_relu(0.1).")]
Width = Annotated[int, typer.Option(**INTEGER, help="Units of a hidden layer.")]
Depth = Annotated[int, typer.Option(**INTEGER, help="Number of hidden layers.")]
Distribution = Annotated[str, typer.Option(help=f"Of the kernels: {', '.join(DISTRIBUTIONS)}.")]
Seed = Annotated[int, typer.Option(**INTEGER, help="Of everything that is drawn.")]
JsonOutput = Annotated[Path | None, typer.Option(help="New JSON file to write the result to.")]
Samples = Annotated[int, typer.Option(**INTEGER, help="Networks to simulate as a check; 0 for none.")]


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """One line and exit code 2 for what a user can put right; 130 for Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (ValueError, ImportError, OSError, MemoryError) as error:
            message = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"keras-rwinit: {message}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as interrupt:
            typer.echo("keras-rwinit: interrupted", err=True)
            raise typer.Exit(130) from interrupt

    return wrapped
