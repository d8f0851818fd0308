"""Access to tensorflow-datasets: finds a set or prepares it, with errors that say what to do."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from ._source import StrPath

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

__all__ = [
    "DatasetNotFoundError",
    "Example",
    "find_builder",
    "import_tfds",
    "iterate_examples",
    "no_progress",
    "open_builder",
    "quiet",
    "read_batch",
    "read_examples",
    "readable",
]

# Arrays of one example, or of a batch, by feature. Their dtypes differ; text is `bytes`.
Example: TypeAlias = dict[str, Any]

# TFDS itself retries an unreachable host for more than three minutes.
_CONNECT_SECONDS = 10.0


class DatasetNotFoundError(ValueError):
    """A data set is not prepared in the directory searched and could not be downloaded there.

    The message says which directory that is, and how to get the data set there.

    Example:
        >>> from keras_rwinit import data
        >>> try:
        ...     data.load("mnist", data_dir="/no/data/there", download=False)
        ... except data.DatasetNotFoundError as error:
        ...     print(str(error).partition(" (")[0])
        Data set "mnist" is not prepared in /no/data/there
    """


def open_builder(
    name: str,
    data_dir: StrPath | None,
    download: bool,
    *,
    preparation_needs: str | None = None,
) -> tfds.core.DatasetBuilder:
    """Returns the builder of a set that is prepared on disk, after preparing it if need be.

    Args:
        name: TFDS name.
        data_dir: Directory of prepared sets. `None`: the environment variable TFDS_DATA_DIR, or
            TFDS's default, `~/tensorflow_datasets`, if that is unset.
        download: Whether to download and prepare a set that is not there.
        preparation_needs: A module that TFDS imports to prepare this set, but not to read it.

    Raises:
        ImportError: If tensorflow-datasets is missing, or `preparation_needs` when it is needed.
        DatasetNotFoundError: If the set is not there and is not, or cannot be, downloaded.
    """
    tfds = import_tfds()
    builder = find_builder(name, data_dir, lambda directory: tfds.builder(name, data_dir=directory))
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
    name: str, data_dir: StrPath | None, make: Callable[[StrPath | None], tfds.core.DatasetBuilder]
) -> tfds.core.DatasetBuilder:
    """Returns a data set's builder; raises if the set is only partly prepared.

    Args:
        name: TFDS name, for messages.
        data_dir: As for `open_builder`.
        make: Returns the builder for a directory; `None` is TFDS's default.

    Raises:
        DatasetNotFoundError: If the set is there but is incomplete or cannot be read.
    """
    directory = data_dir or os.environ.get("TFDS_DATA_DIR") or None
    with quiet():
        try:
            builder = make(directory)
        except Exception as error:
            where = f"{directory or '~/tensorflow_datasets'}/{name}"
            raise _incomplete(name, where) from error
        with readable(builder):
            is_partly_there = not builder.is_prepared() and builder.data_path.exists()
        if is_partly_there:
            raise _incomplete(name, builder.data_dir)
    return builder


def read_batch(builder: tfds.core.DatasetBuilder, split: str) -> Example:
    """Returns a whole split, whose examples have one shape, as one array for each feature."""
    import tensorflow_datasets as tfds

    # TFDS's cache would hold the whole set in memory a second time.
    once = tfds.ReadConfig(try_autocache=False)
    with quiet(), readable(builder):
        whole = builder.as_dataset(split=split, batch_size=-1, read_config=once)
        return dict(tfds.as_numpy(whole))


def read_examples(builder: tfds.core.DatasetBuilder, split: str) -> list[Example]:
    """Returns the examples of a split, whose shapes may differ, in the order on disk."""
    return list(iterate_examples(builder, split))


def iterate_examples(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[Example]:
    """Yields the examples that `read_examples` returns, and holds one at a time."""
    import tensorflow_datasets as tfds

    once = tfds.ReadConfig(try_autocache=False)
    with quiet(), readable(builder):
        yield from tfds.as_numpy(builder.as_dataset(split=split, read_config=once))


def import_tfds() -> ModuleType:
    """Returns the module tensorflow_datasets, or raises an ImportError that names the extra."""
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


def _download(builder: tfds.core.DatasetBuilder, preparation_needs: str | None) -> None:
    """Downloads and prepares, after one short request that shows whether the host answers."""
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


def _has_downloads(builder: tfds.core.DatasetBuilder) -> bool:
    """Returns whether downloads finished earlier are there, in which case no host is needed."""
    files = pathlib.Path(builder.data_dir_root, "downloads", builder.name).rglob("*")
    return any(file.is_file() and ".tmp." not in str(file) for file in files)


def _request_once(builder: tfds.core.DatasetBuilder) -> None:
    """Raises DatasetNotFoundError if the host of the downloads does not answer."""
    import requests

    for url in list(builder.url_infos or {})[:1]:
        try:
            requests.head(url, timeout=_CONNECT_SECONDS).close()
        except requests.RequestException as error:
            raise _not_downloaded(builder, error) from error


@contextlib.contextmanager
def readable(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Replaces the errors of TFDS and TensorFlow about files on disk by a DatasetNotFoundError.

    Damaged JSON takes any form: text that is none, other types than expected, missing entries.
    """
    import tensorflow as tf

    try:
        yield
    except DatasetNotFoundError:
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
        tf.errors.OpError,
    ) as error:
        raise _incomplete(builder.name, builder.data_dir) from error


def _incomplete(name: str, directory: str) -> DatasetNotFoundError:
    return DatasetNotFoundError(
        f'Data set "{name}" in {directory} is incomplete or damaged, for example because its '
        "preparation was interrupted. Delete that directory and load the set again, or pass the "
        "`data_dir` of a complete copy."
    )


def _not_downloaded(builder: tfds.core.DatasetBuilder, error: Exception) -> DatasetNotFoundError:
    return DatasetNotFoundError(
        f'Data set "{builder.name}" is not prepared in {builder.data_dir_root} (looked for '
        f"{builder.data_dir}), and downloading it failed with {type(error).__name__}. Check the "
        f"network and the free space in that directory. {_way_out(builder.name)}"
    )


def _way_out(name: str) -> str:
    return (
        f'On a machine with a network connection run `keras_rwinit.data.load("{name}", data_dir=DIRECTORY)` '
        f"(or `tfds build {name} --data_dir DIRECTORY`), copy DIRECTORY here, and pass it as `data_dir` or "
        'set TFDS_DATA_DIR to it. The set "digits" needs no download.'
    )


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """Discards TFDS's announcements on stdout and its progress bars on stderr."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discards log messages below ERROR of TFDS, TensorFlow and urllib3."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
