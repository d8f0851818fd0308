"""Folders that are never overwritten, files that are never half-written, and the JSON in them."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

__all__ = [
    "check_new",
    "delete_partial_files",
    "has_settings",
    "locked",
    "new_folder",
    "read_json",
    "read_settings",
    "write_atomically",
    "write_json",
    "write_settings",
]

T = TypeVar("T")

# Marks temporary files. `locked` deletes those that a killed process left.
_PARTIAL = ".partial-"
_SETTINGS = "settings.json"


def new_folder(
    path: Path | None, parent: Path, prefix: str, *, name: str = "folder", resume: str | None = None
) -> Path:
    """Makes the folder of a new run and returns it.

    Args:
        path: The folder; it must not exist, or be empty. `None`: `parent/prefix-N` with the first N that
            is free.
        parent: Folder of the unnamed runs.
        prefix: Prefix of their names.
        name: What the caller's user knows the folder as, such as `"--output"`; for the messages.
        resume: What continues the run in a folder, such as `"--resume"`; for the messages.

    Raises:
        ValueError: The folder has something in it or cannot be made.
    """
    try:
        return _make_numbered(parent, prefix) if path is None else _make_empty(path, name, resume)
    except OSError as error:
        raise ValueError(
            f"Cannot write to {error.filename or path}: {error.strerror}. Choose another {name}."
        ) from error


def _make_empty(path: Path, name: str, resume: str | None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        way_out = f", or resume the run in it with {resume}" if resume else ""
        raise ValueError(
            f"{path} is not empty. A run never overwrites files. Choose another {name}{way_out}."
        )
    return path


def _make_numbered(parent: Path, prefix: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        # `mkdir` fails if another process has just made the same folder: two runs never share one.
        with contextlib.suppress(FileExistsError):
            path = parent / f"{prefix}-{number}"
            path.mkdir()
            return path
    raise AssertionError("unreachable: itertools.count does not end")


def check_new(path: Path, name: str = "file") -> None:
    """Raises ValueError if `path`, which the user gave as `name`, exists."""
    if path.exists():
        raise ValueError(f"{path} exists, and nothing is overwritten. Choose another {name}.")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it to `path`.

    A reader of `path` sees the old file or the new one, whole, however the process ends.
    """
    # The same folder, since a rename is atomic within a file system only, and the same ending, by which Keras
    # and Matplotlib choose the format.
    temporary = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object, *, non_finite: Literal["null", "name"] = "null") -> None:
    """Writes `content` as JSON, atomically.

    Args:
        path: The file.
        content: What `json` can write.
        non_finite: What becomes of floats that are not finite, for which JSON has no numbers: `"null"`, or
            `"name"` for the strings "nan", "inf" and "-inf", which `float` reads.
    """
    replace: Callable[[float], str | None] = str if non_finite == "name" else lambda value: None
    # `allow_nan=False`: Python would write NaN, which other readers of JSON refuse.
    text = json.dumps(_replace_non_finite(content, replace), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _replace_non_finite(content: object, replace: Callable[[float], str | None]) -> object:
    if isinstance(content, dict):
        return {key: _replace_non_finite(value, replace) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_replace_non_finite(value, replace) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return replace(content)
    return content


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file; OSError if it cannot be read, ValueError if it is not JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def delete_partial_files(folder: Path) -> None:
    """Deletes the temporary files of processes that were killed while they wrote."""
    for partial in folder.glob(f"{_PARTIAL}*"):
        partial.unlink(missing_ok=True)


def write_settings(directory: Path, settings: Mapping[str, object]) -> None:
    """Writes the settings of a run or search to its folder; tuples are kept apart from lists."""
    write_json(directory / _SETTINGS, _mark_tuples(dict(settings)))


def has_settings(directory: Path) -> bool:
    """Returns whether a run or search began in a folder."""
    return (directory / _SETTINGS).exists()


def read_settings(directory: Path, what: str, make: Callable[[dict[str, Any]], T]) -> T:
    """Returns `make` of the settings that `write_settings` left in a folder.

    Args:
        directory: The folder.
        what: What was begun in it, for the message: `"run"` or `"search"`.
        make: Takes the settings and may raise AttributeError, KeyError, TypeError or ValueError if they
            are not whole.

    Raises:
        ValueError: The settings are missing or damaged.
    """
    path = directory / _SETTINGS
    try:
        return make(_restore_tuples(read_json(path)))
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"There is no {what} to resume in {directory}: {path} is missing or damaged."
        ) from error


def _mark_tuples(value: object) -> object:
    """Turns tuples into `{"tuple": [...]}`: a tuned range is not a list of choices."""
    if isinstance(value, dict):
        return {key: _mark_tuples(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {"tuple": [_mark_tuples(item) for item in value]}
    return value


def _restore_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"tuple"}:
            return tuple(_restore_tuples(item) for item in value["tuple"])
        return {key: _restore_tuples(item) for key, item in value.items()}
    return value


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder while this one works in it.

    The system releases the lock when the process ends, however it ends. Where there are no such locks
    (Windows) nothing is kept out.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    # The lock is a file that nothing replaces: a lock on a replaced file excludes nobody.
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"Another process is at work on the run in {folder}.") from error
        # A process that was killed while it wrote leaves its temporary file; nobody else holds the lock.
        delete_partial_files(folder)
        yield
