"""The console of commands and searches: it prints text as it is."""

from __future__ import annotations

from rich.console import Console

__all__ = ["make_console"]


def make_console(*, quiet: bool = False) -> Console:
    """Returns a console on which brackets in a path, a name or an error are not taken for markup.

    Args:
        quiet: Whether nothing is printed.
    """
    return Console(quiet=quiet, markup=False, emoji=False, highlight=False)
