"""`GradientWalk`: the record of a measured walk, with its verdict, table, file and picture."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keras_rwinit._files import check_new, read_json, write_json
from keras_rwinit.plots import plot_walk
from keras_rwinit.theory import WalkPrediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GradientWalk", "GradientWalkContent"]

Array = NDArray[np.float64]

LIMIT = float(np.log(1e4))
"""Nats of `ln|delta|`, relative to the last hidden layer, beyond which a gradient has vanished or exploded.

The order of the factor 1.7e4 between two layers' gradients with which He et al., arXiv:1502.01852, section
2.2, explain that a network stops learning.
"""

_MOST_ROWS = 24
_FORMAT = "keras_rwinit.GradientWalk/1"


class PredictionContent(TypedDict):
    """`WalkPrediction` as numbers and lists of numbers."""

    gain: float
    mean: list[float]
    std: list[float]
    dead_probability: float


class GradientWalkContent(TypedDict):
    """`GradientWalk` as numbers, strings and lists; see its attributes of the same names."""

    format: str
    verdict: str
    drift: float
    example_spread: float
    dtype: str
    layer_names: list[str]
    backward: list[list[float]]
    forward: list[list[float]]
    weight_gradient: list[float]
    dead: list[float]
    prediction: PredictionContent | None


@dataclasses.dataclass(frozen=True)
class GradientWalk:
    """The walk that `gradient_walk` measured; all logarithms are natural, all norms Euclidean.

    Args:
        layer_names: One name per layer, in the order in which the model applies them; layer k of a
            `DenseStack` called s is `s[k]`, the second call of a shared layer t is `t#2`.
        backward: `ln|delta|` of the gradient at each layer's pre-activations, in nats, shape (examples,
            layers). -inf where the gradient is zero.
        forward: `ln|h|` of each layer's output, after its own activation, same shape.
        weight_gradient: ln of the norm of each kernel's gradient of the mean loss, shape (layers,); nan
            where a layer's kernel is unknown. For a shared layer that of all its calls.
        dead: Share of each layer's units that are dead or saturated for every example of the batch: no
            gradient, or a slope of at most 1 % of the activation's steepest. Shape (layers,).
        prediction: Prediction for a chain of Dense layers with the gains its kernels have; None for models
            of another kind.
        dtype: Dtype that the model was computed in.
    """

    layer_names: tuple[str, ...]
    backward: Array
    forward: Array
    weight_gradient: Array
    dead: Array
    prediction: WalkPrediction | None = None
    dtype: str = "float64"

    @property
    def relative(self) -> Array:
        """`ln(|delta_d| / |delta_last|)`, shape (examples, layers); nan where the last layer's is zero."""
        last = self.backward[:, -1:]
        return np.asarray(self.backward - np.where(np.isfinite(last), last, np.nan))

    @property
    def drift(self) -> float:
        """Mean step of `ln|delta|` towards the input, in nats per layer; 0 for a single layer.

        -inf or nan if an example's gradient is zero.
        """
        return float(self.relative[:, 0].mean() / max(len(self.layer_names) - 1, 1))

    @property
    def example_spread(self) -> float:
        """Standard deviation over the examples of `ln(|delta_1| / |delta_last|)`, in nats.

        It is that of one network; `prediction.spread` is over networks. nan if an example's gradient is
        zero.
        """
        total = self.relative[:, 0]
        return float(total.std()) if np.isfinite(total).all() else float("nan")

    @property
    def spread(self) -> float:
        """The former name of `example_spread`."""
        warnings.warn(
            "GradientWalk.spread is now called example_spread; the old name will go with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.example_spread

    @property
    def verdict(self) -> str:
        """In words: fine, or dead, vanishing, exploding or not finite, and from which layer on.

        The layers are gone through from the output. Dead: the gradient of at least half of the examples
        is zero. Vanishing and exploding: its mean log-norm is more than ln(10,000) = 9.2 nats below or
        above that of the last hidden layer (after He et al., arXiv:1502.01852, section 2.2, who found
        that a network stops learning at a factor of 17,000).
        """
        count = len(self.layer_names)
        # The gradient comes from the output: what goes wrong there goes wrong in all layers before it.
        for layer in reversed(range(count)):
            word = self._verdict_at(layer)
            if word:
                return f"{word} from {self.layer_names[layer]} (layer {layer + 1} of {count}) on"
        return "fine"

    def _verdict_at(self, layer: int) -> str:
        """Returns what is wrong at a layer, in a word or two; empty if nothing is."""
        # -inf is the log-norm of a dead signal, nan and inf are those of weights or signals that overflowed.
        signals = np.concatenate([self.forward[:, layer], self.backward[:, layer]])
        if not np.isfinite(signals[signals != -np.inf]).all():
            return "not finite"
        if (self.backward[:, layer] == -np.inf).mean() >= 0.5:
            return "dead"
        relative = self.relative[:, layer]
        alive = relative[np.isfinite(relative)]
        mean = alive.mean() if len(alive) else 0.0
        return "vanishing" if mean < -LIMIT else "exploding" if mean > LIMIT else ""

    def summary(self) -> str:
        """Returns a table as text: at most two dozen of the layers, and the verdict."""
        count = len(self.layer_names)
        table = Table()
        for column in ("layer", "ln|δ| rel.", "predicted", "ln|h|", "ln|∂W|", "dead"):
            table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
        for layer in np.unique(np.linspace(0, count - 1, min(count, _MOST_ROWS)).round().astype(int)):
            table.add_row(*self._row(layer))
        text = io.StringIO()
        Console(file=text, width=110).print(table)
        return (
            f"Gradient's walk over {count:,} layers, {len(self.backward):,} examples: {self.verdict}\n"
            f"{text.getvalue()}"
            f"drift {self.drift:+.4f} nats per layer, example spread {self.example_spread:.3f} nats, "
            f"{self.dtype}\n"
        )

    def _row(self, layer: int) -> tuple[str, ...]:
        predicted = "-"
        if self.prediction is not None:
            predicted = f"{self.prediction.mean[layer]:.2f} ± {self.prediction.std[layer]:.2f}"
        return (
            escape(self.layer_names[layer]),  # a name with brackets is no markup
            f"{self.relative[:, layer].mean():.2f}",
            predicted,
            f"{self.forward[:, layer].mean():.2f}",
            f"{self.weight_gradient[layer]:.2f}",
            f"{self.dead[layer]:.0%}",
        )

    def to_dict(self) -> GradientWalkContent:
        """Returns everything measured and derived, as lists, strings and numbers."""
        return {
            "format": _FORMAT,
            "verdict": self.verdict,
            "drift": self.drift,
            "example_spread": self.example_spread,
            "dtype": self.dtype,
            "layer_names": list(self.layer_names),
            "backward": self.backward.tolist(),
            "forward": self.forward.tolist(),
            "weight_gradient": self.weight_gradient.tolist(),
            "dead": self.dead.tolist(),
            "prediction": _describe_prediction(self.prediction),
        }

    def save(self, path: str | Path) -> None:
        """Writes a new JSON file; numbers that are not finite are the strings "-inf", "inf" and "nan".

        Args:
            path: The file to write.

        Raises:
            ValueError: The file exists: nothing is overwritten.
        """
        path = Path(path)
        check_new(path)
        write_json(path, self.to_dict(), non_finite="name")

    @classmethod
    def load(cls, path: str | Path) -> GradientWalk:
        """Reads what `save` wrote, in this version or an earlier one.

        Args:
            path: The file to read.

        Raises:
            ValueError: The file holds no walk.
        """
        try:
            content: GradientWalkContent = read_json(Path(path))
            # Derived numbers such as the drift are computed again, so that their names may change.
            if content["format"] != _FORMAT:
                raise ValueError(content["format"])
            names = tuple(content["layer_names"])
            backward, forward = _to_array(content["backward"]), _to_array(content["forward"])
            weight_gradient, dead = _to_array(content["weight_gradient"]), _to_array(content["dead"])
            widths = {array.shape[-1:] for array in (backward, forward, weight_gradient, dead)}
            if widths != {(len(names),)} or backward.shape != forward.shape:
                raise ValueError(f"{len(names)} layers, and arrays of other shapes")
            prediction = _read_prediction(content["prediction"])
            return cls(names, backward, forward, weight_gradient, dead, prediction, content["dtype"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold a saved GradientWalk: {error!r}") from error

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the examples' walks, their mean and the predicted band; see `plots.plot_walk`.

        Args:
            ax: Axes to draw on. `None`: those of a new figure.

        Returns:
            The axes.
        """
        return plot_walk(self, self.prediction, ax=ax)


def _describe_prediction(prediction: WalkPrediction | None) -> PredictionContent | None:
    if prediction is None:
        return None
    return {
        "gain": prediction.gain,
        "mean": prediction.mean.tolist(),
        "std": prediction.std.tolist(),
        "dead_probability": prediction.dead_probability,
    }


def _read_prediction(content: PredictionContent | None) -> WalkPrediction | None:
    if content is None:
        return None
    return WalkPrediction(
        float(content["gain"]),
        _to_array(content["mean"]),
        _to_array(content["std"]),
        float(content["dead_probability"]),
    )


def _to_array(content: Sequence[float] | Sequence[list[float]]) -> Array:
    """Makes an array of numbers and of the names of those that are not finite."""
    return np.asarray(content, dtype=object).astype(np.float64)
