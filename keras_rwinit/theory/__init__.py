"""The walk of the back-propagated gradient's log-norm, and the correlation of two inputs. No Keras here."""

from ._analytic_gain import NoGainError
from ._two_slopes import paper_log_variance
from .activation import Activation
from .activation_names import resolve_activation
from .activations import ACTIVATIONS
from .correlation import CorrelationPrediction, predict_correlation, simulate_correlation
from .derivatives import DerivativePrediction, input_gain, predict_derivatives
from .distributions import DISTRIBUTIONS
from .gains import gain, paper_gain
from .ranks import effective_rank
from .shaping import shape_activation
from .simulation import simulate_walk
from .walk import WalkPrediction, plan_width, predict_walk

__all__ = [
    "ACTIVATIONS",
    "DISTRIBUTIONS",
    "Activation",
    "CorrelationPrediction",
    "DerivativePrediction",
    "NoGainError",
    "WalkPrediction",
    "effective_rank",
    "gain",
    "input_gain",
    "paper_gain",
    "paper_log_variance",
    "plan_width",
    "predict_correlation",
    "predict_derivatives",
    "predict_walk",
    "resolve_activation",
    "shape_activation",
    "simulate_correlation",
    "simulate_walk",
]
