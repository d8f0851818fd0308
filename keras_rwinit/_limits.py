"""Checks that a network fits into the memory of this machine, and a computation into an hour."""

from __future__ import annotations

import os

__all__ = ["check_duration", "check_fits", "format_bytes", "physical_memory"]

_LONGEST = 3600.0  # seconds


def physical_memory() -> int | None:
    """Returns this machine's physical memory in bytes; None if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def format_bytes(count: float) -> str:
    """Returns `count` bytes with a binary unit, as in `40.1 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024.0:
            # Three digits would turn 1,010 MiB into 1.01e+03 MiB.
            return f"{count:.3g} {unit}" if count < 999.5 else f"{count:,.0f} {unit}"
        count /= 1024.0
    return f"{count:,.0f} PiB"


def check_fits(needed: int, what: str) -> None:
    """Raises ValueError if `what`, which takes `needed` bytes, exceeds this machine's memory."""
    available = physical_memory()
    if available is not None and needed > available:
        raise ValueError(
            f"{what} takes {format_bytes(needed)}, and this machine has {format_bytes(available)} of "
            "memory. Use a smaller width or depth."
        )


def check_duration(seconds: float, what: str) -> None:
    """Raises ValueError if `what`, which takes about so many seconds, takes more than an hour."""
    if seconds > _LONGEST:
        raise ValueError(f"{what} takes about {seconds / 3600.0:,.0f} hours here. Use fewer layers.")
