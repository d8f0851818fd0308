"""Search for gain and width around the analytic optimum; installed as `keras_rwinit.tuning`.

Needs the extra `tuning`, which installs keras-tuner.
"""

if __name__ == "tuning":
    # A copy imported under this name would define every class a second time.
    raise ImportError(
        "This directory is installed as keras_rwinit.tuning: use `from keras_rwinit import tuning`."
    )

try:
    import keras_tuner  # noqa: F401
except ImportError as error:
    raise ImportError('Tuning needs keras-tuner: pip install "keras-rwinit[tuning]"') from error

from ._comparison import Comparison
from ._forecast import UntrainableTrialError
from ._landscape import plot_landscape
from ._oracle import LocalSearchOracle
from ._results import SearchResult
from ._trial_row import TrialRow
from .hypermodel import DeepMLPHyperModel, DivergedTrialError
from .search import search

__all__ = [
    "Comparison",
    "DeepMLPHyperModel",
    "DivergedTrialError",
    "LocalSearchOracle",
    "SearchResult",
    "TrialRow",
    "UntrainableTrialError",
    "plot_landscape",
    "search",
]
