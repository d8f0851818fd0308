"""Helpers of the tests of the command line: runs in this process, and runs that are killed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keras_rwinit import cli

FILES = {
    "gradient_walk.png",
    "history.csv",
    "model.keras",
    "report.json",
    "settings.json",
    "training.png",
}


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str


def run_cli(*arguments: object) -> Finished:
    """`keras-rwinit ARGUMENTS` in this process, through the entry point of the installed command."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["keras-rwinit", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Finished(code, out.getvalue(), err.getvalue())


def refusal(*arguments: object) -> str:
    """The one line with which a command refuses `arguments`, its prefix left out."""
    finished = run_cli(*arguments)
    assert finished.code == 2, finished
    assert finished.out == ""
    assert finished.err.startswith("keras-rwinit: "), finished.err
    assert finished.err.endswith("\n")
    assert finished.err.count("\n") == 1, finished.err
    return finished.err.removeprefix("keras-rwinit: ")


def case_name(arguments: object) -> str:
    """Name of a case."""
    return " ".join(str(argument)[:12] for argument in arguments) if isinstance(arguments, tuple) else ""


def paths_in(directory: Path) -> list[Path]:
    """All that lies in a directory and below."""
    return sorted(directory.rglob("*"))


def files_in(directory: Path) -> set[str]:
    """Names of the files of a run, the lock left out."""
    return {path.name for path in directory.iterdir()} - {".lock"}


def contents_of(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of the last change of each file of a finished run."""
    return {name: ((directory / name).read_bytes(), (directory / name).stat().st_mtime_ns) for name in FILES}


def report_of(directory: Path) -> dict[str, Any]:
    """The report of a finished run."""
    report: dict[str, Any] = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    return report


@dataclass(frozen=True)
class Stop:
    """A moment at which a run is killed.

    Args:
        name: Name of the file being written or deleted.
        nth: Which of the writings or deletions of that name, counted from 1.
        how: `"half written"`, `"before its renaming"` or `"before its deletion"`.
    """

    name: str
    nth: int
    how: str


def run_until(stop: Stop | None, arguments: list[str]) -> None:
    """Runs `keras-rwinit ARGUMENTS` and dies at `stop`, as by `kill -9`; for a process of its own."""
    sys.argv = ["keras-rwinit", *arguments]
    if stop is not None:
        _kill_this_process_at(stop)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        cli.main()


def _kill_this_process_at(stop: Stop) -> None:
    """Watches this process by an audit hook, which Python calls before it renames or deletes a file."""
    watched = "os.remove" if stop.how == "before its deletion" else "os.rename"
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event != watched:
            return
        path = Path(arguments[0] if event == "os.remove" else arguments[1])
        if path.name != stop.name:
            return
        seen += 1
        if seen < stop.nth:
            return
        if stop.how == "half written":
            temporary = arguments[0]
            os.truncate(temporary, os.path.getsize(temporary) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
