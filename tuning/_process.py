"""A process of a search on this machine, the chief or a worker: started by `_workers`, imported by nobody."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from ._distributed import CHIEF, place, serve
from ._settings import SearchSettings, kept_data, training_set
from ._tuner import make_tuner
from ._worker import work

__all__ = ["main"]


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, whatever became of it."""

    def watch() -> None:
        os.read(0, 1)  # the parent never writes; its end closes the pipe
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def main(folder: Path) -> None:
    """Chief or worker of the search in `folder`, as keras-tuner's environment variables say."""
    _end_with_parent()
    position = place()
    assert position is not None
    settings = SearchSettings.load(folder)
    try:
        if position.role == CHIEF:
            serve(make_tuner(settings, folder).oracle, position.address)
        else:
            work(settings, folder, position, training_set(kept_data(settings, folder), settings.seed))
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
