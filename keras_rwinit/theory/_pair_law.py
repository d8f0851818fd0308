r"""The law of a layer for two inputs, to first order in 1 / width.

With c the correlation of two vectors, `z = arctanh c = -ln tan(theta / 2)` is Fisher's z. Let `p = (f1 +
f2)^2 / 2` and `d = (f1 - f2)^2 / 2` be those of a unit, with f1 and f2 its two activations, and let
capitals be expectations: `P = E p`, `D = E d`, `M = E f1^2 = E f2^2 = (P + D) / 2`. The next correlation
has

    z' = ln(T+ / T-) / 2,    T± = sqrt(S11 S22) ± S12,

where S is the mean of `f_i f_j` over n units. With `R = (sqrt S11 - sqrt S22)^2 / 2`, `T+ = p̄ - R` and `T-
= d̄ - R`. So at infinite width `z' = ln(P / D) / 2`, a unit moves z' by `(p / P - d / D) / 2`, and

    n Var z' = E (p / P - d / D)^2 / 4,
    n bias z' = (Var d / D^2 - Var p / P^2) / 4 + E[(f1^2 - f2^2)^2] / (16 M) (1 / D - 1 / P).

No term cancels for close inputs. A linear layer has variance 1 / n and bias `c / (2 n)` at every z: it is
Fisher's transformation that makes the noise the same for all correlations.

The mean `s = (y1 + y2) / 2` of the two log-variances and half their difference are moved by
`(p + d) / (2 M) - 1` and by `(f1^2 - f2^2) / (2 M)`. The difference is uncorrelated with the other two.

Orthogonal kernels are normal ones whose two images have an exact Gram matrix. What the fluctuation of that
(a Wishart matrix: a linear layer's z and s) does through the layer is taken out, of the variance and of the
bias.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["PairMoments", "PairNoise", "pair_noise"]

Array: TypeAlias = NDArray[np.float64]


class PairMoments(NamedTuple):
    """Expectations over a unit; see the module's docstring. All fields have one shape.

    Args:
        p: `E p`.
        d: `E d`.
        pp: `E p^2`.
        dd: `E d^2`.
        pd: `E p d`.
        ee: `E (f1^2 - f2^2)^2`.
    """

    p: Array
    d: Array
    pp: Array
    dd: Array
    pd: Array
    ee: Array


class PairNoise(NamedTuple):
    """What finite width does in a layer of normal kernels, times the width. All fields have one shape.

    Args:
        bias_z: Mean of the next z less that at infinite width.
        var_z: Variance of the next z.
        bias_s: Mean of the next s less that at infinite width.
        var_s: Variance of the next s.
        cov: Covariance of the next z and s.
        var_half: Variance of half the difference of the next log-variances.
    """

    bias_z: Array
    var_z: Array
    bias_s: Array
    var_s: Array
    cov: Array
    var_half: Array


def pair_noise(m: PairMoments) -> PairNoise:
    """Returns the noise of a layer from the moments of its units."""
    mean = (m.p + m.d) / 2.0
    var_s = (m.pp + m.dd + 2.0 * m.pd) / (4.0 * mean**2) - 1.0
    var_half = m.ee / (4.0 * mean**2)
    return PairNoise(
        bias_z=(m.dd / m.d**2 - m.pp / m.p**2) / 4.0 + m.ee / (16.0 * mean) * (1.0 / m.d - 1.0 / m.p),
        var_z=(m.pp / m.p**2 + m.dd / m.d**2 - 2.0 * m.pd / (m.p * m.d)) / 4.0,
        bias_s=-(var_s + var_half) / 2.0,
        var_s=var_s,
        cov=((m.pp + m.pd) / m.p - (m.pd + m.dd) / m.d) / (4.0 * mean),
        var_half=var_half,
    )
