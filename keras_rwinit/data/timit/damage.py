"""`DamagedFileError`, which every reader of the corpus raises."""

from __future__ import annotations

__all__ = ["DamagedFileError"]


class DamagedFileError(ValueError):
    """A file of the corpus is damaged, missing or in an unknown form; the message names it."""
