"""Labelled data as flat, standardised NumPy arrays: loaders, standardisation, checks.

scikit-learn, tensorflow-datasets and TensorFlow are imported by the first call that needs them;
`pip install "keras-rwinit[data]"` brings tensorflow-datasets.
"""

from keras_rwinit.data._checks import validate
from keras_rwinit.data._dataset import Dataset
from keras_rwinit.data._load import available, load
from keras_rwinit.data._standardise import standardise
from keras_rwinit.data._tfds import DatasetNotFoundError
from keras_rwinit.data._timit import load_timit
from keras_rwinit.data.timit.damage import DamagedFileError

__all__ = [
    "DamagedFileError",
    "Dataset",
    "DatasetNotFoundError",
    "available",
    "load",
    "load_timit",
    "standardise",
    "validate",
]
