r"""The gradient's walk, measured: `ln|delta|` at every layer of a model, example by example."""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from ._files import check_new, write_json
from ._graph import trace
from ._objective import check_examples, make_objective
from ._observation import Site, observe
from ._positions import positions_of
from ._prediction import predict_for
from .theory import WalkPrediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GradientWalk", "gradient_walk"]

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
        from rich.console import Console
        from rich.table import Table

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
        from .plots import plot_walk

        return plot_walk(self, self.prediction, ax=ax)


def _spelled_out(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _spelled_out(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_spelled_out(value) for value in content]
    return str(content) if isinstance(content, float) and not np.isfinite(content) else content


def _array(content: Any) -> Array:
    return np.asarray(content, dtype=object).astype(np.float64)


def gradient_walk(
    model: keras.Model, x: Any, y: Any = None, loss: Any = None, *, training: bool = False
) -> GradientWalk:
    r"""Measures the log-norm of the back-propagated gradient at every layer of a model that has a kernel.

    For every example, `delta_d` is the gradient of that example's loss with respect to the
    pre-activations of layer d, by the back end's automatic differentiation in float64 (or, where a layer
    cannot compute in float64, in the model's own dtype). `Dense`, convolutions of every kind, `EinsumDense`
    and attention are seen at their pre-activations, a `DenseStack` layer by layer; layers of other kinds
    (recurrent, `TimeDistributed`, your own) at their output. The layers whose outputs no other kernel uses
    are output layers and not measured, unless there are no others.

    Nothing of the model changes: not its weights, nor its optimizer, seeds or compiled functions. The
    model runs once, forward and back, operation by operation.

    Args:
        model: A built Keras model of any kind.
        x: Inputs, in the structure the model takes, shape (examples, ...), finite.
        y: Targets, in the structure of the outputs. `None`: the gradient of a random direction of the
            outputs, the same direction for every example, instead of a loss's.
        loss: Keras loss or its name, or one for each output. `None`: what the model was compiled with.
        training: Whether the model runs as in training: batch normalisation by the batch, and dropout.
            `delta` of an example is then part of a gradient that other examples take part in.

    Returns:
        A `GradientWalk`.

    Raises:
        ValueError: The model is not built or has no kernel, `x` is empty, not finite or does not fit the
            model, there are targets and no loss, or they do not fit it.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit import gradient_walk, model_zoo
        >>> model = model_zoo.deep_mlp(depth=50, width=100, seed=0)
        >>> walk = gradient_walk(model, np.random.default_rng(0).normal(size=(4, 784)))
        >>> walk.backward.shape, walk.verdict
        ((4, 50), 'fine')
    """
    check_model(model)
    inputs, examples = check_examples("x", x)
    check_shapes(model, inputs)
    objective = make_objective(model, y, loss, examples)
    observations, dtype = observe(model, inputs, objective, training)
    positions, _ = positions_of(trace(model, inputs))
    last = {(id(p.step.operation), p.call) for p in positions if not p.followed}
    hidden = [seen for seen in observations if seen.site.place not in last]
    hidden = hidden or observations
    if not hidden:
        raise ValueError(
            "The model has no layer with a kernel to measure: no Dense, EinsumDense, convolutional or "
            f"recurrent layer, and no weight called `kernel`. Received: model={model.name!r}"
        )
    prediction = predict_for(positions)
    return GradientWalk(
        _names([seen.site for seen in hidden]),
        np.stack([seen.backward for seen in hidden], axis=1),
        np.stack([seen.forward for seen in hidden], axis=1),
        np.array([seen.weight_gradient for seen in hidden]),
        np.array([seen.dead for seen in hidden]),
        prediction if prediction is not None and len(prediction.mean) == len(hidden) else None,
        dtype,
    )


def _names(sites: Sequence[Site]) -> tuple[str, ...]:
    """A name a site, by the layer's path where layers of different models share one."""
    plain = Counter(site.name for site in sites)
    return tuple(site.name if plain[site.name] == 1 else site.full_name for site in sites)


def check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"The model has no weights yet: build it or call it once. Received: model={model.name!r}"
        )


def check_shapes(model: keras.Model, inputs: Any) -> None:
    expected = getattr(model, "input_shape", None) if not isinstance(inputs, dict) else None
    given = [array.shape for array in keras.tree.flatten(inputs)]
    if not isinstance(expected, tuple) or (expected and isinstance(expected[0], tuple)):
        return
    sizes = zip(expected[1:], given[0][1:], strict=False)
    if len(given) != 1 or len(given[0]) != len(expected) or any(s not in (None, n) for s, n in sizes):
        shape = ", ".join(["examples", *map(str, expected[1:])])
        raise ValueError(
            f"`x` must have the shape of the model's inputs, ({shape}). Received: "
            f"shape {', '.join(map(str, given))}"
        )
