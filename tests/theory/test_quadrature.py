"""`NormalQuadrature`: expectations with a closed form, for every log-variance of the grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from keras_rwinit.theory._quadrature import SCALE, NormalQuadrature

JUMP = 1.2  # between two edges of the panels


def error_of_a_jump(kinks: tuple[float, ...]) -> float:
    """Largest error of the probability that `|a| > JUMP`; the values on both sides of 0 are added."""
    rule = NormalQuadrature(kinks)
    found = rule.mean(2.0 * (rule.a[..., None] > JUMP))[:, 0]
    return float(abs(found - special.erfc(JUMP / (np.sqrt(2.0) * SCALE))).max())


def test_powers_of_a_normal_variable() -> None:
    """E 1, E a^2, E a^4 and E exp(-a^2 / 2), to rounding."""
    rule = NormalQuadrature((0.0,))
    a2 = rule.a**2
    found = rule.mean(2.0 * np.stack([np.ones_like(a2), a2, a2 * a2, np.exp(-a2 / 2.0)], axis=-1))
    q = SCALE**2
    expected = np.stack([np.ones_like(q), q, 3.0 * q**2, 1.0 / np.sqrt(1.0 + q)], axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("kinks", [(JUMP,), (-JUMP, JUMP), (0.0, 0.3, -JUMP, 7.5), (JUMP, 1e9, np.inf)])
def test_a_jump_at_a_kink(kinks: tuple[float, ...]) -> None:
    assert error_of_a_jump(kinks) < 1e-14


def test_a_jump_elsewhere_costs_accuracy() -> None:
    """Twin: the same jump without its kink."""
    assert 1e-4 < error_of_a_jump((0.0,)) < 0.1
