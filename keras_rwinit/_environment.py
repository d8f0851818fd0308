"""The versions of what the package runs on, for a report of a fault."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import keras

from keras_rwinit._version import __version__

__all__ = ["show_versions"]

_PACKAGES = (
    "keras",
    "tensorflow",
    "jax",
    "jaxlib",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "keras-tuner",
    "tensorflow-datasets",
    "matplotlib",
    "tensorboard",
    "threadpoolctl",
    "rich",
    "typer",
    "pandas",
    "wandb",
    "mlflow",
    "mlflow-skinny",
)
"""What the package and its extras use; the names by which pip knows them."""


def show_versions() -> None:
    """Prints the versions of the package, of Python and of everything that the package uses.

    Paste the lines into a report of a fault. No package is imported for them.

    Example:
        >>> import keras_rwinit
        >>> keras_rwinit.show_versions()  # doctest: +ELLIPSIS
        keras-rwinit         ...
        Python               ...
    """
    rows = {
        "keras-rwinit": __version__,
        "Python": f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} processors",
        "Keras back end": keras.config.backend(),
    }
    for name in _PACKAGES:
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = "not installed"
    print("\n".join(f"{name:20} {version}" for name, version in rows.items()))
