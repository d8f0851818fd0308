"""Processes that are killed at their k-th file operation below a directory, in earnest or as good as.

`KILLER` is the code of a `sitecustomize` module that watches a process and its children by an audit hook,
which Python calls before it opens, renames or deletes a file. `killed_at` does the same in this process: from
the k-th operation on, each raises, so that the files are left as a killed process leaves them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHANGES = """
import os

def changes(event, arguments, directory):
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in (mode or "") for letter in "wax+") or (
            mode is None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    else:
        path, writes = (arguments or [None])[0], event in (
            "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")
    return bool(writes) and isinstance(path, str | os.PathLike) and (
        os.path.abspath(path) + os.sep).startswith(directory + os.sep)
"""

KILLER = (
    CHANGES
    + """
import fcntl, signal, sys

def watch(directory, counter, kth):
    def hook(event, arguments):
        if changes(event, arguments, directory):
            with open(counter, "a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(".")
                file.flush()
                if os.fstat(file.fileno()).st_size == kth:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

if "KILL_BELOW" in os.environ:
    watch(os.environ["KILL_BELOW"], os.environ["KILL_COUNTER"], int(os.environ["KILL_AT"]))
"""
)


class Killed(BaseException):
    """Stands for a `kill -9`: no code of the package may catch it."""


class _Watched:
    directory = ""
    left = 0
    seen = 0


_changes: dict[str, Any] = {}
exec(CHANGES, _changes)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _Watched.directory and _changes["changes"](event, arguments, _Watched.directory):
        _Watched.seen += 1
        if _Watched.seen >= _Watched.left:
            raise Killed


_installed: list[bool] = []


@contextlib.contextmanager
def killed_at(kth: int, directory: Path) -> Iterator[None]:
    """Lets the `kth` file operation below `directory`, and all later ones, raise `Killed`."""
    if not _installed:  # a hook cannot be removed
        sys.addaudithook(_hook)
        _installed.append(True)
    _Watched.directory, _Watched.left, _Watched.seen = os.path.abspath(directory), kth, 0
    try:
        yield
    finally:
        _Watched.directory = ""
