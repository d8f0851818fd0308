"""The old name of `keras_rwinit.sharding`, which this release still takes in imports."""

import warnings

from keras_rwinit.sharding import layout_map

__all__ = ["layout_map"]

warnings.warn(
    "keras_rwinit.distribution is now keras_rwinit.sharding; the next release drops the old name.",
    DeprecationWarning,
    stacklevel=2,
)
