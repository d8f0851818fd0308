"""The command line: `keras-rwinit gain | plan | train | walk | tune`."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from keras_rwinit._backend import explain_missing_backend
from keras_rwinit._version import __version__
from keras_rwinit.commands.arguments import EXAMPLES, explain_arguments
from keras_rwinit.commands.options import plain_errors
from keras_rwinit.commands.startup import print_any_text, silence_imports

__all__ = ["COMMANDS", "Command", "app", "main"]


class Command(NamedTuple):
    """The module in `commands` that defines a command, and the command's line in the list of commands."""

    module: str
    summary: str


# The list stands here because the modules are imported only when their command runs: `gain` and `plan` need
# no Keras, whose import takes seconds.
COMMANDS = {
    "gain": Command("theory", "Print the gain that makes the gradient's log-norm an unbiased random walk."),
    "plan": Command(
        "theory", "Print the width for a given spread, or the spread at a given width, before training."
    ),
    "train": Command("train", "Train a very deep network, next to the same one under another initializer."),
    "walk": Command(
        "walk", "Measure the gradient's walk through a model: a picture, a table and a JSON file."
    ),
    "tune": Command("tune", "Search gain and width, starting at the analytic optimum."),
}


class _OptionCommand(TyperCommand):
    """A command that answers arguments which it does not take with the options that they probably mean."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Returns the arguments that are left, which are none."""
        words = list(args)
        ctx.allow_extra_args = True
        extra = [str(word) for word in super().parse_args(ctx, args)]
        if extra and not ctx.resilient_parsing:
            options = [option.name for option in self.params if option.name]
            ctx.fail(explain_arguments(ctx.info_name, options, words, extra))
        return extra


class _LazyCommand(TyperCommand):
    """A command whose module is imported when the command runs or prints its own help."""

    def __init__(self, name: str, command: Command) -> None:
        super().__init__(name, help=command.summary)
        self._module, self._function = command.module, name

    def make_context(self, info_name: str | None, *args: Any, **kwargs: Any) -> Any:
        """Returns the context of the real command, which is then the one that runs."""
        holder = typer.Typer(add_completion=False)
        holder.command(info_name, cls=_OptionCommand)(
            getattr(_import_command_module(self._module), self._function)
        )
        return get_command(holder).make_context(info_name, *args, **kwargs)


@plain_errors
def _import_command_module(name: str) -> ModuleType:
    try:
        with silence_imports():
            return importlib.import_module(f"keras_rwinit.commands.{name}")
    except (ImportError, ValueError) as error:
        explained = explain_missing_backend(error)
        if explained is None:
            raise
        raise explained from error


class _CommandGroup(TyperGroup):
    """The commands. They report an error in their options in one line, like every other error."""

    def __init__(self, **settings: Any) -> None:
        commands = {name: _LazyCommand(name, command) for name, command in COMMANDS.items()}
        super().__init__(**{**settings, "commands": commands})

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Runs a command and ends the process, unless `standalone_mode` is off."""
        try:
            result = super().main(*args, **{**kwargs, "standalone_mode": False})
        except Exception as error:  # not every release of Typer exports its exceptions' base class
            message = getattr(error, "format_message", None)  # Click's usage errors have one
            if not standalone_mode or message is None:
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(message(), err=True)
            else:
                line = " ".join(message().split())
                if type(error).__name__ == "BadOptionUsage":  # an option without its value
                    command = next((word for word in sys.argv[1:] if word in EXAMPLES), "gain")
                    line += f" An example: {EXAMPLES[command]}"
                typer.echo(f"keras-rwinit: {line}", err=True)
            sys.exit(2)
        if standalone_mode:
            sys.exit(result if isinstance(result, int) else 0)
        return result


app = typer.Typer(
    name="keras-rwinit",
    cls=_CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"keras-rwinit {__version__}")
        raise typer.Exit


@app.callback()
def _describe(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Random-walk initialization of very deep feed-forward networks."""


def main() -> None:
    """Runs the command `keras-rwinit`."""
    print_any_text()
    app()
