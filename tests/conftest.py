"""Settings that must stand before Keras is imported."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")
# The threads of a small matrix product wait for each other where other processes are busy: 0.42 s for an
# orthogonal kernel of width 200 beside one, 0.005 s with a single thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests on the other back ends first: they take longest, and other workers run the rest."""
    items.sort(key=lambda item: item.path.name != "test_backends.py")
