"""The tests marked `backends` run on TensorFlow with all others, and here on every other back end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

OTHERS = ("jax", "torch")


@pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] in OTHERS, reason="this process runs on another back end already"
)
@pytest.mark.parametrize("backend", OTHERS)
def test_marked_tests_pass_on(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed: pip install "keras-rwinit[{backend}]"')
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "backends and not slow",
            Path(__file__).parent,
        ],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-5000:] + finished.stderr[-2000:]
    assert " passed" in finished.stdout
