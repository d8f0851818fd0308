"""What the command line does before its imports: it keeps libraries quiet and Ctrl-C to one line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["handle_interrupts", "is_command", "silence_imports"]


def is_command() -> bool:
    """Returns whether this process is `keras-rwinit ...` or `python -m keras_rwinit ...`."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program == "-m":  # Python puts that there while it imports the package
        return sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == ["keras_rwinit"]
    return program.removesuffix(".exe") == "keras-rwinit"


def handle_interrupts() -> None:
    """Makes Ctrl-C end the process with one line and exit code 130, even while it imports."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            previous(kind, error, trace)
            return
        print("keras-rwinit: interrupted", file=sys.stderr, flush=True)
        os._exit(130)  # the threads of a library that is half imported would keep the process alive

    sys.excepthook = hook


@contextlib.contextmanager
def silence_imports() -> Iterator[None]:
    """Discards what is written to file descriptor 2 while importing.

    TensorFlow's libraries write to it before any of its log levels apply. Exceptions still come through:
    Python prints them after the import.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.stderr is None:  # closed: descriptor 2 may belong to another file by now
        yield
        return
    # Redirects the descriptor, not `sys.stderr`: compiled code writes past Python.
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
