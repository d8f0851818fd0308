"""Fits a network to a photograph with `model.fit`, and measures what it makes of every pixel."""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import keras
import numpy as np
from _photographs import Array, Photograph, load, psnr
from _sine_networks import FORMS

__all__ = ["Row", "build", "fit", "paint"]

Row: TypeAlias = dict[str, Any]

_STEPS_PER_EPOCH = 25  # Keras's epochs take time of their own


def build(form: str, depth: int, frequency: float, scale: float, seed: int) -> keras.Model:
    """Returns a network with random weights.

    Args:
        form: Name in `FORMS`.
        depth: Number of hidden layers, at least 2.
        frequency: Root-mean-square angular frequency of the picture, in radians per unit.
        scale: Scale of the first layer, as a multiple of the computed or usual one.
        seed: The seed from which each initializer gets its own.
    """
    seeds = np.random.SeedSequence(seed).generate_state(16)
    numbers = iter(int(number) for number in seeds)
    return FORMS[form].build(depth, frequency, scale, lambda: next(numbers))


class _Fitter:
    """A network that is compiled once and fitted with any weights, rate and picture."""

    def __init__(self, form: str, depth: int, scale: float) -> None:
        self.model = build(form, depth, 1.0, scale, 0)
        self.model.compile(keras.optimizers.Adam(1e-3), "mse")

    def fit(self, weights: list[Array], photograph: Photograph, rate: float, steps: int) -> None:
        """Fits all fitted pixels at once, with a rate that falls to zero along a cosine."""
        self._restart(weights)
        at = photograph.fitted.ravel()
        x, y = photograph.coordinates[at], photograph.pixels.ravel()[at].astype(np.float32)
        per_epoch = min(_STEPS_PER_EPOCH, steps)
        epochs = steps // per_epoch

        def schedule(epoch: int, _: float) -> float:
            return rate * 0.5 * (1.0 + float(np.cos(np.pi * (epoch + 0.5) / epochs)))

        self.model.fit(
            np.tile(x, (per_epoch, 1)),
            np.tile(y, per_epoch),
            batch_size=len(x),
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[keras.callbacks.LearningRateScheduler(schedule)],
        )

    def paint(self, photograph: Photograph) -> Array:
        """Returns the picture that the network draws."""
        drawn = keras.ops.convert_to_numpy(self.model.predict_on_batch(photograph.coordinates))
        return drawn.reshape(photograph.pixels.shape).astype(float)

    def _restart(self, weights: list[Array]) -> None:
        self.model.set_weights(weights)
        for variable in self.model.optimizer.variables:
            if variable is not self.model.optimizer.learning_rate:
                variable.assign(np.zeros(variable.shape, variable.dtype))


@functools.lru_cache(maxsize=4)
def _fitter(form: str, depth: int, scale: float) -> _Fitter:
    return _Fitter(form, depth, scale)


def paint(run: Row) -> Array:
    """Returns the picture of the network that a run describes, after it was fitted."""
    form, depth, scale = run["network"], run["depth"], run["scale"]
    photograph = load(run["photograph"], run["size"])
    drawn = build(form, depth, photograph.frequency, scale, run["seed"])
    fitter = _fitter(form, depth, scale if FORMS[form].scale_compiled else 1.0)
    fitter.fit(drawn.get_weights(), photograph, run["rate"], run["steps"])
    return fitter.paint(photograph)


def fit(run: Row) -> dict[str, float]:
    """Fits the network of a run; returns its PSNR in dB at fitted, searched and held-out pixels."""
    photograph = load(run["photograph"], run["size"])
    errors = paint(run) - photograph.pixels
    return {
        "fitted_db": psnr(errors[photograph.fitted]),
        "searched_db": psnr(errors[photograph.searched]),
        "held_out_db": psnr(errors[photograph.held_out]),
    }
