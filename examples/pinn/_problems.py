"""Three differential equations with their exact or computed solutions, and the residual of a network.

The conditions at the boundary and at the beginning hold exactly: the solution is a known function that
satisfies them, plus the network times a factor that vanishes where they apply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from _jets import Jet, product
from keras import ops
from numpy.typing import NDArray
from scipy import fft, integrate
from scipy.stats import qmc

__all__ = ["PROBLEMS", "Problem"]

Array: TypeAlias = NDArray[np.float64]

VISCOSITY = 0.01 / np.pi  # of Burgers' equation
DIFFUSION = 0.001  # of the Allen-Cahn equation
_GRID = np.linspace(-1.0, 1.0, 201)
_TIMES = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Problem:
    """A differential equation on -1 <= x <= 1 (and 0 <= t <= 1).

    Args:
        name: Name of the equation.
        frequency: Angular frequency of the solution along x, in root mean square, as it is known beforehand.
        sample: Function of a number of points that returns them, shape (points, 1 or 2).
        base: Function of points that returns the jet of a function with the right boundary values.
        factor: Function of points that returns the jet of the factor of the network.
        residual: Function of points and the solution's jet that returns the residual, shape (points,).
        reference: Function that returns points and the solution there.
    """

    name: str
    frequency: float
    sample: Callable[[int], Array]
    base: Callable[[Array], Array]
    factor: Callable[[Array], Array]
    residual: Callable[[Array, Jet], Any]
    reference: Callable[[], tuple[Array, Array]]

    def solution(self, points: Array, network: Jet) -> Jet:
        """Returns the jet of the solution from that of the network's output, shape (3 or 4, points)."""
        return ops.convert_to_tensor(self.base(points)) + product(
            ops.convert_to_tensor(self.factor(points)), network
        )


# Poisson: u'' = f for a sum of a slow and a fast wave

_WAVES = ((1.0, np.pi), (0.2, 4.0 * np.pi))  # amplitude and angular frequency


def _wave(x: Array) -> Array:
    return sum((size * np.sin(frequency * x) for size, frequency in _WAVES), np.zeros_like(x))


def _wave_curvature(x: Array) -> Array:
    return sum((-size * w**2 * np.sin(w * x) for size, w in _WAVES), np.zeros_like(x))


_FORCE_SIZE = float(np.sqrt(sum((size * w**2) ** 2 / 2.0 for size, w in _WAVES)))


def _poisson() -> Problem:
    def factor(points: Array) -> Array:
        x = points[:, 0]
        return np.stack([1.0 - x**2, -2.0 * x, np.full_like(x, -2.0)])

    return Problem(
        name="poisson",
        frequency=float(np.sqrt(sum((a * w) ** 2 for a, w in _WAVES) / sum(a**2 for a, _ in _WAVES))),
        sample=lambda number: np.linspace(-1.0, 1.0, number)[:, None],
        base=lambda points: np.zeros((3, len(points))),
        factor=factor,
        residual=lambda points, u: (
            (u[2] - ops.convert_to_tensor(_wave_curvature(points[:, 0]))) / _FORCE_SIZE
        ),
        reference=lambda: (_GRID[:, None], _wave(_GRID)),
    )


# Equations in x and t


def _sample_square(number: int) -> Array:
    """Returns points that fill the square evenly, the same ones at every call."""
    exponent = int(np.ceil(np.log2(number)))  # a sequence of Sobol's is even at powers of two
    unit = qmc.Sobol(2, scramble=True, seed=0).random_base2(exponent)[:number]
    return qmc.scale(unit, [-1.0, 0.0], [1.0, 1.0])


def _time_factor(points: Array) -> Array:
    """Returns the jet of t (1 - x^2)."""
    x, t = points.T
    return np.stack([t * (1.0 - x**2), -2.0 * t * x, -2.0 * t, 1.0 - x**2])


def _square_grid() -> Array:
    x, t = np.meshgrid(_GRID, _TIMES[1:])
    return np.stack([x.ravel(), t.ravel()], axis=1)


