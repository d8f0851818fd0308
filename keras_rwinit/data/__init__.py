"""Labelled data as flat, standardised NumPy arrays: loaders, standardisation, checks.

scikit-learn, tensorflow-datasets and TensorFlow are imported by the first call that needs them;
`pip install "keras-rwinit[data]"` brings tensorflow-datasets.
"""

from keras_rwinit.data._checks import validate
from keras_rwinit.data._dataset import Dataset
from keras_rwinit.data._load import available, load
from keras_rwinit.data._standardise import standardise
from keras_rwinit.data._tfds import DatasetNotFoundError

__all__ = [
    "Dataset",
    "DatasetNotFoundError",
    "available",
    "load",
    "standardise",
    "validate",
]
