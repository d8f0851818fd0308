"""A process of a search on this machine, the chief or a worker, as `_workers` starts it."""

from __future__ import annotations

import sys
from pathlib import Path

import keras

from .._settings import SearchSettings, load_kept_data, training_set
from .._tuner import make_tuner
from .chief import serve
from .role import CHIEF, process_role
from .worker import work

__all__ = ["main"]


def main(folder: Path) -> None:
    """Chief or worker of the search in `folder`, as keras-tuner's environment variables say."""
    role = process_role()
    assert role is not None
    settings = SearchSettings.load(folder)
    keras.config.set_dtype_policy(settings.dtype_policy)
    try:
        if role.role == CHIEF:
            serve(make_tuner(settings, folder).oracle, role.address)
        else:
            work(settings, folder, role, training_set(load_kept_data(settings, folder), settings.seed))
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
