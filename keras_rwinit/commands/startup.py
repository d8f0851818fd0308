"""TensorFlow's import without its log lines, for the command line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["handle_interrupts", "is_command", "silence_imports"]


def is_command() -> bool:
    """Whether this process is `keras-rwinit ...` or `python -m keras_rwinit ...`."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program == "-m":  # what the interpreter puts there while it imports the package of `-m`
        return "keras_rwinit" in sys.orig_argv
    return program.removesuffix(".exe") == "keras-rwinit"


def handle_interrupts() -> None:
    """Lets Ctrl-C end the process with one line and 130, also in the seconds that imports take."""
    others = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            others(kind, error, trace)
            return
        print("keras-rwinit: interrupted", file=sys.stderr, flush=True)
        os._exit(130)

    sys.excepthook = hook


@contextlib.contextmanager
def silence_imports() -> Iterator[None]:
    """Sends file descriptor 2 nowhere while importing.

    TensorFlow's libraries write to it before any of its log levels apply. Exceptions still come
    through, as Python's own.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.stderr is None:  # closed: descriptor 2 is nobody's, or somebody else's
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