def _burgers() -> Problem:
    """u_t + u u_x = nu u_xx, u(x, 0) = -sin(pi x), u(+-1, t) = 0: a shock at x = 0."""

    def base(points: Array) -> Array:
        a = np.pi * points[:, 0]
        return np.stack([-np.sin(a), -np.pi * np.cos(a), np.pi**2 * np.sin(a), np.zeros_like(a)])

    return Problem(
        name="burgers",
        frequency=float(np.pi),  # that of the initial values
        sample=_sample_around_shock,
        base=base,
        factor=_time_factor,
        residual=lambda points, u: u[3] + u[0] * u[1] - VISCOSITY * u[2],
        reference=lambda: (_square_grid(), solve_burgers(_square_grid())),
    )


def _sample_around_shock(number: int) -> Array:
    """Returns points of which more lie near x = 0, where the shock will be."""
    points = _sample_square(number)
    points[:, 0] **= 3
    return points


def solve_burgers(points: Array) -> Array:
    """Returns the solution of Burgers' equation by the Cole-Hopf transformation."""
    nodes, weights = np.polynomial.hermite.hermgauss(200)
    x, t = points.T
    shifted = np.pi * (x[:, None] - np.sqrt(4.0 * VISCOSITY * t)[:, None] * nodes)
    exponent = -np.cos(shifted) / (2.0 * np.pi * VISCOSITY)
    # The largest term becomes one: the exponentials would overflow.
    heat = weights * np.exp(exponent - exponent.max(axis=1, keepdims=True))
    solved: Array = -(heat * np.sin(shifted)).sum(axis=1) / heat.sum(axis=1)
    return solved


# That of the initial values, x^2 cos(pi x): the root of the mean square of the slope over that of the value
_INITIAL = _GRID**2 * np.cos(np.pi * _GRID)
_INITIAL_FREQUENCY = float(np.sqrt(np.mean(np.gradient(_INITIAL, _GRID) ** 2) / np.mean(_INITIAL**2)))


def _allen_cahn() -> Problem:
    """u_t = d u_xx + 5 (u - u^3), u(x, 0) = x^2 cos(pi x), u(+-1, t) = -1."""

    def base(points: Array) -> Array:
        x = points[:, 0]
        cosine, sine = np.cos(np.pi * x), np.pi * np.sin(np.pi * x)
        return np.stack(
            [
                x**2 * cosine,
                2.0 * x * cosine - x**2 * sine,
                2.0 * cosine - 4.0 * x * sine - np.pi**2 * x**2 * cosine,
                np.zeros_like(x),
            ]
        )

    return Problem(
        name="allen_cahn",
        frequency=_INITIAL_FREQUENCY,
        sample=_sample_square,
        base=base,
        factor=_time_factor,
        residual=lambda points, u: u[3] - DIFFUSION * u[2] - 5.0 * (u[0] - u[0] ** 3),
        reference=lambda: (_square_grid(), solve_allen_cahn()),
    )


def solve_allen_cahn(intervals: int = 800) -> Array:
    """Returns the solution on the grid, with u + 1 as a series of sines in x, by a Runge-Kutta method in t.

    Args:
        intervals: Intervals between -1 and 1, a multiple of those of the grid.
    """
    x = np.linspace(-1.0, 1.0, intervals + 1)
    decay = DIFFUSION * (np.pi / 2.0 * np.arange(1, intervals)) ** 2

    def change(_: float, u: Array) -> Array:
        curved: Array = fft.idst(decay * fft.dst(u + 1.0, type=1), type=1)
        return 5.0 * (u - u**3) - curved

    inner = (x**2 * np.cos(np.pi * x))[1:-1]
    solved = integrate.solve_ivp(
        change, (0.0, 1.0), inner, method="DOP853", t_eval=_TIMES[1:], rtol=1e-9, atol=1e-11
    ).y
    whole = np.pad(solved, ((1, 1), (0, 0)), constant_values=-1.0)
    return np.asarray(whole[:: intervals // (len(_GRID) - 1)].T.ravel(), np.float64)


PROBLEMS = {problem.name: problem for problem in (_poisson(), _burgers(), _allen_cahn())}
