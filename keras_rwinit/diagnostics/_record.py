"""`GradientWalk`: the record of a measured walk, with its verdict, table, file and picture."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count
from keras_rwinit._files import check_new, read_json, write_json
from keras_rwinit._probing.norms import mean_log_norm
from keras_rwinit._summary import Summarized
from keras_rwinit.plots import plot_correlation, plot_walk
from keras_rwinit.theory import WalkPrediction

from ._correlation import WalkCorrelation
from ._table import LayerRow, format_table
from ._verdict import Verdict, judge
from ._walk_file import (
    FORMAT,
    GradientWalkContent,
    describe_correlation,
    describe_prediction,
    read_correlation,
    read_prediction,
    to_array,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GradientWalk"]

Array = NDArray[np.float64]

_ABOUT_THE_START = "The verdict is about the start of training; for a trained model, pass `trained=True`.\n"


# Arrays have no equality that is true or false.
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class GradientWalk(Summarized):
    """The walk that `gradient_walk` measured; all logarithms are natural, all norms Euclidean.

    `print` shows the table of `summary`.

    Args:
        layer_names: One name per layer, in the order in which the model applies them; layer k of a
            `DenseStack` called s is `s[k]`, the second call of a shared layer t is `t#2`.
        backward: `ln|delta|` of the gradient at each layer's pre-activations, in nats, shape (examples,
            layers). -inf where the gradient is zero.
        forward: `ln|h|` of each layer's output, after its own activation, same shape.
        weight_gradient: ln of the norm of each kernel's gradient of the mean loss, shape (layers,); nan
            where a kernel is unknown or quantized. For a shared layer that of all its calls.
        dead: Share of each layer's units that are dead or saturated for every example of the batch: no
            gradient, or a slope of at most 1 % of the activation's steepest. Shape (layers,). Where the
            layer waits, the share once a gradient reaches it.
        prediction: Prediction for a chain of Dense layers with the gains its kernels have; None for models
            of another kind. It takes all biases for zero; others move the walk away from it.
        dtype: Dtype that the model was computed in.
        waits: Number of training steps after which a gradient reaches each layer, shape (layers,): 0 where
            it does at once; more behind weights that start at zero, or so near it that the first step makes
            the gradient three times as large, such as an output layer of zeros or the scale at the end of a
            residual branch; inf where it never does. `None`: 0 or inf, as `backward` says.
        first_backward: `ln|delta|` when a gradient first reaches each layer, shape (examples, layers). A
            weight that leaves zero gives all layers behind it the same factor, so that only differences
            between layers of equal `waits` mean something. `None`: `backward`.
        correlation: How alike different examples are at each layer; see `WalkCorrelation`. None where it was
            not measured, as in files of earlier versions.
        repeats: Whether each layer has the very kernel of another layer before it, as layers get that share
            one seeded initializer, shape (layers,). `None`: none has.
        trained: Whether the model had been trained; see `verdict`.
        initial_statistics: Number of `BatchNormalization` layers that the model ran with the mean 0 and the
            variance 1 that they begin with, and that training does not use; see `verdict`.
        unpredicted: Why there is no `prediction`; empty if there is one, and in files of earlier versions.

    Raises:
        ValueError: The parts do not fit together.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit import gradient_walk, model_zoo
        >>> model = model_zoo.deep_mlp(depth=12, width=32, input_shape=(8,), seed=0)
        >>> walk = gradient_walk(model, np.random.default_rng(0).normal(size=(4, 8)))
        >>> walk
        GradientWalk(layers=12, examples=4, verdict='fine')
        >>> walk.relative.shape, walk.layer_names[-1]
        ((4, 12), 'hidden_stack[10]')

    References:
        Sussillo & Abbott, Random Walk Initialization for Training Very Deep Feedforward Networks,
        arXiv:1412.6558.
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
    correlation: WalkCorrelation | None = None
    repeats: NDArray[np.bool_] = None  # type: ignore[assignment]
    trained: bool = False
    initial_statistics: int = 0
    unpredicted: str = ""

    def __post_init__(self) -> None:
        if self.waits is None:
            never = (np.asarray(self.backward) == -np.inf).all(axis=0)
            object.__setattr__(self, "waits", np.where(never, np.inf, 0.0))
        if self.first_backward is None:
            object.__setattr__(self, "first_backward", self.backward)
        if self.repeats is None:
            object.__setattr__(self, "repeats", np.zeros(len(self.layer_names), bool))
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
        # A weight that leaves zero multiplies the gradient of all layers behind it by a factor that says
        # nothing of the network, so that only layers of equal `waits` are compared.
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

            drift = mean over examples of ln(|delta_1| / |delta_D|) / (D - 1)   for D layers

        Steps are those between layers that the gradient reaches at the same time. Examples whose gradient is
        zero or not finite at the first or last of them are left out; where none remains, -inf or nan.
        """
        steps = len(self.layer_names) - len(self._groups())
        return float(mean_log_norm(self._totals()) / max(steps, 1))

    @property
    def example_spread(self) -> float:
        """Standard deviation over the examples of `ln(|delta_1| / |delta_last|)`, in nats.

            example_spread = sqrt(mean over examples of (r - mean of r)^2),  r = ln(|delta_1| / |delta_D|)

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

        The verdict goes by the mean log-norms over the examples, relative to the last hidden layer.

        - dead: the gradient is zero for at least half of the examples, and stays zero in training.
        - not finite: weights, signals or gradients have overflowed.
        - vanishing, exploding: more than ln(10,000) = 9.2 nats below or above the last hidden layer (after
          He et al., arXiv:1502.01852, section 2.2, who found that a network stops learning at a factor of
          17,000).
        - shrinking, growing: more than ln(10) = 2.3 nats, and beyond what chance explains: the whole walk
          is longer than two standard deviations of its `prediction`, or the gradient changes by a factor of
          more than 1.05 from layer to layer.
        - inputs collapsed: the gradient is well, but the outputs of different inputs are nearly parallel (a
          mean correlation above 0.99), and have lost three quarters of the directions in which the inputs
          differ (by `correlation.effective_rank`). A deep network that starts so learns slowly, or not.
        - inputs alike: the same at a mean correlation above 0.95 and half of the directions. Networks that
          start so learn, more slowly than those that are fine.
        - kernels repeat: layers have the very kernel of a layer before them, as one initializer with a seed
          gives it. Stands beside what else is wrong.
        - fine: none of these.

        "From layer d on" holds for all layers between it and the input, and for alike or collapsed inputs
        for all layers up to the last. Where layers nearer the input are well, for example past a dead
        residual branch, the verdict says "partly dead", or at how many layers the word holds. A note says how
        many layers wait for weights that start at or near zero: they are judged by the gradient that reaches
        them later. `advice` says what to try.

        Another note says how many `BatchNormalization` layers have seen no data. Without `training=True` they
        pass their inputs on as they are, and the network is another one than that which training starts from:
        one with shortcuts may grow that is fine in training, and a plain one vanish that grows there.

        The verdict is about the start of training: its limits were measured on networks before their first
        step. A network that has learned may well grow towards the input. Where `trained` is True only what
        stops a training at any time counts: dead, not finite, vanishing, exploding and kernels that repeat;
        "fine" then means none of these.
        """
        return self._judge().text

    @property
    def advice(self) -> str:
        """What to try if the verdict is not fine, in a sentence; empty if it is."""
        return self._judge().advice

    def _judge(self) -> Verdict:
        return judge(
            self.layer_names,
            self.forward,
            self.first_backward,
            self.relative,
            self.waits,
            self.drift,
            None if self.prediction is None else self.prediction.spread,
            self.repeats,
            self.correlation,
            self.trained,
            self.initial_statistics,
        )

    def assert_healthy(self) -> None:
        """Does nothing if the verdict is fine, for the tests of your own models.

        Layers that only wait for weights that start at or near zero are fine.

        Raises:
            AssertionError: The verdict is another one. The message says which, from which layer on, and what
                to try.

        Example:
            >>> import keras, numpy as np
            >>> from keras_rwinit import gradient_walk, model_zoo
            >>> x = np.random.default_rng(0).normal(size=(16, 8))
            >>> model = model_zoo.deep_mlp(depth=50, width=32, input_shape=(8,), seed=0)
            >>> gradient_walk(model, x).assert_healthy()
            >>> for layer in model.layers[1:-1]:
            ...     layer.set_weights([weight / 2.0 for weight in layer.get_weights()])
            >>> gradient_walk(model, x).assert_healthy()  # doctest: +ELLIPSIS
            Traceback (most recent call last):
                ...
            AssertionError: The gradient's walk is not healthy: vanishing from hidden_stack[34] (layer ...
        """
        verdict = self._judge()
        if verdict.faults:
            raise AssertionError(f"The gradient's walk is not healthy: {verdict.text}.\n{verdict.advice}")

    def summary(self) -> str:
        """Returns the verdict, a table of two dozen of the layers, and what its columns mean.

        The layers that the verdict names are in the table.
        """
        verdict = self._judge()
        examples, count = self.backward.shape
        prediction = self.prediction
        predicted = (
            [None] * count if prediction is None else zip(prediction.mean, prediction.std, strict=True)
        )
        means = mean_log_norm(self.relative), predicted, mean_log_norm(self.forward)
        pairs: list[Iterable[float | None]] = [[None] * count] * 3
        if self.correlation is not None:
            correlation = self.correlation
            pairs = [correlation.forward, correlation.backward, correlation.effective_rank]
        columns = (self.layer_names, *means, self.weight_gradient, self.dead, *pairs)
        rows = [LayerRow(*row) for row in zip(*columns, strict=True)]
        without = int((self.first_backward[:, np.isfinite(self.waits)] == -np.inf).any(axis=1).sum())
        left_out = f"{without:,} of {examples:,} examples are left out where they have no gradient\n"
        return (
            f"Gradient's walk over {count:,} layers, {examples:,} examples: {verdict.text}\n"
            f"{format_table(rows, verdict.layers)}"
            f"{f'no prediction, since {self.unpredicted}' + chr(10) if self.unpredicted else ''}"
            f"{left_out if without else ''}"
            f"drift {self.drift:+.4f} nats per layer, example spread {self.example_spread:.3f} nats, "
            f"{self.dtype}\n"
            f"{self._describe_correlation()}"
            f"{'' if self.trained else _ABOUT_THE_START}"
            f"{f'Try: {self.advice}' + chr(10) if self.advice else ''}"
        )

    def _describe_correlation(self) -> str:
        """Returns a line on the two ends of the model, and the prediction for the last layer."""
        if self.correlation is None or np.isnan(self.correlation.inputs):
            return ""
        correlation, prediction = self.correlation, self.correlation.prediction
        predicted = ""
        if prediction is not None:
            predicted = f" (predicted {prediction.mean[-1]:.4f} ± {prediction.std[-1]:.4f})"
        return (
            f"correlation of examples {correlation.inputs:.4f} in the inputs, {correlation.forward[-1]:.4f} "
            f"in the last layer{predicted}; effective rank {correlation.inputs_rank:.1f} and "
            f"{correlation.effective_rank[-1]:.1f}\n"
        )

    def __repr__(self) -> str:
        examples, layers = self.backward.shape
        return f"GradientWalk(layers={layers}, examples={examples}, verdict={self.verdict!r})"

    def to_dict(self) -> GradientWalkContent:
        """Returns everything measured and derived, as lists, strings and numbers."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "drift": self.drift,
            "example_spread": self.example_spread,
            "dtype": self.dtype,
            "layer_names": list(self.layer_names),
            "backward": self.backward.tolist(),
            "forward": self.forward.tolist(),
            "weight_gradient": self.weight_gradient.tolist(),
            "dead": self.dead.tolist(),
            "prediction": describe_prediction(self.prediction),
            "waits": self.waits.tolist(),
            "first_backward": self.first_backward.tolist(),
            "correlation": describe_correlation(self.correlation),
            "repeats": self.repeats.tolist(),
            "trained": self.trained,
            "initial_statistics": self.initial_statistics,
            "unpredicted": self.unpredicted,
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes a JSON file; numbers that are not finite are the strings "-inf", "inf" and "nan".

        Args:
            path: The file to write.
            overwrite: Whether a file of that name is replaced.

        Raises:
            ValueError: The file exists, and `overwrite` is False.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from keras_rwinit import GradientWalk
            >>> walk = GradientWalk(("a", "b"), np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(2), np.zeros(2))
            >>> with tempfile.TemporaryDirectory() as directory:
            ...     walk.save(f"{directory}/walk.json")
            ...     GradientWalk.load(f"{directory}/walk.json")
            GradientWalk(layers=2, examples=3, verdict='fine')
        """
        path = Path(path)
        check_new(path, overwrite=overwrite)
        write_json(path, self.to_dict(), non_finite="name")

    @classmethod
    def load(cls, path: str | Path) -> GradientWalk:
        """Reads what `save` wrote, in this version or an earlier one.

        Args:
            path: The file to read.

        Returns:
            The walk; what is derived, such as the verdict, is computed again.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file holds no walk.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from keras_rwinit import GradientWalk
            >>> backward = np.array([[2.0, 1.0, 0.0]])
            >>> walk = GradientWalk(("a", "b", "c"), backward, backward, np.zeros(3), np.zeros(3))
            >>> with tempfile.TemporaryDirectory() as directory:
            ...     walk.save(f"{directory}/walk.json")
            ...     GradientWalk.load(f"{directory}/walk.json").drift
            1.0
        """
        try:
            content: GradientWalkContent = read_json(Path(path))
            # Derived numbers such as the drift are computed again, so that their names may change.
            if content["format"] != FORMAT:
                raise ValueError(content["format"])
            names = content["layer_names"]
            walk = cls(
                tuple(names) if isinstance(names, list) else names,
                to_array(content["backward"]),
                to_array(content["forward"]),
                to_array(content["weight_gradient"]),
                to_array(content["dead"]),
                read_prediction(content["prediction"]),
                content["dtype"],
            )
            if "waits" not in content:  # as in files of earlier versions
                return walk
            first_backward = to_array(content["first_backward"])
            walk = dataclasses.replace(walk, waits=to_array(content["waits"]), first_backward=first_backward)
            if "correlation" not in content:
                return walk
            return dataclasses.replace(
                walk,
                correlation=read_correlation(content["correlation"]),
                repeats=to_array(content["repeats"]).astype(bool),
                # Files of earlier versions do not say.
                trained=content.get("trained", False),
                initial_statistics=content.get("initial_statistics", 0),
                unpredicted=content.get("unpredicted", ""),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path} does not hold a saved GradientWalk: {error!r}") from error

    def plot(self, ax: Axes | None = None, *, correlation: bool = False) -> Axes:
        """Draws the examples' walks, their mean and the predicted band; see `plots.plot_walk`.

        Args:
            ax: Axes to draw on. `None`: those of a new figure.
            correlation: Whether to draw how alike the examples are instead; see `plots.plot_correlation`.

        Returns:
            The axes.

        Raises:
            ImportError: Matplotlib is missing; the message names the extra to install.
            ValueError: `correlation` is True and was not measured.

        Example:
            >>> import numpy as np
            >>> from keras_rwinit import GradientWalk
            >>> walk = GradientWalk(("a", "b"), np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(2), np.zeros(2))
            >>> walk.plot().get_ylabel()
            'ln |δ| relative to the last hidden layer (nats)'
        """
        if not correlation:
            return plot_walk(self, self.prediction, ax=ax)
        if self.correlation is None:
            raise ValueError(
                "`correlation` can be drawn of a walk that has it. Received: a walk of an earlier version, "
                "which has none; measure it again with `gradient_walk`."
            )
        return plot_correlation(self.correlation, self.correlation.prediction, ax=ax)


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
        "repeats": shape[1:],
    }
    for name, wanted in expected.items():
        if np.shape(getattr(walk, name)) != wanted:
            raise ValueError(
                f"`{name}` must have the shape {wanted}. Received: {np.shape(getattr(walk, name))}"
            )
    if not (walk.waits >= 0.0).all():
        raise ValueError(f"`waits` must be 0 or more. Received: {walk.waits}")
    if walk.correlation is not None and np.shape(walk.correlation.forward) != shape[1:]:
        raise ValueError(
            f"`correlation` must have {len(names)} layers. Received: {len(walk.correlation.forward)}"
        )
    prediction = walk.prediction
    if prediction is not None and not np.shape(prediction.mean) == np.shape(prediction.std) == shape[1:]:
        raise ValueError(
            f"`prediction` must have {len(names)} layers. Received: {np.shape(prediction.mean)} and "
            f"{np.shape(prediction.std)}"
        )
    if not isinstance(walk.trained, bool):
        raise ValueError(f"`trained` must be True or False. Received: {walk.trained!r}")
    if not isinstance(walk.dtype, str):
        raise ValueError(f"`dtype` must be a name. Received: {walk.dtype!r}")
    check_count("initial_statistics", walk.initial_statistics, minimum=0)
    if not isinstance(walk.unpredicted, str):
        raise ValueError(f"`unpredicted` must be a text. Received: {walk.unpredicted!r}")
