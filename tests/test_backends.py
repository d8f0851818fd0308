"""The tests marked `backends`, run on every other installed back end of Keras in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

OTHER_BACKENDS = ("jax", "torch")


@pytest.mark.skipif(os.environ["KERAS_BACKEND"] in OTHER_BACKENDS, reason="this process runs on one of them")
@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_marked_tests_pass_on(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed: pip install "keras-rwinit[{backend}]"')
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "backends and not slow", Path(__file__).parent],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-6000:]
    assert " passed" in finished.stdout
