"""The tests marked `backends` run on TensorFlow with all others, and here on every other back end.

They take a third as long as the others, and begin beside those, one after the other, as soon as the tests
are collected (`other_backends` in conftest.py).
"""

from __future__ import annotations

import os
from concurrent.futures import Future

import pytest
from conftest import OTHERS, Finished


@pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] in OTHERS, reason="this process runs on another back end already"
)
@pytest.mark.parametrize("backend", OTHERS)
def test_marked_tests_pass_on(backend: str, other_backends: dict[str, Future[Finished]]) -> None:
    if backend not in other_backends:
        pytest.skip(f'{backend} is not installed: pip install "keras-rwinit[{backend}]"')
    code, printed = other_backends[backend].result(timeout=1800)
    assert code == 0, printed[-6000:]
    assert " passed" in printed
