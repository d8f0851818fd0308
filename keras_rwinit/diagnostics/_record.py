"""`GradientWalk`: the record of a measured walk, with its verdict, table, file and picture."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._files import check_new, read_json, write_json
from keras_rwinit._probing.norms import mean_log_norm
from keras_rwinit.plots import plot_walk
from keras_rwinit.theory import WalkPrediction

from ._table import LayerRow, format_table
from ._verdict import judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GradientWalk", "GradientWalkContent"]

Array = NDArray[np.float64]

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
    waits: list[float]
    first_backward: list[list[float]]


@dataclasses.dataclass(frozen=True, repr=False)
class GradientWalk:
    """The walk that `gradient_walk` measured; all logarithms are natural, all norms Euclidean.

    `print` shows the table of `summary`.

    Args:
        layer_names: One name per layer, in the order in which the model applies them; layer k of a
            `DenseStack` called s is `s[k]`, the second call of a shared layer t is `t#2`.
        backward: `ln|delta|` of the gradient at each layer's pre-activations, in nats, shape (examples,
            layers). -inf where the gradient is zero.
        forward: `ln|h|` of each layer's output, after its own activation, same shape.
        weight_gradient: ln of the norm of each kernel's gradient of the mean loss, shape (layers,); nan
            where a layer's kernel is unknown. For a shared layer that of all its calls.
        dead: Share of each layer's units that are dead or saturated for every example of the batch: no
            gradient, or a slope of at most 1 % of the activation's steepest. Shape (layers,). Where the
            layer waits, the share once a gradient reaches it.
        prediction: Prediction for a chain of Dense layers with the gains its kernels have; None for models
            of another kind.
        dtype: Dtype that the model was computed in.
        waits: Number of training steps after which a gradient reaches each layer, shape (layers,): 0 where
            it does at once; more behind weights that start at zero, such as an output layer of zeros or the
            scale at the end of a residual branch; inf where it never does. `None`: 0 or inf, as `backward`
            says.
        first_backward: `ln|delta|` when a gradient first reaches each layer, shape (examples, layers). A
            weight that leaves zero gives all layers behind it the same factor, so that only differences
            between layers of equal `waits` mean something. `None`: `backward`.

    Raises:
        ValueError: The parts do not fit together.
    """

    layer_names: tuple[str, ...]
    backward: Array
    forward: Array
    weight_gradient: Array
    dead: Array
    prediction: WalkPrediction | None = None
    dtype: str = "float64"
    waits: Array = None  # type: ignore[assignment]  # `__post_init__` fills it in
    first_backward: Array = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.waits is None:
            never = (np.asarray(self.backward) == -np.inf).all(axis=0)
            object.__setattr__(self, "waits", np.where(never, np.inf, 0.0))
        if self.first_backward is None:
            object.__setattr__(self, "first_backward", self.backward)
        _check_parts(self)

    @property
    def relative(self) -> Array:
        """`ln(|delta_d| / |delta_last|)`, shape (examples, layers).

        The last layer is that which the gradient reaches in the same step, the last hidden layer unless
        weights start at zero. nan where its gradient is zero.
        """
        relative = np.full(self.first_backward.shape, np.nan)
        for layers in self._groups():
            group = self.first_backward[:, layers]
            last = group[:, -1:]
            relative[:, layers] = group - np.where(np.isfinite(last), last, np.nan)
        never = np.isinf(self.waits)
        if not never.all():
            relative[:, never] = -np.inf
        return relative

    def _groups(self) -> list[NDArray[np.int64]]:
        """Returns the layers that the gradient reaches in one step, step by step."""
        steps = np.unique(self.waits[np.isfinite(self.waits)])
        return [np.flatnonzero(self.waits == step) for step in steps]

    def _totals(self) -> Array:
        """Returns each example's walk towards the input, summed over the groups, in nats."""
        relative = self.relative
        if np.isinf(self.waits[0]):  # no gradient arrives at the input
            return relative[:, 0]
        return np.asarray(sum(relative[:, layers[0]] for layers in self._groups()))

    @property
    def drift(self) -> float:
        """Mean step of `ln|delta|` towards the input, in nats per layer; 0 for a single layer.

        Steps are those between layers that the gradient reaches at the same time. Examples whose gradient is
        zero or not finite at the first or last of them are left out; where none remains, -inf or nan.
        """
        steps = len(self.layer_names) - len(self._groups())
        return float(mean_log_norm(self._totals()) / max(steps, 1))

    @property
    def example_spread(self) -> float:
        """Standard deviation over the examples of `ln(|delta_1| / |delta_last|)`, in nats.

        It is that of one network; `prediction.spread` is over networks. Examples are left out as in `drift`;
        nan where none remains.
        """
        totals = self._totals()
        alive = totals[np.isfinite(totals)]
        return float(alive.std()) if len(alive) else float("nan")

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
        """In words: fine, or what is wrong and from which layer on.

        Judged are the mean log-norms over the examples, relative to the last hidden layer.

        - dead: the gradient is zero for at least half of the examples, and stays zero in training.
        - not finite: weights, signals or gradients have overflowed.
        - vanishing, exploding: more than ln(10,000) = 9.2 nats below or above the last hidden layer (after
          He et al., arXiv:1502.01852, section 2.2, who found that a network stops learning at a factor of
          17,000).
        - shrinking, growing: more than ln(10) = 2.3 nats, and beyond what chance explains: the whole walk
          is longer than two standard deviations of its `prediction`, or the gradient changes by a factor of
          more than 1.05 from layer to layer.
        - fine: none of these.

        "From layer d on" holds for all layers between it and the input. Where layers nearer the input are
        well, for example past a dead residual branch, the verdict says "partly dead", or at how many layers
        the word holds. A note says how many layers wait for weights that start at zero: they are judged by
        the gradient that reaches them later. A verdict is about the size of the gradient alone: where the
        outputs of all inputs are alike, a network does not learn, however well its gradient is.
        """
        return judge(
            self.layer_names,
            self.forward,
            self.first_backward,
            self.relative,
            self.waits,
            self.drift,
            None if self.prediction is None else self.prediction.spread,
        )

    def summary(self) -> str:
        """Returns a table as text: at most two dozen of the layers, and the verdict."""
        examples, count = self.backward.shape
        prediction = self.prediction
        predicted = (
            [None] * count if prediction is None else zip(prediction.mean, prediction.std, strict=True)
        )
        means = mean_log_norm(self.relative), predicted, mean_log_norm(self.forward)
        columns = (self.layer_names, *means, self.weight_gradient, self.dead)
        rows = [LayerRow(*row) for row in zip(*columns, strict=True)]
        without = int((self.first_backward[:, np.isfinite(self.waits)] == -np.inf).any(axis=1).sum())
        left_out = f"{without:,} of {examples:,} examples are left out where they have no gradient\n"
        return (
            f"Gradient's walk over {count:,} layers, {examples:,} examples: {self.verdict}\n"
            f"{format_table(rows)}"
            f"{left_out if without else ''}"
            f"drift {self.drift:+.4f} nats per layer, example spread {self.example_spread:.3f} nats, "
            f"{self.dtype}\n"
        )

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        examples, layers = self.backward.shape
        return f"GradientWalk(layers={layers}, examples={examples}, verdict={self.verdict!r})"

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
            "waits": self.waits.tolist(),
            "first_backward": self.first_backward.tolist(),
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes a JSON file; numbers that are not finite are the strings "-inf", "inf" and "nan".

        Args:
            path: The file to write.
            overwrite: Whether a file of that name is replaced.

        Raises:
            ValueError: The file exists, and `overwrite` is False.
        """
        path = Path(path)
        check_new(path, overwrite=overwrite)
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
            names = content["layer_names"]
            walk = cls(
                tuple(names) if isinstance(names, list) else names,
                _to_array(content["backward"]),
                _to_array(content["forward"]),
                _to_array(content["weight_gradient"]),
                _to_array(content["dead"]),
                _read_prediction(content["prediction"]),
                content["dtype"],
            )
            if "waits" not in content:  # as in files of earlier versions
                return walk
            first_backward = _to_array(content["first_backward"])
            return dataclasses.replace(walk, waits=_to_array(content["waits"]), first_backward=first_backward)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path} does not hold a saved GradientWalk: {error!r}") from error

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the examples' walks, their mean and the predicted band; see `plots.plot_walk`.

        Args:
            ax: Axes to draw on. `None`: those of a new figure.

        Returns:
            The axes.
        """
        return plot_walk(self, self.prediction, ax=ax)


