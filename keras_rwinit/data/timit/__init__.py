"""TIMIT: its phones, its speakers, its files, and a tensorflow-datasets builder of it.

`keras_rwinit.data.load("timit")` gives frames to classify. `Timit` is the builder, for utterances:
reading the attribute imports tensorflow-datasets and registers it, so that `tfds.load("timit")` works.

Example:
    >>> from keras_rwinit.data import timit
    >>> len(timit.PHONES), len(timit.FOLDED_PHONES)
    (61, 39)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .damage import DamagedFileError
from .phones import FOLDED_PHONES, PHONES, fold

if TYPE_CHECKING:
    from .builder import Timit

__all__ = ["FOLDED_PHONES", "PHONES", "DamagedFileError", "Timit", "fold"]


def __getattr__(name: str) -> Any:
    if name == "Timit":
        from .builder import Timit

        return Timit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
