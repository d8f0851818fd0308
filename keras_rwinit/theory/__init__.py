"""The walk of the back-propagated gradient's log-norm: gains, predictions, simulation. No Keras here."""

from ._analytic_gain import NoGainError
from .activations import ACTIVATIONS, Activation, resolve_activation
from .distributions import DISTRIBUTIONS
from .gains import gain, paper_gain, paper_log_variance
from .simulation import simulate_walk
from .walk import WalkPrediction, plan_width, predict_walk

__all__ = [
    "ACTIVATIONS",
    "DISTRIBUTIONS",
    "Activation",
    "NoGainError",
    "WalkPrediction",
    "gain",
    "paper_gain",
    "paper_log_variance",
    "plan_width",
    "predict_walk",
    "resolve_activation",
    "simulate_walk",
]
