"""The photographs of scikit-learn as small gray pictures, and which of their pixels are fitted."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

__all__ = ["NAMES", "Array", "Photograph", "load", "psnr"]

Array: TypeAlias = NDArray[np.float64]

NAMES = ("china", "flower")
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue, ITU-R BT.709
_SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class Photograph:
    """A square picture whose pixels lie in -1 to 1 along both axes.

    Every second pixel of every second row is fitted, as in Tancik et al., arXiv:2006.10739. Of all others a
    random half is for the search of settings and the rest for the results.

    Args:
        pixels: Brightness from -1 (black) to 1 (white), shape (size, size).
    """

    pixels: Array

    @property
    def size(self) -> int:
        """Number of pixels along one axis."""
        return len(self.pixels)

    @functools.cached_property
    def coordinates(self) -> NDArray[np.float32]:
        """Row and column of every pixel's center, shape (size * size, 2)."""
        centers = (np.arange(self.size) + 0.5) / self.size * 2.0 - 1.0
        grid = np.stack(np.meshgrid(centers, centers, indexing="ij"), axis=-1)
        return grid.reshape(-1, 2).astype(np.float32)

    @functools.cached_property
    def fitted(self) -> NDArray[np.bool_]:
        """Which pixels are fitted, shape (size, size)."""
        mask = np.zeros(self.pixels.shape, bool)
        mask[::2, ::2] = True
        return mask

    @functools.cached_property
    def searched(self) -> NDArray[np.bool_]:
        """Which pixels the search of settings looks at, shape (size, size)."""
        chosen = np.random.default_rng(_SPLIT_SEED).random(self.pixels.shape) < 0.5
        return chosen & ~self.fitted

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which pixels only the results look at, shape (size, size)."""
        return ~self.fitted & ~self.searched

    @property
    def frequency(self) -> float:
        """Root-mean-square angular frequency along one axis, of the fitted pixels, in radians per unit.

        It is `sqrt(mean u'^2 / mean u^2)` with differences of neighboring fitted pixels for `u'`, and the
        brightness less its mean for `u`.
        """
        u = self.pixels[::2, ::2]
        spacing = 2.0 * 2.0 / self.size
        slopes = np.mean([np.mean(np.diff(u, axis=axis) ** 2) for axis in (0, 1)]) / spacing**2
        return float(np.sqrt(slopes / np.var(u)))

    def interpolate(self, degree: int = 1) -> Array:
        """Returns all pixels from the fitted ones: a spline in rows and columns, linear by default."""
        places = np.arange(0, self.size, 2, dtype=float)
        spline = RectBivariateSpline(places, places, self.pixels[::2, ::2], kx=degree, ky=degree)
        everywhere = np.minimum(np.arange(self.size), places[-1])
        found: Array = spline(everywhere, everywhere)
        return found


@functools.cache
def load(name: str, size: int = 64) -> Photograph:
    """Returns the middle of a photograph of scikit-learn, averaged over squares of pixels.

    Args:
        name: One of `NAMES`.
        size: Number of pixels along one axis, even and at most 427.

    Raises:
        ImportError: Pillow is missing, with which scikit-learn reads its photographs.
    """
    from sklearn.datasets import load_sample_image

    try:
        colored = load_sample_image(f"{name}.jpg")
    except ImportError as error:
        raise ImportError("scikit-learn reads its photographs with Pillow: pip install pillow") from error
    gray = colored.astype(float) @ np.array(_LUMINANCE) / 255.0
    side = min(gray.shape) // size
    top, left = ((length - side * size) // 2 for length in gray.shape)
    square = gray[top : top + side * size, left : left + side * size]
    return Photograph(2.0 * square.reshape(size, side, size, side).mean(axis=(1, 3)) - 1.0)


def psnr(errors: Array) -> float:
    """Returns the peak signal-to-noise ratio in dB, `10 log10(4 / mean errors^2)`: the peak is 2."""
    return float(10.0 * np.log10(4.0 / np.mean(errors**2)))
