"""The TIMIT corpus: its phones, and a tensorflow-datasets builder for its sentences.

`keras_rwinit.data.load("timit")` returns frames to classify. For whole sentences use the builder,
`Timit`: accessing the attribute imports tensorflow-datasets and registers the builder, so that
`tfds.load("timit")` works.

Example:
    >>> from keras_rwinit.data import timit
    >>> len(timit.PHONES), len(timit.FOLDED_PHONES)
    (61, 39)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .damage import DamagedFileError
from .phones import FOLDED_PHONES, PHONES, fold

if TYPE_CHECKING:
    from .builder import Timit

__all__ = ["FOLDED_PHONES", "PHONES", "DamagedFileError", "Timit", "fold"]


def __getattr__(name: str) -> type[Timit]:
    if name == "Timit":
        from .builder import Timit

        return Timit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
