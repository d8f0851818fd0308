"""Start-up of the command line: what a command imports, and that its standard error stays empty."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from cli_helpers import run_cli

import keras_rwinit
from keras_rwinit import cli
from keras_rwinit.commands.startup import is_command, silence_imports


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        (["/usr/bin/keras-rwinit", "gain"], [], True),
        ([r"keras-rwinit.exe", "gain"], [], True),
        (["-m", "gain"], ["python", "-m", "keras_rwinit", "gain"], True),
        (["-m"], ["python", "-m", "unittest"], False),
        (["train.py", "keras-rwinit"], ["python", "train.py"], False),
        (["/home/keras-rwinit/train.py"], [], False),
        (["-c"], ["python", "-c", "import keras_rwinit"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_is_command(
    argv: list[str], orig_argv: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert is_command() is expected


def test_what_libraries_write_while_imported_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before ")
    with silence_imports():
        os.write(2, b"during ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_errors_come_through_and_writing_works_again(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportError, match="no such library"), silence_imports():
        raise ImportError("no such library")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_no_descriptor_is_left_open() -> None:
    def free() -> int:
        descriptor = os.dup(0)
        os.close(descriptor)
        return descriptor

    before = free()
    with silence_imports():
        pass
    assert free() == before


def test_a_process_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `keras-rwinit ... 2>&-` and Windows services have it."""
    monkeypatch.setattr(sys, "stderr", None)
    with silence_imports():
        pass


def test_ctrl_c_is_one_line_and_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_rwinit.commands.theory.computed_gain", interrupted)
    finished = run_cli("gain")
    assert (finished.code, finished.err) == (130, "keras-rwinit: interrupted\n")


def test_measuring_often_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """TensorFlow warns of a function that is traced again and again."""
    model = keras_rwinit.model_zoo.deep_mlp(depth=2, width=3, input_shape=(2,))
    logger = logging.getLogger("tensorflow")
    logger.addHandler(caplog.handler)
    for _ in range(7):
        keras_rwinit.gradient_walk(model, [[1.0, 2.0]])
    logger.removeHandler(caplog.handler)
    assert not caplog.records


COMMAND = """
import sys

sys.argv = ["keras-rwinit", *sys.argv[1:]]
from keras_rwinit.cli import main

try:
    main()
finally:
    print(*sys.modules)
"""


@pytest.mark.parametrize(
    "arguments",
    [("gain",), ("gain", "--help"), ("plan", "--width", "20"), ("--help",), ()],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_gain_plan_and_help_do_not_import_keras(arguments: tuple[str, ...]) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == (0 if arguments else 2), finished.stderr
    modules = set(finished.stdout.splitlines()[-1].split())
    assert "keras_rwinit.cli" in modules
    assert not modules & {"keras", "tensorflow", "jax", "torch", "sklearn", "matplotlib"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_of_commands_has_each_commands_own_first_line(name: str) -> None:
    if name == "tune":
        pytest.importorskip("keras_tuner")
    module = importlib.import_module(f"keras_rwinit.commands.{cli.COMMANDS[name].module}")
    assert getattr(module, name).__doc__.splitlines()[0] == cli.COMMANDS[name].summary


INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "keras":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
sys.argv = ["keras-rwinit", "train"]
from keras_rwinit.cli import main

main()
"""


def test_ctrl_c_while_tensorflow_is_imported_is_one_line() -> None:
    """Those seconds are when an impatient user presses it."""
    finished = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=False
    )
    assert (finished.returncode, finished.stderr) == (130, "keras-rwinit: interrupted\n")


def test_the_installed_command(tmp_path: Path) -> None:
    """A real process: exit code 0, the result and nothing but the result."""
    (point,) = [each for each in entry_points(group="console_scripts") if each.name == "keras-rwinit"]
    assert point.load() is cli.main
    script = Path(sys.executable).with_name("keras-rwinit")
    if not script.exists():
        pytest.skip("the scripts of this environment lie elsewhere")
    finished = subprocess.run(
        [script, "gain", "--output", "gain.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert f"{keras_rwinit.gain('relu', 100):.10g}" in finished.stdout
    assert json.loads((tmp_path / "gain.json").read_text())["gain"] == keras_rwinit.gain("relu", 100)
