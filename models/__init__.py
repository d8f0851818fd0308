"""Very deep networks ready to train; installed as `keras_rwinit.models`."""

if __name__ == "models":
    # A second copy under this name would register its classes over those of `keras_rwinit.models`.
    raise ImportError(
        "This directory is installed as keras_rwinit.models: use `from keras_rwinit import model_zoo`."
    )

from keras_rwinit.models import model_zoo

__all__ = ["model_zoo"]
