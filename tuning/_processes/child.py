"""Entry point of the processes that `launch` starts: the chief or a worker of a search on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import keras

from .._data import load_saved_data, split_training_set
from .._trainer import NetworkTrainer
from .._tuner import make_tuner
from ..settings import SearchSettings
from .channel import make_token
from .chief import serve
from .role import process_role
from .worker import run_worker

__all__ = ["main"]


def main(directory: Path) -> None:
    """Runs the chief or a worker of the search in `directory`, as keras-tuner's environment variables say."""
    role = process_role()
    assert role is not None
    settings = SearchSettings.load(directory)
    # A new process starts with Keras's default policy.
    keras.config.set_dtype_policy(settings.dtype_policy)
    try:
        if role.kind == "chief":
            serve(make_tuner(settings, directory).oracle, role.address, make_token(directory))
        else:
            data = split_training_set(load_saved_data(settings.data, directory), settings.seed)
            run_worker(NetworkTrainer(settings.make_hypermodel(), settings, data), directory, role)
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
