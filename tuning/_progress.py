"""The progress of a running search: trials done, the best so far, the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ._oracle import ENDED
from ._results import SearchResult
from ._trial_files import trial_files
from ._trial_row import TrialRow

__all__ = ["SearchProgress"]


class SearchProgress:
    """Shows a line for every trial that ends from now on, and a bar on a terminal.

    Args:
        console: Where to show them, as text: a trial's reason may hold brackets.
        trials: Number of trials of the search.
        directory: Directory of the search.
        read: Returns the table of the trials in it.
    """

    def __init__(
        self, console: Console, trials: int, directory: Path, read: Callable[[], SearchResult]
    ) -> None:
        self.console, self.trials, self.directory, self.read = console, trials, directory, read
        self.shown = {row.trial for row in read() if row.status in ENDED}
        self.ended_before = len(self.shown)
        self.times: list[int] = []
        self.start = time.monotonic()
        columns = (
            TextColumn("  trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}"),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=trials, completed=self.ended_before, best="", left="")

    def __enter__(self) -> SearchProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def refresh(self) -> None:
        """Shows the trials that have ended since the last call, if a trial's file has changed."""
        if self.console.quiet:
            return
        times = [path.stat().st_mtime_ns for path in trial_files(self.directory)]
        if times != self.times:
            self.times = times
            self._show(self.read())

    def _show(self, result: SearchResult) -> None:
        ended = [row for row in result if row.status in ENDED]
        best = result.best
        best_text = f"best {best.score:.4g} (trial {best.trial})" if best else "no score yet"
        left = self._time_left(len(ended))
        for row in ended:
            if row.trial not in self.shown:
                self.shown.add(row.trial)
                line = f"{len(self.shown)}/{self.trials} done  trial {row.trial}: {_describe(row)}"
                parts = [line, best_text, *([left] if left else [])]
                self.console.print(f"  {';  '.join(parts)}", soft_wrap=True)
        self.bar.update(self.task, completed=len(ended), best=best_text, left=left)

    def _time_left(self, ended: int) -> str:
        """Returns the time that the trials left take, in words; nothing where that is unknown or over."""
        ended_here = ended - self.ended_before
        # The comparison under fresh seeds follows the last trial, and says itself what it does.
        if ended_here <= 0 or ended >= self.trials:
            return ""
        seconds = (time.monotonic() - self.start) / ended_here * (self.trials - ended)
        return f"about {_format_duration(seconds)} left"


def _describe(row: TrialRow) -> str:
    score = f"{row.score:.4g}" if row.score is not None else f"failed: {row.reason}"
    return f"gain ratio {row.gain_ratio:.4f}, width {row.width}, {score}"


def _format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
