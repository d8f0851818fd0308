"""keras-rwinit: random-walk initialization of very deep feed-forward networks in Keras.

Importing the package registers its initializers and layers with Keras, so that
`kernel_initializer="random_walk_relu"` works in any layer and saved models load as they are.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from ._quiet import quiet_interrupts, running_as_command, silenced_imports

if running_as_command():
    quiet_interrupts()
with silenced_imports() if running_as_command() else contextlib.nullcontext():
    from . import initializers, layers, optimizers

from ._version import __version__
from .diagnostics import GradientWalk, gradient_walk
from .initialization import InitializationReport, initialize
from .theory import (
    NoGainError,
    WalkPrediction,
    gain,
    paper_gain,
    plan_width,
    predict_walk,
    simulate_walk,
)

if TYPE_CHECKING:
    from . import callbacks, data, distribution, plots, tuning
    from .callbacks import GradientWalkCallback
    from .models import model_zoo

__all__ = [
    "GradientWalk",
    "GradientWalkCallback",
    "InitializationReport",
    "NoGainError",
    "WalkPrediction",
    "__version__",
    "callbacks",
    "data",
    "distribution",
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
    "predict_walk",
    "simulate_walk",
    "tuning",
]

# Loaded at first use: the initializers need none of it.
_LAZY = {
    "callbacks": ".callbacks",
    "data": ".data",
    "distribution": ".distribution",
    "model_zoo": ".models.model_zoo",
    "plots": ".plots",
    "tuning": ".tuning",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(_LAZY[name], __name__)
    if name == "GradientWalkCallback":
        return importlib.import_module(".callbacks", __name__).GradientWalkCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
