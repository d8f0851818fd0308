"""A process of a search on this machine, the chief or a worker, as `_workers` starts it."""

from __future__ import annotations

import sys
from pathlib import Path

import keras

from ._distributed import CHIEF, place, serve
from ._settings import SearchSettings, kept_data, training_set
from ._tuner import make_tuner
from ._worker import work

__all__ = ["main"]


def main(folder: Path) -> None:
    """Chief or worker of the search in `folder`, as keras-tuner's environment variables say."""
    position = place()
    assert position is not None
    settings = SearchSettings.load(folder)
    keras.config.set_dtype_policy(settings.dtype_policy)
    try:
        if position.role == CHIEF:
            serve(make_tuner(settings, folder).oracle, position.address)
        else:
            work(settings, folder, position, training_set(kept_data(settings, folder), settings.seed))
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
