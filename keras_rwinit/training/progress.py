"""Progress of a training run on the console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .loop import Row

__all__ = ["format_epoch", "show_progress"]


@contextmanager
def show_progress(console: Console, name: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows a bar of a network's steps if the console is a terminal; yields what advances it by one step."""
    columns = (
        TextColumn("  {task.description:>14}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total)
        yield lambda: bar.advance(task)


def format_epoch(name: str, row: Row, epochs: int) -> str:
    """Returns the line of an epoch of the network `name`."""
    return (
        f"  {name:>14}  epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['loss']:.4f}  "
        f"training {row['accuracy']:7.2%}  test {row['test_accuracy']:7.2%}"
    )
