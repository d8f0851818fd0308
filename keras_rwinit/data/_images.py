"""MNIST and other sets of gray images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._source import Arrays, StrPath
from ._tfds import open_builder, read_batch

__all__ = ["load_images"]


def load_images(name: str, data_dir: StrPath | None, download: bool) -> Arrays:
    """Returns training and test images, pixels in [0, 1], flattened row by row.

    References:
        mnist: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to
        document recognition", Proceedings of the IEEE 86, 1998.
        fashion_mnist: H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747, 2017.
        kmnist: T. Clanuwat et al., "Deep Learning for Classical Japanese Literature",
        arXiv:1812.01718, 2018.
    """
    builder = open_builder(name, data_dir, download)
    train, test = (read_batch(builder, split) for split in ("train", "test"))
    return Arrays(
        _flatten(train["image"]),
        train["label"].astype(np.int32),
        _flatten(test["image"]),
        test["label"].astype(np.int32),
    )


def _flatten(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    pixels = images.reshape(len(images), -1).astype(np.float32)
    pixels /= 255.0
    return pixels
