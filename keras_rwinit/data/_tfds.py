"""tensorflow-datasets: find a prepared set, or prepare it, or say plainly why not."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "DatasetNotFoundError",
    "find_builder",
    "import_tfds",
    "iterate_examples",
    "no_progress",
    "open_builder",
    "quiet",
    "read_batch",
    "read_examples",
]

# TFDS itself retries an unreachable host for more than three minutes.
_CONNECT_SECONDS = 10.0


class DatasetNotFoundError(ValueError):
    """A data set is neither prepared in the folder searched nor could be downloaded there."""


def open_builder(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    *,
    preparation_needs: str | None = None,
) -> Any:
    """Returns the `tfds.core.DatasetBuilder` of a set that is prepared on disk.

    Args:
        name: TFDS name.
        data_dir: Folder of prepared sets. `None`: the environment variable TFDS_DATA_DIR, or
            where that is unset TFDS's default, `~/tensorflow_datasets`.
        download: Whether to download and prepare a set that is not there.
        preparation_needs: A module that preparing (not reading) this set imports.

    Raises:
        ImportError: If tensorflow-datasets, or `preparation_needs` where it is needed, is missing.
        DatasetNotFoundError: If the set is not there and is not, or cannot be, downloaded.
    """
    tfds = import_tfds()
    builder = find_builder(name, data_dir, lambda folder: tfds.builder(name, data_dir=folder))
    with quiet():
        if builder.is_prepared():
            return builder
        if not download:
            raise DatasetNotFoundError(
                f'Data set "{name}" is not prepared in {builder.data_dir_root} (looked for '
                f"{builder.data_dir}), and download=False forbids fetching it. {_way_out(name)}"
            )
        _download(builder, preparation_needs)
    return builder


def find_builder(
    name: str, data_dir: str | os.PathLike[str] | None, make: Callable[[str | os.PathLike[str] | None], Any]
) -> Any:
    """Returns the builder of a set, prepared or not there at all, but never one that is half there.

    Args:
        name: TFDS name, for messages.
        data_dir: As for `open_builder`.
        make: Gives the builder for a folder, `None` being TFDS's default.

    Raises:
        DatasetNotFoundError: If the set is there and cannot be read, as a whole or at all.
    """
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or None
    with quiet():
        try:
            builder = make(folder)
        except Exception as error:
            where = f"{folder or '~/tensorflow_datasets'}/{name}"
            raise _incomplete(name, where) from error
        if not builder.is_prepared() and builder.data_path.exists():
            raise _incomplete(name, builder.data_dir)
    return builder


def read_batch(builder: Any, split: str) -> dict[str, Any]:
    """Returns a whole split of equally shaped examples as one array for each feature."""
    import tensorflow_datasets as tfds

    once = tfds.ReadConfig(try_autocache=False)
    with quiet(), _readable(builder):
        whole = builder.as_dataset(split=split, batch_size=-1, read_config=once)
        return dict(tfds.as_numpy(whole))


def read_examples(builder: Any, split: str) -> list[dict[str, Any]]:
    """Returns the examples of a split, whose shapes may differ, in the order on disk."""
    return list(iterate_examples(builder, split))


def iterate_examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yields what `read_examples` returns, holding one example at a time."""
    import tensorflow_datasets as tfds

    once = tfds.ReadConfig(try_autocache=False)
    with quiet(), _readable(builder):
        yield from tfds.as_numpy(builder.as_dataset(split=split, read_config=once))


def import_tfds() -> Any:
    """Returns the module, or says which extra brings it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow  # noqa: F401
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "This data set is read by tensorflow-datasets and TensorFlow, and "
            f'{error.name or "one of them"} is missing: `pip install "keras-rwinit[data]"`. '
            'The set "digits" needs neither.'
        ) from error
    return tfds


def _download(builder: Any, preparation_needs: str | None) -> None:
    """Downloads and prepares, after one quick request that shows whether the host answers."""
    if not _has_downloads(builder):
        _request_once(builder)
    if preparation_needs and importlib.util.find_spec(preparation_needs) is None:
        raise ImportError(
            f'Preparing the data set "{builder.name}" needs the package {preparation_needs}: '
            '`pip install "keras-rwinit[data]"`.'
        )
    try:
        with no_progress():
            builder.download_and_prepare()
    except Exception as error:
        raise _not_downloaded(builder, error) from error


def _has_downloads(builder: Any) -> bool:
    """Tells whether finished downloads lie there from earlier, so that no host need answer."""
    files = pathlib.Path(builder.data_dir_root, "downloads", builder.name).rglob("*")
    return any(file.is_file() and ".tmp." not in str(file) for file in files)


def _request_once(builder: Any) -> None:
    import requests

    for url in list(builder.url_infos or {})[:1]:
        try:
            requests.head(url, timeout=_CONNECT_SECONDS).close()
        except requests.RequestException as error:
            raise _not_downloaded(builder, error) from error


@contextlib.contextmanager
def _readable(builder: Any) -> Iterator[None]:
    """Turns TFDS's and TensorFlow's complaints about files on disk into one of ours."""
    import tensorflow as tf

    try:
        yield
    except (AssertionError, KeyError, OSError, ValueError, tf.errors.OpError) as error:
        raise _incomplete(builder.name, builder.data_dir) from error


def _incomplete(name: str, folder: str) -> DatasetNotFoundError:
    return DatasetNotFoundError(
        f'Data set "{name}" in {folder} is incomplete or damaged, as a preparation that was cut '
        "off leaves it. Delete that folder and load the set again, or pass the `data_dir` of a "
        "complete copy."
    )


def _not_downloaded(builder: Any, error: Exception) -> DatasetNotFoundError:
    return DatasetNotFoundError(
        f'Data set "{builder.name}" is not prepared in {builder.data_dir_root} (looked for '
        f"{builder.data_dir}), and downloading it failed with {type(error).__name__}. Check the "
        f"network and the free space in that folder. {_way_out(builder.name)}"
    )


def _way_out(name: str) -> str:
    return (
        f'On a machine with network run `keras_rwinit.data.load("{name}", data_dir=FOLDER)` (or '
        f"`tfds build {name} --data_dir FOLDER`), copy FOLDER here, and pass it as `data_dir` or "
        'set TFDS_DATA_DIR to it. The set "digits" needs no network.'
    )


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """Holds back that TFDS announces a download on stdout and draws progress bars on stderr."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back log messages below ERROR of the libraries at work."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