def _check_parts(walk: GradientWalk) -> None:
    """Raises ValueError if a record's parts do not fit together, which would show much later."""
    names, shape = walk.layer_names, np.shape(walk.backward)
    if not (isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)):
        raise ValueError(f"`layer_names` must be a tuple of one or more names. Received: {names!r}")
    if len(shape) != 2 or shape[0] < 1 or shape[1] != len(names):
        raise ValueError(
            f"`backward` must have the shape (examples, layers) with {len(names)} layers. Received: {shape}"
        )
    expected = {
        "forward": shape,
        "first_backward": shape,
        "weight_gradient": shape[1:],
        "dead": shape[1:],
        "waits": shape[1:],
    }
    for name, wanted in expected.items():
        if np.shape(getattr(walk, name)) != wanted:
            raise ValueError(
                f"`{name}` must have the shape {wanted}. Received: {np.shape(getattr(walk, name))}"
            )
    if not (walk.waits >= 0.0).all():
        raise ValueError(f"`waits` must be 0 or more. Received: {walk.waits}")
    prediction = walk.prediction
    if prediction is not None and not np.shape(prediction.mean) == np.shape(prediction.std) == shape[1:]:
        raise ValueError(
            f"`prediction` must have {len(names)} layers. Received: {np.shape(prediction.mean)} and "
            f"{np.shape(prediction.std)}"
        )
    if not isinstance(walk.dtype, str):
        raise ValueError(f"`dtype` must be a name. Received: {walk.dtype!r}")


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
    values = np.asarray(content, dtype=object)
    if any(value is None for value in values.flat):  # NumPy would make nan of it
        raise ValueError("null is no number")
    return values.astype(np.float64)
