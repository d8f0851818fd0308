"""A search while it runs: trials done, best so far, time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ._results import SearchResult, TrialRow

__all__ = ["SearchProgress"]


class SearchProgress:
    """A bar where there is a terminal to draw it on, and a line for every trial that ends."""

    def __init__(self, console: Console, trials: int, done: int) -> None:
        self.console, self.trials, self.before = console, trials, done
        self.shown: set[int] | None = None
        self.start = time.monotonic()
        columns = (
            TextColumn("  trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}"),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task: TaskID = self.bar.add_task("", total=trials, completed=done, best="", left="")

    def __enter__(self) -> SearchProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, result: SearchResult) -> None:
        """Shows what has ended since the last time."""
        ended = [row for row in result if row.status in ("COMPLETED", "FAILED")]
        if self.shown is None:  # what an earlier process has done is no news
            self.shown = {row.trial for row in ended[: self.before]} if self.before else set()
        best = result.best
        best_text = f"best {best.score:.4g} (trial {best.trial})" if best else "no score yet"
        new = len(ended) - self.before
        left = ""
        if new > 0:
            seconds = (time.monotonic() - self.start) / new * (self.trials - len(ended))
            left = f"about {_duration(seconds)} left"
        for row in ended:
            if row.trial not in self.shown:
                self.shown.add(row.trial)
                line = f"{len(self.shown)}/{self.trials} done  trial {row.trial}: {_told(row)}"
                self.console.print(f"  {line};  {best_text};  {left}", highlight=False, soft_wrap=True)
        self.bar.update(self.task, completed=len(ended), best=best_text, left=left)


def _told(row: TrialRow) -> str:
    score = f"{row.score:.4g}" if row.score is not None else f"failed: {row.reason}"
    return f"gain ratio {row.gain_ratio:.4f}, width {row.width}, {score}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
