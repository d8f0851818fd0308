"""`train` and `tune`, killed at their k-th file operation: each goes on to what it would have been."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cli_helpers import report_of, run_cli
from kill_helpers import KILLER, Killed, killed_at
from tuning_helpers import few_digits, small_space, table_of

from keras_rwinit._files import has_settings
from keras_rwinit.training.run import TrainingRun
from keras_rwinit.training.strategies.base import KerasLoop

TRAIN = ("train", "--activation", "relu", "--depth", 2, "--width", 8, "--epochs", 2, "--batch", 512)
TUNE = ("tune", "--activation", "relu", "--depth", 2, "--width", 8, "--epochs", 1, "--batch", 512)
# As many trials as there are points, so that the points do not depend on the order in which trials end.
POINTS = ("--gain-ratio", "1,0.5,2", "--trials", 3)


def go_on(directory: Path, command: tuple[object, ...], *options: object) -> tuple[object, ...]:
    """The command after a kill: the same again if the run had not begun, else `--resume`."""
    begun = has_settings(directory)
    return (*((command[0], "--resume", *options) if begun else command), "--output", directory)


def check_same_run(directory: Path, undisturbed: Path) -> None:
    assert (directory / "history.csv").read_bytes() == (undisturbed / "history.csv").read_bytes()
    assert report_of(directory)["networks"] == report_of(undisturbed)["networks"]
    names = {path.name for path in directory.iterdir()}
    assert names == {path.name for path in undisturbed.iterdir()}


def table_by_point(directory: Path) -> list[tuple[str, ...]]:
    """The table without the numbers of the trials, which depend on the workers' speed."""
    columns = ("gain_ratio", "width", "score", "status", "reason")
    return sorted(tuple(row[column] for column in columns) for row in table_of(directory))


def killed_run(kth: int, directory: Path, arguments: tuple[object, ...]) -> bool:
    """Runs a command in this process; returns whether it was killed."""
    with killed_at(kth, directory), contextlib.suppress(Killed):
        finished = run_cli(*arguments, "--output", directory)
        assert (finished.code, finished.err) == (0, "")
        return False
    return True


FEW, ALL = slice(1, None, 10), slice(None)
EVERY = [
    pytest.param(FEW, id="few"),
    pytest.param(ALL, id="all", marks=[pytest.mark.slow, pytest.mark.exhaustive]),
]


@pytest.mark.parametrize("points", EVERY)
def test_train(points: slice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the networks learn is made up."""
    monkeypatch.setattr(KerasLoop, "fit", lambda self, x, y, epoch: (1.0 / (epoch + 1.0), float(y[0])))
    monkeypatch.setattr(KerasLoop, "evaluate", lambda self, x, y: (1.0, 0.5))
    monkeypatch.setattr(TrainingRun, "_measure", lambda self, name: SimpleNamespace(drift=0.0))
    monkeypatch.setattr("keras_rwinit.commands.train.can_draw", lambda: False)
    assert run_cli(*TRAIN, "--output", tmp_path / "undisturbed").code == 0
    for kth in range(1, 99)[points]:
        directory = tmp_path / f"killed-{kth}"
        if not killed_run(kth, directory, TRAIN):
            break
        finished = run_cli(*go_on(directory, TRAIN))
        assert (finished.code, finished.err) == (0, ""), kth
        check_same_run(directory, tmp_path / "undisturbed")
    assert 15 < kth < 98


def stub_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(trainer: Any, hp: Any, seed: int) -> float:
        return abs(np.log(hp.values["gain_ratio"] / 1.05)) + 1.0 / hp.values["width"] + seed * 1e-12

    monkeypatch.setattr("keras_rwinit.tuning._trainer.NetworkTrainer.train", train)


@pytest.mark.parametrize("points", EVERY)
def test_tune(points: slice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the networks score is made up."""
    tuning = pytest.importorskip("keras_rwinit.tuning")
    stub_training(monkeypatch)
    arguments: dict[str, Any] = {"trials": 3, "seeds": 2}
    undisturbed = tuning.search(
        few_digits(), small_space(), directory=tmp_path / "undisturbed", **arguments
    ).summary()
    for kth in range(1, 200)[points]:
        directory = tmp_path / f"killed-{kth}"
        with killed_at(kth, directory), contextlib.suppress(Killed):
            tuning.search(few_digits(), small_space(), directory=directory, **arguments)
            break
        result = tuning.search(
            few_digits(), small_space(), directory=directory, resume=has_settings(directory), **arguments
        )
        assert result.summary() == undisturbed, kth
        assert table_of(directory) == table_of(tmp_path / "undisturbed"), kth
    assert 30 < kth < 199


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("command", "options"),
    [
        (TRAIN, ()),
        ((*TUNE, *POINTS, "--seeds", 2), ()),
        ((*TUNE, *POINTS, "--seeds", 0, "--workers", 2), ("--workers", 2)),
    ],
    ids=["train", "tune", "tune with two workers"],
)
def test_processes_that_are_killed(
    command: tuple[object, ...], options: tuple[object, ...], tmp_path: Path
) -> None:
    """In earnest, whichever process does the k-th operation; every k."""
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    undisturbed = tmp_path / "undisturbed"
    assert run_cli(*command, "--output", undisturbed).code == 0
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    killed = 0
    for kth in range(1, 500):
        directory = tmp_path / f"killed-{kth}"
        counter = tmp_path / f"counter-{kth}"
        watched = {"KILL_BELOW": str(directory), "KILL_COUNTER": str(counter), "KILL_AT": str(kth)}
        finished = subprocess.run(
            [sys.executable, "-m", "keras_rwinit", *map(str, command), "--output", directory],
            env={**os.environ, **watched, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        # The command is killed, or says that its chief was, or ends well though a worker was.
        assert finished.returncode in (-signal.SIGKILL, 0, 2), finished
        if len(counter.read_bytes()) < kth:
            break
        killed += 1
        if finished.returncode:
            again = run_cli(*go_on(directory, command, *options))
            assert (again.code, again.err) == (0, ""), kth
        if command[0] == "train":
            check_same_run(directory, undisturbed)
        else:
            assert table_by_point(directory) == table_by_point(undisturbed), kth
    assert killed > 15
