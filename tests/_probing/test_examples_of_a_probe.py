"""Arrays of users, as the probe takes them."""

from __future__ import annotations

import numpy as np
import pytest

from keras_rwinit._probing.examples import check_examples


@pytest.mark.parametrize("number", [-(2**63), -(2**31) - 1, -(2**31), 0, 2**31 - 1, 2**31, 2**63 - 1])
def test_integers_keep_their_values(number: int) -> None:
    """The absolute value of -2^63 is -2^63 in int64: taken for small, it became 0 in int32."""
    array, count = check_examples("x", np.array([[number], [0]]))
    assert (int(array[0, 0]), count) == (number, 2)
