"""Directories that are never overwritten, files that are never half-written, and the JSON in them."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

__all__ = [
    "DAMAGE",
    "check_new",
    "delete_partial_files",
    "has_settings",
    "latest_run",
    "locked",
    "new_directory",
    "read_json",
    "read_settings",
    "write_atomically",
    "write_json",
    "write_secret",
    "write_settings",
]

T = TypeVar("T")

DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged file raises, such as RecursionError for JSON of a thousand brackets."""

# Marks temporary files. `locked` deletes those that a killed process left.
_PARTIAL = ".partial-"
_SETTINGS = "settings.json"
_LOCK = ".lock"


def new_directory(
    path: Path | None, parent: Path, prefix: str, *, name: str = "directory", resume: str | None = None
) -> Path:
    """Makes the directory of a new run and returns it.

    Args:
        path: The directory; it must not exist, or be empty but for what a run leaves that was killed before
            it began. `None`: `parent/prefix-N`, with an N above all that exist.
        parent: Directory of the unnamed runs.
        prefix: Prefix of their names.
        name: What the caller's user knows the directory as, such as `"--output"`; for the messages.
        resume: What continues the run in a directory, such as `"--resume"`; for the messages.

    Raises:
        ValueError: The directory has something in it or cannot be made.
    """
    try:
        return _make_numbered(parent, prefix) if path is None else _make_empty(path, name, resume)
    except OSError as error:
        raise ValueError(
            f"Cannot write to {error.filename or path}: {error.strerror}. Choose another {name}."
        ) from error


def _make_empty(path: Path, name: str, resume: str | None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    # The lock and temporary files are all that a run writes before its settings, with which it begins.
    if any(entry.name != _LOCK and not entry.name.startswith(_PARTIAL) for entry in path.iterdir()):
        way_out = f", or resume the run in it with {resume}" if resume else ""
        raise ValueError(
            f"{path} is not empty. A run never overwrites files. Choose another {name}{way_out}."
        )
    return path


def _make_numbered(parent: Path, prefix: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    # Above the last, so that the numbers tell the order of the runs.
    for number in itertools.count(1 + max(_numbered(parent, prefix), default=0)):
        # `mkdir` fails if another process has just made the same directory: two runs never share one.
        with contextlib.suppress(FileExistsError):
            path = parent / f"{prefix}-{number}"
            path.mkdir()
            return path
    raise AssertionError("unreachable: itertools.count does not end")


def _numbered(parent: Path, prefix: str) -> dict[int, Path]:
    """Returns what lies at `parent/prefix-N`, by N."""
    found = ((re.fullmatch(f"{re.escape(prefix)}-([0-9]+)", path.name), path) for path in parent.glob("*"))
    return {int(match[1]): path for match, path in found if match}


def check_new(path: Path, name: str = "file", *, overwrite: bool | None = None) -> None:
    """Raises ValueError if `path`, which the user gave as `name`, exists and must not be overwritten.

    Args:
        path: The file.
        name: What the caller's user knows it as, such as `"--output"`; for the message.
        overwrite: The caller's argument of that name; None if it has none, as a command.
    """
    if not overwrite and path.exists():
        way_out = "" if overwrite is None else ", or pass overwrite=True"
        raise ValueError(f"{path} exists, and nothing is overwritten. Choose another {name}{way_out}.")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it to `path`.

    A reader of `path` sees the old file or the new one, whole, however the process ends.
    """
    # The same directory, since a rename is atomic within a file system only, and the same ending, by which
    # Keras and Matplotlib choose the format.
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


def write_secret(path: Path, secret: str) -> None:
    """Writes text to a file that only the user of this process can read, atomically."""

    def write(temporary: Path) -> None:
        # The mode is that of a new file: one that is opened to all and closed later has been open.
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret)

    write_atomically(path, write)


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except DAMAGE as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is not a JSON file: {reason}") from error


def delete_partial_files(directory: Path) -> None:
    """Deletes the temporary files of processes that were killed while they wrote."""
    for partial in directory.glob(f"{_PARTIAL}*"):
        partial.unlink(missing_ok=True)


def write_settings(directory: Path, settings: Mapping[str, object]) -> None:
    """Writes the settings of a run or search to its directory; tuples are kept apart from lists."""
    write_json(directory / _SETTINGS, _mark_tuples(dict(settings)))


def has_settings(directory: Path) -> bool:
    """Returns whether a run or search began in a directory."""
    return (directory / _SETTINGS).exists()


def latest_run(parent: Path, prefix: str) -> Path | None:
    """Returns the directory of the unnamed run with the highest number; None if there is none.

    That run may have been killed before it began. The order is that of the numbers, since a clock can be
    turned back.

    Args:
        parent: Directory of the unnamed runs.
        prefix: Prefix of their names.
    """
    runs = {number: path for number, path in _numbered(parent, prefix).items() if path.is_dir()}
    return runs[max(runs)] if runs else None


def read_settings(directory: Path, what: str, make: Callable[[dict[str, Any]], T]) -> T:
    """Returns `make` of the settings that `write_settings` left in a directory.

    Args:
        directory: The directory.
        what: What was begun in it, for the message: `"run"` or `"search"`.
        make: Takes the settings and may raise one of `DAMAGE` if they are not whole.

    Raises:
        ValueError: The settings are missing or damaged.
    """
    path = directory / _SETTINGS
    try:
        return make(_restore_tuples(read_json(path)))
    except FileNotFoundError as error:
        # Killed before it began, the command can be given again for the same directory.
        way_out = " Start it again with all its options." if directory.is_dir() else ""
        raise ValueError(
            f"There is no {what} to resume in {directory}: {path} is missing.{way_out}"
        ) from error
    except (OSError, *DAMAGE) as error:
        raise ValueError(f"There is no {what} to resume in {directory}: {path} is damaged.") from error


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
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes out of a run's directory while this one works in it.

    The system releases the lock when the process ends, however it ends. Where there are no such locks
    (Windows) nothing is kept out.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    # The lock is a file that nothing replaces: a lock on a replaced file excludes nobody.
    with open(directory / _LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"Another process is at work on the run in {directory}.") from error
        # A process that was killed while it wrote leaves its temporary file; nobody else holds the lock.
        delete_partial_files(directory)
        yield
