"""`GradientWalk`: the record of a measured walk, its verdict, table, file and picture."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from keras_rwinit._files import check_new, write_json
from keras_rwinit.plots import plot_walk
from keras_rwinit.theory import WalkPrediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GradientWalk"]


Array = NDArray[np.float64]


LIMIT = float(np.log(1e4))
"""Nats of `ln|delta|`, relative to the last hidden layer, beyond which a gradient has vanished or exploded.

The order of the factor 1.7e4 between two layers' gradients with which He et al., arXiv:1502.01852, section
2.2, explain that a network stops learning.
"""


_MOST_ROWS = 24


_ARRAYS = ("backward", "forward", "weight_gradient", "dead")


_FORMAT = "keras_rwinit.GradientWalk/1"


@dataclasses.dataclass(frozen=True)
class GradientWalk:
    """What `gradient_walk` measured; all logarithms are natural, all norms Euclidean.

    Args:
        layer_names: One name a layer, in the order in which the model applies them; layer k of a
            `DenseStack` called s is `s[k]`, the second call of a shared layer t is `t#2`.
        backward: `ln|delta|` of the gradient at each layer's pre-activations, in nats, shape (examples,
            layers). -inf where the gradient is zero.
        forward: `ln|h|` of each layer's output, after its own activation, same shape.
        weight_gradient: ln of the norm of each kernel's gradient of the mean loss, shape (layers,); nan
            where a layer's kernel cannot be told. For a shared layer that of all its calls.
        dead: Share of each layer's units that are dead or saturated for every example of the batch: no
            gradient, or a slope of at most 1 % of the activation's steepest. Shape (layers,).
        prediction: What `predict_walk` says of a chain of Dense layers with the gains its kernels have;
            None for models of another kind.
        dtype: What the model was computed in.
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
        """`ln(|delta_d| / |delta_last|)`, shape (examples, layers); nan for an example dead at the last."""
        last = self.backward[:, -1:]
        return np.asarray(self.backward - np.where(np.isfinite(last), last, np.nan))

    @property
    def drift(self) -> float:
        """Mean step of `ln|delta|` towards the input, in nats a layer; 0 for a single layer.

        -inf or nan where the gradient of some example is dead.
        """
        return float(self.relative[:, 0].mean() / max(len(self.layer_names) - 1, 1))

    @property
    def spread(self) -> float:
        """Standard deviation over the examples of `ln(|delta_1| / |delta_last|)`, in nats.

        That of one network; `prediction.std` is over networks. nan where the gradient of some example
        is dead.
        """
        total = self.relative[:, 0]
        return float(total.std()) if np.isfinite(total).all() else float("nan")

    @property
    def verdict(self) -> str:
        """In words: fine, or dead, vanishing, exploding or not finite, and from which layer on.

        The layers are gone through from the output. Dead: the gradient of at least half of the examples
        is zero. Vanishing and exploding: its mean log-norm is more than ln(10,000) = 9.2 nats below or
        above that of the last hidden layer (after He et al., arXiv:1502.01852, section 2.2, who found a
        network to stop learning at a factor of 17,000).
        """
        count = len(self.layer_names)
        for layer in reversed(range(count)):
            values = self.relative[:, layer]
            both = np.concatenate([self.forward[:, layer], self.backward[:, layer]])
            if not np.isfinite(both[both != -np.inf]).all():
                word = "not finite"
            elif (self.backward[:, layer] == -np.inf).mean() >= 0.5:
                word = "dead"
            else:
                alive = values[np.isfinite(values)]
                mean = alive.mean() if len(alive) else 0.0
                word = "vanishing" if mean < -LIMIT else "exploding" if mean > LIMIT else ""
            if word:
                return f"{word} from {self.layer_names[layer]} (layer {layer + 1} of {count}) on"
        return "fine"

    def summary(self) -> str:
        """A table as text: what was measured at each layer, at most two dozen of them, and the verdict."""
        count = len(self.layer_names)
        table = Table()
        for column in ("layer", "ln|δ| rel.", "predicted", "ln|h|", "ln|∂W|", "dead"):
            table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
        for layer in np.unique(np.linspace(0, count - 1, min(count, _MOST_ROWS)).round().astype(int)):
            predicted = "-"
            if self.prediction is not None:
                predicted = f"{self.prediction.mean[layer]:.2f} ± {self.prediction.std[layer]:.2f}"
            table.add_row(
                self.layer_names[layer],
                f"{self.relative[:, layer].mean():.2f}",
                predicted,
                f"{self.forward[:, layer].mean():.2f}",
                f"{self.weight_gradient[layer]:.2f}",
                f"{self.dead[layer]:.0%}",
            )
        text = io.StringIO()
        Console(file=text, width=110).print(table)
        return (
            f"Gradient's walk over {count:,} layers, {len(self.backward):,} examples: {self.verdict}\n"
            f"{text.getvalue()}"
            f"drift {self.drift:+.4f} nats a layer, spread {self.spread:.3f} nats, {self.dtype}\n"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything measured and derived, as lists and numbers."""
        content: dict[str, Any] = {
            "format": _FORMAT,
            "verdict": self.verdict,
            "drift": self.drift,
            "spread": self.spread,
            "dtype": self.dtype,
            "layer_names": list(self.layer_names),
        }
        for name in _ARRAYS:
            content[name] = getattr(self, name).tolist()
        content["prediction"] = None
        if self.prediction is not None:
            content["prediction"] = {
                key: value.tolist() if isinstance(value, np.ndarray) else value
                for key, value in vars(self.prediction).items()
            }
        return content

    def save(self, path: str | Path) -> None:
        """Writes a new JSON file; numbers that are not finite are the strings "-inf", "inf" and "nan".

        Raises:
            ValueError: The file exists: nothing is overwritten.
        """
        path = Path(path)
        check_new(path)
        write_json(path, _spelled_out(self.to_dict()))

    @classmethod
    def load(cls, path: str | Path) -> GradientWalk:
        """Reads what `save` wrote.

        Raises:
            ValueError: The file holds no walk.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(content["format"])
            arrays = {name: _array(content[name]) for name in _ARRAYS}
            prediction = content["prediction"]
            if prediction is not None:
                prediction = WalkPrediction(
                    float(prediction["gain"]),
                    _array(prediction["mean"]),
                    _array(prediction["std"]),
                    float(prediction["dead_probability"]),
                )
            names, dtype = tuple(content["layer_names"]), content["dtype"]
            shapes = {array.shape[-1:] for array in arrays.values()}
            if shapes != {(len(names),)} or arrays["backward"].shape != arrays["forward"].shape:
                raise ValueError(f"{len(names)} layers, and arrays of other shapes")
            return cls(names, **arrays, prediction=prediction, dtype=dtype)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold a saved GradientWalk: {error!r}") from error

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the examples' walks, their mean and the predicted band; see `plots.plot_walk`."""
        return plot_walk(self, self.prediction, ax=ax)


def _spelled_out(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _spelled_out(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_spelled_out(value) for value in content]
    return str(content) if isinstance(content, float) and not np.isfinite(content) else content


def _array(content: Any) -> Array:
    return np.asarray(content, dtype=object).astype(np.float64)
