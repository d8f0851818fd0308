"""Which kernels `deep_mlp` draws where their distribution and gains are not given."""

from __future__ import annotations

from typing import NamedTuple

from keras_rwinit.theory import Activation
from keras_rwinit.theory.distributions import resolve_distribution
from keras_rwinit.theory.mirrored import mirrored_slope

__all__ = ["KernelDefaults", "kernel_defaults"]

# Measured on the digits at depth 20 to 1000, ten epochs at the recipe's rate: a training loss of 0.004 at an
# output gain of 3 where it is 0.009 at 1 (20 tanh layers), 0.010 for 0.190 (300) and 0.027 for 0.505 (1000).
_OUTPUT_GAIN = 3.0

# Activations are nearly linear where pre-activations are small, so that the first layers keep what they
# read of the inputs. Measured on the digits with the recipe, two seeds: test accuracies of 95.8 % with the
# hidden layers' gain and 97.5 % with 0.3 (100 tanh layers of 100 units), 95.7 and 96.8 % (300), 90.5 and
# 93.3 % (100 of 32 units), 92.1 and 95.5 % (100 elu layers), 97.1 and 97.6 % (100 hard_tanh layers), 37.9
# and 95.0 % (20 sigmoid layers). The training loss was lower for tanh of 100 units and sigmoid, and higher
# for the others. 0.1 was as good, but the gradient then grows by so much in the first layers that it looks
# like a fault.
_INPUT_GAIN = 0.3


class KernelDefaults(NamedTuple):
    """What the arguments of `deep_mlp` stand for where they are None.

    Args:
        distribution: Name of the kernels' distribution.
        input_gain: Gain of the first kernel. `None`: that of the hidden kernels.
        output_gain: Gain of the classifier's kernel; with a mirrored distribution that of the linear network
            which the model is at first. `None`: that of a linear layer.
    """

    distribution: str
    input_gain: float | None
    output_gain: float | None


def kernel_defaults(
    activation: Activation, width: int, distribution: str | None = None, *, random_biases: bool = False
) -> KernelDefaults:
    """Returns the distribution and the gains of the first and the last kernel that `deep_mlp` takes.

    Args:
        activation: Activation of the hidden layers.
        width: Units of a hidden layer.
        distribution: Name of the distribution. `None`: one that trains at any depth.
        random_biases: Whether the hidden biases are drawn at random.

    Raises:
        ValueError: The distribution is unknown.

    Example:
        >>> from keras_rwinit.theory import resolve_activation
        >>> kernel_defaults(resolve_activation("relu"), 64)
        KernelDefaults(distribution='looks_linear', input_gain=1.0, output_gain=3.0)
        >>> kernel_defaults(resolve_activation("tanh"), 64)
        KernelDefaults(distribution='orthogonal', input_gain=0.3, output_gain=3.0)
        >>> kernel_defaults(resolve_activation("relu"), 64, "normal")
        KernelDefaults(distribution='normal', input_gain=None, output_gain=None)
    """
    chosen = distribution
    if chosen is None:
        chosen = _best_distribution(activation, width, random_biases=random_biases)
    # The first kernel reads data that come without an activation, and the last one undoes the activation
    # before it: with mirrored kernels both gains are those of a linear network.
    neutral = 1.0 if resolve_distribution(chosen).mirrored else None
    if distribution is not None or random_biases:
        return KernelDefaults(chosen, neutral, neutral)
    # With two slopes the gain of the first kernel is one of the logits. A shaped activation is curved as the
    # depth requires for pre-activations of variance one: 100 layers of shaped(gelu) were at a loss of 0.172
    # with 0.3, and at 0.032 with the hidden layers' gain.
    curved = neutral is None and activation.slopes is None and not activation.name.startswith("shaped(")
    return KernelDefaults(chosen, _INPUT_GAIN if curved else neutral, _OUTPUT_GAIN)


def _best_distribution(activation: Activation, width: int, *, random_biases: bool) -> str:
    if random_biases:
        return "normal"
    # A linear network gains nothing from pairs, which halve its width. A shaped ReLU, which is nearly linear,
    # loses nothing by them: 0.034 against 0.060 with orthogonal kernels at 100 layers, 0.11 each at 300
    # (training loss on the digits, ten epochs at width 64, means of three and two seeds). Shaped smooth
    # activations form no pairs.
    pairs = mirrored_slope(activation) is not None and len(set(activation.slopes or (0.0, 1.0))) > 1
    return "looks_linear" if pairs and width > 1 else "orthogonal"
