"""Folders that are never overwritten and files that are never half-written."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["check_new", "locked", "new_folder", "write_atomically", "write_json"]

_PARTIAL = ".partial-"


def new_folder(path: Path | None, parent: Path, prefix: str) -> Path:
    """Makes the folder of a new run.

    Args:
        path: The folder; it must not exist, or be empty. `None`: `parent/prefix-N`, the first N that
            is free.
        parent: Where unnamed runs go.
        prefix: Of their names.

    Raises:
        ValueError: The folder has something in it or cannot be made.
    """
    try:
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ValueError(
                    f"{path} is not empty, and no run overwrites another. Choose another --output, "
                    "or go on with the run in it with --resume."
                )
            return path
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                numbered = parent / f"{prefix}-{number}"
                numbered.mkdir()
                return numbered
    except OSError as error:
        raise ValueError(
            f"Cannot write to {error.filename or path}: {error.strerror}. Choose another --output."
        ) from error
    raise AssertionError("unreachable: itertools.count does not end")


def check_new(path: Path, name: str = "file") -> None:
    """ValueError if `path`, which the user gave as `name`, exists."""
    if path.exists():
        raise ValueError(f"{path} exists, and nothing is overwritten. Choose another {name}.")


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it to `path`.

    Whoever reads `path` sees the old file or the new one, whole, however the process ends.
    """
    temporary = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as JSON, atomically; numbers that are not finite become null."""
    text = json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and content - content != 0.0:
        return None
    return content


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder while this one works in it.

    The system lets go of the lock when the process ends, however it ends. Where there are no such
    locks (Windows) nothing is kept out.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"Another process is at work on the run in {folder}.") from error
        for left in folder.glob(f"{_PARTIAL}*"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        yield
