"""Files that are never half-written, directories that are never overwritten, and those that are damaged."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
from cli_helpers import files_in, paths_in, refusal, run_cli

from keras_rwinit._files import (
    latest_run,
    locked,
    new_directory,
    read_json,
    read_settings,
    write_atomically,
    write_json,
    write_secret,
    write_settings,
)
from keras_rwinit.training import run as training_run


def test_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    for content in ("first", "second"):
        write_atomically(path, lambda temporary, content=content: temporary.write_text(content))
        assert path.read_text() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_writer_that_fails_leaves_what_was_there(
    before: str | None, error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "result.txt"
    if before is not None:
        path.write_text(before)

    def write(temporary: Path) -> None:
        temporary.write_text("half of it")
        raise error

    with pytest.raises(error):
        write_atomically(path, write)
    assert [file.read_text() for file in tmp_path.iterdir()] == ([] if before is None else [before])


def test_the_temporary_file_has_the_same_ending_in_the_same_directory(tmp_path: Path) -> None:
    """`savefig` and `save` choose the format by the ending; a rename must stay on one file system."""
    seen: list[Path] = []

    def write(temporary: Path) -> None:
        seen.append(temporary)
        temporary.write_bytes(b"")

    write_atomically(tmp_path / "model.keras", write)
    assert seen[0].suffix == ".keras"
    assert seen[0].parent == tmp_path
    assert seen[0] != tmp_path / "model.keras"


def test_json_has_null_for_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    content = {
        "a": float("nan"),
        "b": [float("inf"), (-float("inf"), 1.5)],
        "c": {"d": None, "e": "é", "f": 2},
    }
    write_json(path, content)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"a": None, "b": [None, [None, 1.5]], "c": {"d": None, "e": "é", "f": 2}}
    assert "NaN" not in text
    assert "Infinity" not in text
    assert text.endswith("}\n")


def test_json_has_names_for_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "walk.json"
    write_json(path, {"a": float("nan"), "b": [float("inf"), (-float("inf"), 1.5)]}, non_finite="name")
    assert read_json(path) == {"a": "nan", "b": ["inf", ["-inf", 1.5]]}


def test_settings_keep_tuples_and_lists_apart(tmp_path: Path) -> None:
    settings = {"width": (8, 16), "activation": ["tanh", "relu"], "data": {"shape": ((64,),), "seed": None}}
    write_settings(tmp_path, settings)
    assert read_settings(tmp_path, "search", dict) == settings
    assert read_json(tmp_path / "settings.json")["width"] == {"tuple": [8, 16]}


@pytest.mark.parametrize("error", [AttributeError, KeyError, OverflowError, RecursionError, TypeError])
def test_settings_that_are_not_whole_are_named(error: type[Exception], tmp_path: Path) -> None:
    def make(settings: dict[str, Any]) -> None:
        raise error

    write_settings(tmp_path, {})
    with pytest.raises(ValueError, match=r"no search to resume in .*settings\.json is damaged"):
        read_settings(tmp_path, "search", make)
    with pytest.raises(ValueError, match=r"no run to resume in .*absent: .*settings\.json is missing"):
        read_settings(tmp_path / "absent", "run", dict)


def test_json_that_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_named_directory(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "down"
    assert new_directory(directory, tmp_path / "runs", "train") == directory
    assert directory.is_dir()
    assert new_directory(directory, tmp_path / "runs", "train") == directory  # empty as yet
    (directory / "mine").touch()
    with pytest.raises(ValueError, match=r"down is not empty.*another --output.*--resume"):
        new_directory(directory, tmp_path / "runs", "train", name="--output", resume="--resume")
    with pytest.raises(ValueError, match=r"down is not empty\. A run never .*\. Choose another directory\.$"):
        new_directory(directory, tmp_path / "runs", "train")
    assert not (tmp_path / "runs").exists()


def test_unnamed_directories_are_numbered(tmp_path: Path) -> None:
    parent = tmp_path / "runs"
    (parent / "train-2").mkdir(parents=True)
    names = [new_directory(None, parent, "train").name for _ in range(3)]
    assert names == ["train-3", "train-4", "train-5"]  # above all, so that the numbers tell the order
    assert new_directory(None, parent, "tune").name == "tune-1"


def test_the_latest_run_has_the_highest_number_whatever_the_clock_says(tmp_path: Path) -> None:
    assert latest_run(tmp_path / "runs", "train") is None
    runs = [new_directory(None, tmp_path / "runs", prefix) for prefix in ["train"] * 11 + ["tune"]]
    for number, run in enumerate(runs[:-2]):  # the last was killed before it began
        write_settings(run, {})
        os.utime(run / "settings.json", (-number, -number))
    (tmp_path / "runs/train-12").touch()
    (tmp_path / "runs/train-best").mkdir()
    assert latest_run(tmp_path / "runs", "train") == runs[-2] == tmp_path / "runs/train-11"
    with pytest.raises(
        ValueError, match=r"train-11: .*settings\.json is missing. Start it again with all its"
    ):
        read_settings(runs[-2], "run", dict)


def test_what_a_run_leaves_that_was_killed_before_it_began_is_no_content(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with locked(new_directory(directory, tmp_path, "train")):
        (directory / ".partial-1-settings.json").touch()
    with locked(new_directory(directory, tmp_path, "train")):
        assert {path.name for path in directory.iterdir()} == {".lock"}
    (directory / ".mine").touch()
    with pytest.raises(ValueError, match="not empty"):
        new_directory(directory, tmp_path, "train")


DAMAGED_JSON = {
    "nothing": b"",
    "cut off": b'{"a": [1, 2',
    "not UTF-8": b'{"a": "\xff"}',
    "nested too deeply": b"[" * 100_000,
    "a number of too many digits": b"1" * 5000,
}


@pytest.mark.parametrize("content", DAMAGED_JSON.values(), ids=DAMAGED_JSON)
def test_damaged_json_is_one_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"report\.json is not a JSON file: "):
        read_json(path)


def test_a_secret_is_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    before = os.umask(0)
    try:
        write_secret(path, "new")
    finally:
        os.umask(before)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("below", ["", "run", "run/further"])
def test_directory_that_cannot_be_made(below: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match=r"Cannot write to .*file.*another --output"):
        new_directory(file / below, tmp_path, "train", name="--output")
    with pytest.raises(ValueError, match=r"Cannot write to .*file.*another directory"):
        new_directory(None, file / below, "train")
    assert list(tmp_path.iterdir()) == [file]


def test_a_directory_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    other = tmp_path / "other"
    other.mkdir()
    with locked(tmp_path):
        with pytest.raises(ValueError, match="Another process is at work on the run in"), locked(tmp_path):
            pytest.fail("held twice")
        with locked(other):
            pass
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


def test_a_directory_without_locks_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked(tmp_path), locked(tmp_path):
        pass


@pytest.mark.parametrize("command", [("gain",), ("plan", "--width", 10)], ids=lambda c: c[0])
def test_results_are_written_to_new_files_only(
    command: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("old", encoding="utf-8")
    line = refusal(*command, "--output", "taken")
    assert "taken exists" in line
    assert "Choose another --output" in line
    line = refusal(*command, "--output", "taken/below.json")
    assert "taken/below.json" in line
    assert "another --output" in line
    assert paths_in(tmp_path) == [tmp_path / "taken"]
    assert Path("taken").read_text(encoding="utf-8") == "old"


def test_runs_are_written_to_new_directories_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("used").mkdir()
    Path("used/mine.txt").write_text("mine", encoding="utf-8")
    for output, message in (
        ("used", "used is not empty.*--resume"),
        ("used/mine.txt", "mine.txt.*another --output"),
        ("used/mine.txt/below", "mine.txt/below.*another --output"),
    ):
        line = refusal("train", "--depth", 3, "--width", 16, "--output", output)
        assert re.search(message, line), line
    assert paths_in(tmp_path) == [tmp_path / "used", tmp_path / "used/mine.txt"]


SETTINGS: dict[str, Any] = {
    "dataset": "digits",
    "data_dir": None,
    "depth": 3,
    "width": 16,
    "activation": "tanh",
    "distribution": "orthogonal",
    "initializer": "random_walk",
    "compare": None,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "cosine_decay": True,
    "batch_size": 256,
    "epochs": 2,
    "seed": 0,
    "backend": keras.backend.backend(),
}
DAMAGE: list[Any] = [
    "",
    "{",
    "[]",
    "null",
    "{}",
    "\0\0\0",
    {"more": 1},
    {"depth": "x"},
    {"batch_size": "32"},
    {"learning_rate": None},
    {"epochs": 0},
    {"seed": -1},
    {"optimizer": 7},
    {"initializer": None},
    {"dataset": ["digits"]},
    {"seed": float("inf")},
    "[" * 100_000,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: str(damage)[:20])
def test_damaged_settings(damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        training_run, "train_classifier", lambda *args, **kwargs: pytest.fail("training began")
    )
    if isinstance(damage, dict):
        damage = json.dumps(SETTINGS | damage)
    (tmp_path / "settings.json").write_text(damage, encoding="utf-8")
    line = refusal("train", "--resume", "--output", tmp_path)
    assert "settings.json" in line
    assert files_in(tmp_path) == {"settings.json"}


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"networks": {"a": {"diverged": 0}}}', "[" * 10_000], ids=len
)
def test_damaged_report(content: str, tmp_path: Path) -> None:
    write_json(tmp_path / "settings.json", SETTINGS)
    (tmp_path / "report.json").write_text(content, encoding="utf-8")
    finished = run_cli("train", "--resume", "--output", tmp_path)
    assert finished.code == 2
    assert re.search(r"report\.json is damaged\. Delete it", finished.err), finished.err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"], ids=["empty", "cut off"])
def test_damaged_checkpoint(content: bytes, tmp_path: Path) -> None:
    write_json(tmp_path / "settings.json", SETTINGS)
    (tmp_path / "checkpoint-random_walk.npz").write_bytes(content)
    finished = run_cli("train", "--resume", "--output", tmp_path)
    assert finished.code == 2
    assert finished.err.count("\n") == 1
    assert "checkpoint-random_walk.npz" in finished.err
