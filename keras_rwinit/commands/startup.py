"""What the command line does before its imports: libraries are quiet, Ctrl-C is one line."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["handle_interrupts", "is_command", "print_any_text", "silence_imports"]

# For terminals that lack them. Other characters are printed as in "\\u2207".
_SPELLINGS = {"δ": "delta", "∂": "d", "±": "+-", "─": "-", "━": "=", "…": "...", "−": "-"}


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


def print_any_text() -> None:
    """Lets standard output take characters that its encoding does not have, as standard error does.

    Such are the symbols of the tables on a terminal that is not UTF-8, and the bytes of a path that is not.
    """
    codecs.register_error("keras-rwinit", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test or a notebook puts other objects there
            stream.reconfigure(errors="keras-rwinit")


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Returns what is written in place of the characters that could not be encoded, and where they end."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    spelled = (_SPELLINGS.get(character) or ascii(character)[1:-1] for character in text)
    return "".join(spelled), error.end
