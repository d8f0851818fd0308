"""`show_versions`: what is installed, and what is not."""

from __future__ import annotations

import importlib.metadata

import keras
import pytest

import keras_rwinit


def test_versions_of_what_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def without_pandas(name: str) -> str:
        if name == "pandas":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_pandas)
    keras_rwinit.show_versions()
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["keras-rwinit"] == keras_rwinit.__version__
    assert rows["keras"] == keras.__version__
    assert rows["pandas"] == "not installed"
