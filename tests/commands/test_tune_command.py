"""`keras-rwinit tune`: its output, its files and its errors."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Finished, case_name, paths_in, refusal, run_cli
from tuning_helpers import TINY

pytest.importorskip("keras_tuner")

from keras_rwinit.commands.tune import _NAMES, tune
from keras_rwinit.tuning.settings import SearchOptions


def test_a_name_may_have_commas_in_parentheses() -> None:
    parse = _NAMES["parser"]
    assert parse("relu, shaped(gelu, depth=9,correlation=0.5),tanh") == [
        "relu",
        "shaped(gelu, depth=9,correlation=0.5)",
        "tanh",
    ]
    assert parse("shaped(relu)") == "shaped(relu)"


def test_the_defaults_are_those_of_search() -> None:
    short = {"batch_size": "batch", "executions_per_trial": "executions"}
    parameters = inspect.signature(tune).parameters
    for name, value in dataclasses.asdict(SearchOptions()).items():
        assert parameters[short.get(name, name)].default == value, name


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which commands run."""
    directory = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        yield directory


@pytest.fixture(scope="module")
def first(home: Path) -> Finished:
    """A small search, on an activation that Keras has no function of."""
    space = ("--gain-ratio", "0.8:1.3", "--width", "12,16", "--activation", "celu(0.5)")
    return run_cli(*TINY, *space, "--trials", 3, "--seeds", 0)


def test_shows_the_progress_the_table_and_the_sentence(first: Finished, home: Path) -> None:
    assert (first.code, first.err) == (0, "")
    lines = first.out.splitlines()
    ended = [line for line in lines if " done  trial " in line]
    assert [line.split()[0] for line in ended] == ["1/3", "2/3", "3/3"]
    assert "gain ratio 1.0000, width 16" in ended[0]
    assert all("best " in line for line in ended)
    assert [" left" in line for line in ended] == [True, True, False]  # nothing is left after the last one
    assert "Trials by val_loss" in first.out
    assert re.search(r"^Best val_loss [\d.]+: ", first.out, re.MULTILINE)
    assert f"Written to {Path('runs/tune-1')}" in first.out
    names = {path.name for path in (home / "runs/tune-1").iterdir()}
    assert names >= {"settings.json", "trials", "trials.csv", "trials.json", "landscape.png"}
    assert (home / "runs/tune-1/landscape.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((home / "runs/tune-1/trials.json").read_text(encoding="utf-8"))["summary"]
    assert summary in first.out


def test_resuming_a_finished_search_shows_it_again(first: Finished, home: Path) -> None:
    table = (home / "runs/tune-1/trials.csv").read_bytes()
    again = run_cli("tune", "--resume")  # the latest
    assert (again.code, again.err) == (0, "")
    assert " done  trial " not in again.out
    assert again.out.splitlines()[-2:] == first.out.splitlines()[-2:]
    assert (home / "runs/tune-1/trials.csv").read_bytes() == table


@pytest.mark.usefixtures("first")
def test_an_old_search_is_not_touched(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in paths_in(home / "runs")}
    assert "not empty" in refusal(*TINY, "--output", "runs/tune-1")
    assert "leave out --trials, --seed" in refusal(
        "tune", "--resume", "--output", "runs/tune-1", "--trials", 9, "--seed", 0
    )
    assert {path: path.stat().st_mtime_ns for path in paths_in(home / "runs")} == before


BAD = [
    (("--gain-ratio", "1.1:1.2"), r"--gain-ratio must contain 1.*\(1.1, 1.2\)"),
    (("--gain-ratio", "1.2:0.8"), "empty range.*(1.2, 0.8)"),
    (("--gain-ratio", "a:b"), "a number, a range LOW:HIGH or choices.*a:b"),
    (("--gain-ratio", "1", "--width", "8"), "space is a single point.*gain ratios from"),
    (("--width", "64:16"), "empty range.*(64, 16)"),
    (("--width", "1.5"), "an integer, a range.*1.5"),
    (("--width", "8:16", "--max-parameters", 100), "No width of 8 to 16.*budget of 100.*Change the budget"),
    (("--same-parameters-as", "100"), "DEPTHxWIDTH.*100"),
    (("--same-parameters-as", "3x8", "--max-parameters", 9), "Give one of"),
    (("--depth", "3,5", "--max-parameters", 10**5), "depth follows from the width"),
    (("--workers", 0), "workers.*at least 1.*0"),
    (("--workers", "two"), "workers.*integer.*two"),
    (("--trials", 0), "trials.*at least 1.*0"),
    (("--epochs", 0), "epochs.*at least 1.*0"),
    (("--batch", 0), "batch.*at least 1.*0"),
    (("--executions", 0), "--executions must be.*at least 1.*0"),
    (("--seeds", 1), "0 or at least 2.*1"),
    (("--seed", -1), "seed.*at least 0.*-1"),
    (("--objective", "auc"), "objective.*val_loss.*auc"),
    (("--activation", "rleu"), "activation.*rleu"),
    (("--optimizer", "admm"), "optimizer.*admm"),
    (("--distribution", "gauss"), "distribution.*gauss"),
    (("--dataset", "mnits"), "digits, mnist.*mnits"),
    (("--learning-rate", "0"), "--learning-rate must.*above 0"),
    (("--resume",), "no search to resume in runs/: name its directory with --output"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=case_name)
def test_bad_input_is_one_line_and_leaves_nothing(
    options: tuple[Any, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal("tune", "--trials", 1, *options)
    assert re.search(message, line), line
    assert not re.search(r"`\w+`", line)  # options are named, not arguments
    assert paths_in(tmp_path) == []


def test_nothing_to_resume(tmp_path: Path) -> None:
    line = refusal("tune", "--resume", "--output", tmp_path / "absent")
    assert "There is no search to resume in" in line
    assert paths_in(tmp_path) == []


def set_role(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"):
        if name in values:
            monkeypatch.setenv(f"KERASTUNER_{name}", str(values[name]))


def test_a_port_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        set_role(monkeypatch, TUNER_ID="chief", ORACLE_IP="127.0.0.1", ORACLE_PORT=port)
        line = refusal(*TINY, "--output", tmp_path / "run")
    assert re.search(f"chief cannot listen at 127.0.0.1:{port}: .*in use.*free port", line)
    assert paths_in(tmp_path) == []


def test_an_unreachable_chief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr("keras_rwinit.tuning._processes.heartbeat.PATIENCE", 0.5)
    set_role(monkeypatch, TUNER_ID="worker-1", ORACLE_IP="127.0.0.1", ORACLE_PORT=port)
    line = refusal(*TINY, "--output", tmp_path / "run")
    assert re.search(f"No chief answered at 127.0.0.1:{port} within 0.5 s. Start it with", line)
    assert paths_in(tmp_path) == []


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({"TUNER_ID": "chief"}, (), "Not set: KERASTUNER_ORACLE_IP, KERASTUNER_ORACLE_PORT"),
        ({"TUNER_ID": "chief", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "http"}, (), "port from 1.*'http'"),
        (
            {"TUNER_ID": "w", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": 9},
            ("--workers", 2),
            "leave --workers out",
        ),
    ],
)
def test_a_role_that_is_half_described_is_refused(
    values: dict[str, Any],
    options: tuple[Any, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_role(monkeypatch, **values)
    assert re.search(message, refusal(*TINY, *options, "--output", tmp_path / "run"))
    assert paths_in(tmp_path) == []


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("keras_rwinit.tuning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    assert 'pip install "keras-rwinit[tuning]"' in refusal(*TINY, "--output", tmp_path / "run")
    assert paths_in(tmp_path) == []
