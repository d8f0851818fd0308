"""The public modules, which the tests of the reference and of the docstrings go through."""

from __future__ import annotations

# Modules with names of their own. `models` and `diagnostics` are where the package's own names are from.
MODULES = (
    "keras_rwinit",
    "keras_rwinit.callbacks",
    "keras_rwinit.data",
    "keras_rwinit.data.timit",
    "keras_rwinit.diagnostics",
    "keras_rwinit.initialization",
    "keras_rwinit.initializers",
    "keras_rwinit.layers",
    "keras_rwinit.models",
    "keras_rwinit.models.model_zoo",
    "keras_rwinit.optimizers",
    "keras_rwinit.plots",
    "keras_rwinit.sharding",
    "keras_rwinit.theory",
    "keras_rwinit.tuning",
)
