"""The names that `import keras_rwinit` offers."""

from __future__ import annotations

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


def test_the_old_name_of_sharding_works_for_one_release() -> None:
    with pytest.warns(DeprecationWarning, match=r"keras_rwinit\.distribution is now keras_rwinit\.sharding"):
        assert keras_rwinit.distribution is sharding
    assert "distribution" not in dir(keras_rwinit)


def test_a_name_that_does_not_exist_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'keras_rwinit' has no attribute 'gian'"):
        keras_rwinit.gian  # noqa: B018
