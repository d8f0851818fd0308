"""Settings that must stand before Keras is imported; the tests on the other back ends, in the background."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")
# Beside other busy processes the threads of a small matrix product wait for each other, a hundredfold.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

OTHERS = ("jax", "torch")

Finished = tuple[int, str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests on the other back ends are waited for at the end, and run beside all others until then."""
    items.sort(key=lambda item: item.path.name == "test_backends.py")


def pytest_collection_finish() -> None:
    """What has been imported stays, and Keras, which collects garbage at every trial, need not look at it."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def other_backends(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Finished]]]:
    """Exit code and output of the marked tests on each other back end, run if `test_backends.py` is."""
    wanted = any(item.path.name == "test_backends.py" for item in request.session.items)
    if not wanted or os.environ["KERAS_BACKEND"] in OTHERS:
        yield {}
        return
    processes: list[subprocess.Popen[str]] = []

    def run(backend: str) -> Finished:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-m", "backends and not slow", Path(__file__).parent],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        printed, _ = process.communicate()
        return process.returncode, printed

    with ThreadPoolExecutor(max_workers=1) as one_after_the_other:
        installed = [backend for backend in OTHERS if importlib.util.find_spec(backend)]
        yield {backend: one_after_the_other.submit(run, backend) for backend in installed}
        one_after_the_other.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
