"""Labeled data as flat, standardized NumPy arrays: loaders, standardization and checks.

scikit-learn, tensorflow-datasets and TensorFlow are imported by the first call that needs them.
`pip install "keras-rwinit[data]"` brings tensorflow-datasets.
"""

from ._checks import validate
from ._dataset import Dataset
from ._load import available, load
from ._standardize import standardize
from ._tfds import DatasetNotFoundError
from ._timit import load_timit
from .timit.damage import DamagedFileError

__all__ = [
    "DamagedFileError",
    "Dataset",
    "DatasetNotFoundError",
    "available",
    "load",
    "load_timit",
    "standardize",
    "validate",
]
