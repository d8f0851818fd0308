"""`DamagedFileError`, which every reader of the corpus raises."""

from __future__ import annotations

__all__ = ["DamagedFileError"]


class DamagedFileError(ValueError):
    """A file of the corpus is damaged, missing or in an unknown form; the message names it.

    Example:
        >>> import pathlib, tempfile
        >>> from keras_rwinit import data
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     speaker = pathlib.Path(directory, "TIMIT", "TRAIN", "DR1", "FCJF0")
        ...     speaker.mkdir(parents=True)
        ...     for name in ("SI1027.WAV", "SI1027.PHN"):
        ...         (speaker / name).touch()
        ...     try:
        ...         data.load_timit(directory, manual_dir=directory)
        ...     except data.DamagedFileError as error:
        ...         print(str(error).splitlines()[0])
        1 of 1 sentences are damaged:
    """
