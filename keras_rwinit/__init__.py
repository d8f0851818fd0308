"""Random-walk initialization of very deep feed-forward networks in Keras.

Importing the package registers its initializers, layers and optimizers with Keras, so that
`kernel_initializer="random_walk_relu"` works in any layer and saved models load without `custom_objects`.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from keras_rwinit._backend import explain_missing_backend
from keras_rwinit._checkout import find_siblings
from keras_rwinit._version import __version__
from keras_rwinit.commands.startup import handle_interrupts, is_command

find_siblings()
if is_command():
    # A command imports what it needs itself: `keras-rwinit gain` runs without Keras.
    handle_interrupts()
else:
    try:
        from keras_rwinit import initializers, layers, optimizers
    except (ImportError, ValueError) as error:
        explained = explain_missing_backend(error)
        if explained is None:
            raise
        # The imports of Keras that led to a missing package tell nothing; those to a broken one may.
        raise explained from (None if isinstance(error, ModuleNotFoundError) else error)

if TYPE_CHECKING:
    from keras_rwinit import callbacks, data, plots, sharding, theory, tuning
    from keras_rwinit._environment import show_versions
    from keras_rwinit.callbacks import GradientWalkCallback
    from keras_rwinit.diagnostics import GradientWalk, gradient_walk
    from keras_rwinit.initialization import InitializationReport, initialize
    from keras_rwinit.models import model_zoo
    from keras_rwinit.theory import (
        CorrelationPrediction,
        NoGainError,
        WalkPrediction,
        effective_rank,
        gain,
        paper_gain,
        plan_width,
        predict_correlation,
        predict_walk,
        shape_activation,
        simulate_correlation,
        simulate_walk,
    )

__all__ = [
    "CorrelationPrediction",
    "GradientWalk",
    "GradientWalkCallback",
    "InitializationReport",
    "NoGainError",
    "WalkPrediction",
    "__version__",
    "callbacks",
    "data",
    "effective_rank",
    "gain",
    "gradient_walk",
    "initialize",
    "initializers",
    "layers",
    "model_zoo",
    "optimizers",
    "paper_gain",
    "plan_width",
    "plots",
    "predict_correlation",
    "predict_walk",
    "shape_activation",
    "sharding",
    "show_versions",
    "simulate_correlation",
    "simulate_walk",
    "theory",
    "tuning",
]

# Public names that are not modules, and the subpackage that each is imported from when it is first used.
_HOMES = {
    "CorrelationPrediction": "theory",
    "GradientWalk": "diagnostics",
    "GradientWalkCallback": "callbacks",
    "InitializationReport": "initialization",
    "NoGainError": "theory",
    "WalkPrediction": "theory",
    "effective_rank": "theory",
    "gain": "theory",
    "gradient_walk": "diagnostics",
    "initialize": "initialization",
    "model_zoo": "models",
    "paper_gain": "theory",
    "plan_width": "theory",
    "predict_correlation": "theory",
    "predict_walk": "theory",
    "shape_activation": "theory",
    "show_versions": "_environment",
    "simulate_correlation": "theory",
    "simulate_walk": "theory",
}


def __getattr__(name: str) -> Any:
    if name == "distribution":
        warnings.warn(
            "keras_rwinit.distribution is now keras_rwinit.sharding; the next release drops the old name.",
            DeprecationWarning,
            stacklevel=2,
        )
        # Kept, because `from keras_rwinit import distribution` looks twice.
        globals()[name] = importlib.import_module("keras_rwinit.sharding")
        return globals()[name]
    if name in _HOMES:
        return getattr(importlib.import_module(f"keras_rwinit.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"keras_rwinit.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
