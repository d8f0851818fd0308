"""The names that `import keras_rwinit` offers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

import keras_rwinit
from keras_rwinit import sharding, theory


def test_dir_shows_the_public_names_and_nothing_else() -> None:
    assert dir(keras_rwinit) == sorted(keras_rwinit.__all__)
    assert "theory" in dir(keras_rwinit)
    assert keras_rwinit.theory is theory


@pytest.mark.parametrize("name", keras_rwinit.__all__)
def test_every_public_name_exists(name: str) -> None:
    if name == "tuning":
        pytest.importorskip("keras_tuner")
    assert getattr(keras_rwinit, name) is not None


@pytest.fixture
def unused_old_name() -> Iterator[None]:
    """Leaves no trace of the old name, which warns only once in a process."""
    yield
    sys.modules.pop("keras_rwinit.distribution", None)
    vars(keras_rwinit).pop("distribution", None)


@pytest.mark.usefixtures("unused_old_name")
def test_the_old_name_of_sharding_works_for_one_release() -> None:
    with pytest.warns(DeprecationWarning, match=r"keras_rwinit\.distribution is now keras_rwinit\.sharding"):
        assert keras_rwinit.distribution is sharding
    assert "distribution" not in dir(keras_rwinit)


@pytest.mark.usefixtures("unused_old_name")
@pytest.mark.parametrize(
    "statement",
    [
        "import keras_rwinit.distribution as old",
        "from keras_rwinit import distribution as old",
        "import keras_rwinit; old = keras_rwinit.distribution",
        "from keras_rwinit.distribution import layout_map",
    ],
)
def test_the_old_name_warns_once_where_it_is_used(statement: str) -> None:
    names: dict[str, Any] = {}
    with pytest.warns(DeprecationWarning, match=r"is now keras_rwinit\.sharding") as caught:
        exec(compile(statement, "user.py", "exec"), names)
    assert [warning.filename for warning in caught] == ["user.py"]
    assert (names.get("layout_map") or names["old"].layout_map) is sharding.layout_map
    assert "distribution" not in dir(keras_rwinit)


def test_a_name_that_does_not_exist_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'keras_rwinit' has no attribute 'gian'"):
        keras_rwinit.gian  # noqa: B018
