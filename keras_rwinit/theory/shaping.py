r"""Shapes an activation for a depth, so that any two inputs stay apart and the gradient keeps its norm.

Through many layers the correlation of two inputs tends to one (ReLU, whose outputs then say little about the
input) or to a point that does not depend on the inputs. A shaped activation is nearly linear, by as much as
the depth asks for: two orthogonal inputs come out correlated by 0.9, say.

**Two slopes** (tailored rectifiers: Zhang, Botev & Martens, ICLR 2022). The slope below 0 is chosen so that
the map C of correlations, applied `depth` times to 0, is the correlation wanted. The gain of two slopes is
exact at every width.

**Smooth activations** become `fs(x) = c (f(a x + b) + d)`. For `x ~ N(0, 1)` three of the conditions are
those of deep kernel shaping (Martens et al., arXiv:2110.01765) and tailoring:

    E fs^2 = 1,    E fs'^2 = 1,    C(...C(0)) = correlation.

The fourth condition of both is `E[x fs fs'] = 1`, with which the variance of the pre-activations neither
returns after a disturbance nor runs away. At finite width that is one too many. The alignment t of the
gradient with the pre-activations obeys (see `_mean_field`, here at `E fs^2 = E fs'^2 = 1`)

    t_d - 1 = s + (t_{d+1} - 1) Q^2,    s = E[x^2 fs'^2] - 1,    Q = E[x fs fs'].

With `Q = 1` it grows by s a layer, so that the walk no longer is one, and no finite-width gain exists (GELU
at depth 200). Let `fs = sum_k f_k He_k / sqrt(k!)`, where at depth L the bent part is small: f_2^2 and f_3
are of order 1 / L. The first two conditions give `f_0^2 = f_2^2 + 2 f_3^2 + ...`, and to leading order

    Q = 1 + sqrt(2) f_0 f_2 + sqrt(6) f_1 f_3,    s = 4 f_2^2 + 2 sqrt(6) f_1 f_3,
    C(c) - c = f_2^2 (1 - c)^2.

Here f_0 has the sign of `-f_2`, so that Q is the smaller one, and the condition is that the alignment's
fixed point `t = 1 + s / (1 - Q^2)` is 0.7. Then `f_1 f_3 = -sqrt(2) f_2^2` and

    1 - Q = (sqrt(2) + 2 sqrt(3)) f_2^2.

From the last line of the three, `f_2^2 L = correlation / (1 - correlation)`: 9 for a correlation of 0.9. So
`1 - Q = 44 / L`: as little below one as the bend itself. The alignment settles within L / 88 layers and stays
within the 2 beyond which `gain` refuses, at every depth. The variance fluctuates by
`Var ln q = 2 / (N (1 - Q^2)) = L / (44 N)`, a share of the walk's own variance `L / (2 N)`, so that the
expansion in 1 / width holds where depth is not far beyond 44 widths. These are the conditions for a gain.

Any t from 0 to 1 would do for that; 0.7 was measured. With `t = 1` (s = 0) the terms of second order, L /
N^2, leave a drift of -0.24 ± 0.05 nats in GELU networks of 1,000 layers of width 100, with 0.85 one of
-0.07 ± 0.05 and with 0.7 one of 0.01 ± 0.06.

The condition has a solution for every activation of `SHAPED`: near it `f' f''' = -sqrt(3) f''^2`, which
gives the shift b = 1.005 for softplus, 0.416 for tanh and 0.53 for GELU at great depth. Of several the one
next to 0 is taken.
"""

from __future__ import annotations

from keras_rwinit._checks import check_count, check_positive

from .activation import Activation
from .activation_names import check_can_be_shaped, shaped_activation

__all__ = ["shape_activation"]


def shape_activation(name: str, depth: int, *, correlation: float = 0.9) -> Activation:
    """Returns an activation that is shaped for networks of `depth` hidden layers.

    Of two orthogonal inputs the activations of the last layer have the given correlation, at infinite width
    and unit variance; see `predict_correlation` for other widths. The shape solves equation (shaping) of the
    theory page. The shape of a smooth activation solves equation (fixedpoint) of the theory page as well.
    Activations of two slopes become `leaky_relu` of another slope, smooth ones `c (f(a x + b) + d)`. The
    parameters have six digits. Shallow networks need no shape: there the bend is that of ReLU at most, and
    the correlation may stay below.

    A shaped activation has a gain (`keras_rwinit.gain`). Measured for GELU, SiLU, Mish, softplus, tanh,
    sigmoid and ELU: at 50, 200 and 1,000 layers from width 32 up.

    Args:
        name: `"relu"` or `"leaky_relu"`; `"gelu"`, `"gelu_tanh"`, `"silu"` (or `"swish"`), `"mish"`,
            `"softplus"`, `"tanh"`, `"sigmoid"` or `"elu"`.
        depth: Number of hidden layers, at least 1.
        correlation: Correlation of the outputs for orthogonal inputs, from 0.01 to 0.99. The smaller, the
            more nearly linear.

    Returns:
        The `Activation`. Its `name` gives the parameters, as in `"leaky_relu(0.6796)"`, and is a name
        wherever the package takes one. Keras's own layers take `keras_rwinit.layers.get_activation(name)`.

    Raises:
        ValueError: An argument is out of range, the activation is none of those above, or the layers are too
            many: from a few million on, the more the larger the correlation.

    Example:
        >>> shape_activation("relu", depth=200).name
        'leaky_relu(0.6796)'
        >>> from keras_rwinit.theory import gain
        >>> shaped = shape_activation("gelu", depth=200)
        >>> round(gain(shaped, width=100, depth=200), 3)
        1.01

    References:
        Zhang, Botev & Martens, ICLR 2022, arXiv:2203.08120; Martens et al., arXiv:2110.01765.
    """
    check_can_be_shaped(name)
    return shaped_activation(name, check_count("depth", depth), check_positive("correlation", correlation))
