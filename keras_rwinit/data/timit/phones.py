"""The 61 phones of TIMIT's labels, and the 39 classes in which results are reported."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FOLDED_PHONES", "PHONES", "fold"]

_GLOTTAL_STOP = "q"

# Each class of the folding and its phones.
_FOLDING = {
    "aa": ("aa", "ao"),
    "ae": ("ae",),
    "ah": ("ah", "ax", "ax-h"),
    "aw": ("aw",),
    "ay": ("ay",),
    "b": ("b",),
    "ch": ("ch",),
    "d": ("d",),
    "dh": ("dh",),
    "dx": ("dx",),
    "eh": ("eh",),
    "er": ("er", "axr"),
    "ey": ("ey",),
    "f": ("f",),
    "g": ("g",),
    "hh": ("hh", "hv"),
    "ih": ("ih", "ix"),
    "iy": ("iy",),
    "jh": ("jh",),
    "k": ("k",),
    "l": ("l", "el"),
    "m": ("m", "em"),
    "n": ("n", "en", "nx"),
    "ng": ("ng", "eng"),
    "ow": ("ow",),
    "oy": ("oy",),
    "p": ("p",),
    "r": ("r",),
    "s": ("s",),
    "sh": ("sh", "zh"),
    "sil": ("h#", "pau", "epi", "bcl", "dcl", "gcl", "pcl", "tcl", "kcl"),
    "t": ("t",),
    "th": ("th",),
    "uh": ("uh",),
    "uw": ("uw", "ux"),
    "v": ("v",),
    "w": ("w",),
    "y": ("y",),
    "z": ("z",),
}

FOLDED_PHONES: tuple[str, ...] = tuple(sorted(_FOLDING))
PHONES: tuple[str, ...] = tuple(sorted([*(p for group in _FOLDING.values() for p in group), _GLOTTAL_STOP]))

_CLASS_OF = {phone: FOLDED_PHONES.index(name) for name, group in _FOLDING.items() for phone in group}
# -1 stands for the glottal stop, which no class of the folding contains.
_FOLDED = np.array([_CLASS_OF.get(phone, -1) for phone in PHONES], np.int32)


def fold(phones: NDArray[np.integer]) -> NDArray[np.int32]:
    """Maps indices into `PHONES` to indices into `FOLDED_PHONES`; -1 where a phone has no class.

    The glottal stop, q, has no class: Lee and Hon remove it, since it is not a phoneme of English.
    -1 stays -1.

    Args:
        phones: Indices into `PHONES`, or -1; any shape.

    Returns:
        int32, same shape.

    Raises:
        ValueError: If an entry is neither an index into `PHONES` nor -1.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data.timit import FOLDED_PHONES, PHONES, fold
        >>> phones = np.array([PHONES.index("zh"), PHONES.index("q"), -1])
        >>> fold(phones).tolist(), FOLDED_PHONES[fold(phones)[0]]
        ([29, -1, -1], 'sh')

    References:
        K.-F. Lee and H.-W. Hon, "Speaker-independent phone recognition using hidden Markov models",
        IEEE Transactions on Acoustics, Speech and Signal Processing 37, 1989.
    """
    phones = np.asarray(phones)
    integers = np.issubdtype(phones.dtype, np.integer)
    if not integers or (phones.size and (phones.min() < -1 or phones.max() >= len(PHONES))):
        values = f", values from {phones.min()} to {phones.max()}" if integers and phones.size else ""
        raise ValueError(
            f"`phones` must be integers from -1 to {len(PHONES) - 1}. Received: dtype {phones.dtype}{values}"
        )
    # -1 reads the last entry, which `where` then discards.
    return np.where(phones < 0, np.int32(-1), _FOLDED[phones])
