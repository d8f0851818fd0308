"""The tests marked `backends`, run on every other installed back end of Keras in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
OTHER_BACKENDS = ("jax", "torch")
# The layer has a loop for each back end and runs on all of them by default, the other files in the slow run.
CORE = ("layers/test_dense_stack.py",)
# Files that compile for minutes on JAX; they run on the other back ends by hand.
LONGEST = (
    "_keras/test_evaluation.py",
    "_probing/test_loss_of_keras.py",
    "_probing/test_out_of_sight.py",
    "_tracing/test_runs_on_arrays.py",
    "diagnostics/test_walks_of_any_model.py",
    "layers/test_adapted_stacks.py",
    "layers/test_round_trips.py",
    "models/test_autoencoder.py",
    "models/test_stacking.py",
    "oracle/test_oracle.py",
    "test_callbacks.py",
    "test_optimizers.py",
)
_LOSS_OF_KERAS = "_probing/test_loss_of_keras.py::test_the_gradient_is_that_of_the_loss_that_keras_computes"
# What those files and others are for; the slow run has these tests on the other back ends too.
ESSENTIAL = (
    "_keras/test_evaluation.py::test_functions_of_the_back_end",
    "_keras/test_evaluation.py::test_what_cannot_be_evaluated_is_never_linear_silently",
    "_keras/test_evaluation.py::test_prelu_that_was_never_called[calibrate]",
    f"{_LOSS_OF_KERAS}[own compute_loss]",
    f"{_LOSS_OF_KERAS}[heads]",
    "_probing/test_out_of_sight.py::test_it_is_measured_as_though_it_ran_plainly",
    "_probing/test_out_of_sight.py::test_what_no_call_reaches_is_named",
    "_probing/test_out_of_sight.py::test_quantized_models_are_measured[int8]",
    "_tracing/test_runs_on_arrays.py::test_order_and_activations_are_the_true_ones[True-NeedsTraining]",
    "diagnostics/test_walks_of_any_model.py::test_subclassed_models_and_layers_of_layers",
    "initialization/test_own_layers.py::test_a_kernel_may_have_any_name",
    "layers/test_adapted_stacks.py::TestLora::test_the_walk_is_that_of_dense_layers",
)
# Most of the time on JAX is its compiler's; without its optimizations it is a fifth less.
UNOPTIMIZED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
pytestmark = pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] in OTHER_BACKENDS, reason="this process runs on one of them"
)


def run_on(backend: str, marks: str, *arguments: str | Path, **settings: str) -> None:
    """Runs tests on a back end in another process; they must pass, and there must be some."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed: pip install "keras-rwinit[{backend}]"')
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-m", marks, *arguments],
        env={**os.environ, "KERAS_BACKEND": backend, **settings},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-6000:]
    assert " passed" in finished.stdout


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_core_files_pass_on(backend: str) -> None:
    run_on(backend, "backends and not slow", *(TESTS / name for name in CORE), **UNOPTIMIZED)


@pytest.mark.slow
# On JAX they take two and a half minutes, most of them its compiler's.
@pytest.mark.parametrize("backend", [pytest.param("jax", marks=pytest.mark.exhaustive), "torch"])
def test_the_other_files_pass_on(backend: str) -> None:
    ignored = (f"--ignore={TESTS / name}" for name in (*CORE, *LONGEST))
    run_on(backend, "backends and not slow", TESTS, *ignored, **UNOPTIMIZED)


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_essential_tests_pass_on(backend: str) -> None:
    tests = (f"{TESTS}/{name}" for name in ESSENTIAL)
    run_on(backend, "backends and not exhaustive", *tests, **UNOPTIMIZED)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_slow_tests_pass_on(backend: str) -> None:
    run_on(backend, "backends and slow", TESTS)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_the_longest_files_pass_on(backend: str) -> None:
    run_on(backend, "backends and not slow", *(TESTS / name for name in LONGEST))
