"""What a physics-informed network trains on: weights' gradients of second derivatives by the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import BACKEND, to_numpy
from numpy.typing import NDArray

from keras_rwinit._keras.execution import double_precision
from keras_rwinit.layers import DenseStack

Array = NDArray[Any]

pytestmark = pytest.mark.backends

DEPTH, UNITS = 100, 8
POINTS = np.linspace(-1.0, 1.0, 5)[:, None]
RNG = np.random.default_rng(0)


def make_stack() -> DenseStack:
    """A stack in float64 that is not close to linear."""
    stack = DenseStack(
        DEPTH,
        "tanh",
        kernel_initializer=keras.initializers.Orthogonal(1.15, seed=1),
        bias_initializer=keras.initializers.RandomNormal(stddev=0.1, seed=2),
        dtype="float64",
    )
    stack.build((None, UNITS))
    return stack


def residual(u: Any, u_x: Any, u_xx: Any) -> Any:
    """Of a nonlinear equation, so that all three count."""
    return u_xx + u * u_x + u


def loss_by_hand(weights: Sequence[Array]) -> Any:
    """The mean square residual of the Dense layers in NumPy: the chain rule, one layer at a time."""
    kernel, bias, kernels, biases, last, offset = weights
    layers = [(kernel, bias, False), *((k, b, True) for k, b in zip(kernels, biases, strict=True))]
    h, h_x, h_xx = POINTS, np.ones_like(POINTS), np.zeros_like(POINTS)
    for w, b, activated in layers:
        h, h_x, h_xx = h @ w + b, h_x @ w, h_xx @ w
        if activated:
            h = np.tanh(h)
            slope = 1.0 - h**2
            h_x, h_xx = slope * h_x, slope * h_xx - 2.0 * h * slope * h_x**2
    return np.mean(residual(h @ last + offset, h_x @ last, h_xx @ last) ** 2)


def slope_by_hand(weights: Sequence[Array], number: int, direction: Array) -> float:
    """The loss's derivative along a direction of one weight, by a complex step: exact to rounding."""
    moved = [weight + (1e-30j * direction if i == number else 0.0) for i, weight in enumerate(weights)]
    return float(loss_by_hand(moved).imag / 1e-30)


# The same by each back end's own differentiation, compiled where it compiles.


def on_tensorflow(network: Callable[[Sequence[Any], Any], Any], weights: Sequence[Array]) -> Any:
    import tensorflow as tf

    @tf.function(jit_compile=True, autograph=False)
    def differentiate(x: Any, *weights: Any) -> Any:
        with tf.GradientTape() as by_weights:
            by_weights.watch(weights)
            with tf.GradientTape() as second:
                second.watch(x)
                with tf.GradientTape() as first:
                    first.watch(x)
                    u = network(weights, x)
                u_x = first.gradient(u, x)
            u_xx = second.gradient(u_x, x)
            loss = tf.reduce_mean(residual(u, u_x, u_xx) ** 2)
        return loss, by_weights.gradient(loss, weights)

    return differentiate(tf.constant(POINTS), *(tf.constant(weight) for weight in weights))


def on_jax(network: Callable[[Sequence[Any], Any], Any], weights: Sequence[Array]) -> Any:
    import jax

    def loss(weights: Sequence[Any], x: Any) -> Any:
        def slope(x: Any) -> tuple[Any, Any]:
            return jax.jvp(lambda x: network(weights, x), (x,), (jax.numpy.ones_like(x),))

        (u, u_x), (_, u_xx) = jax.jvp(slope, (x,), (jax.numpy.ones_like(x),))
        return jax.numpy.mean(residual(u, u_x, u_xx) ** 2)

    return jax.jit(jax.value_and_grad(loss))(list(weights), POINTS)


def on_torch(network: Callable[[Sequence[Any], Any], Any], weights: Sequence[Array]) -> Any:
    import torch

    x = torch.tensor(POINTS, requires_grad=True)
    tensors = [torch.tensor(weight, requires_grad=True) for weight in weights]
    u = network(tensors, x)
    (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
    loss = (residual(u, u_x, u_xx) ** 2).mean()
    return loss.detach(), torch.autograd.grad(loss, tensors)


DIFFERENTIATE = {"tensorflow": on_tensorflow, "jax": on_jax, "torch": on_torch}


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64:UserWarning")
def test_a_residual_with_second_derivatives_at_a_hundred_layers() -> None:
    """Loss and gradients are those of separate layers in NumPy; those of a changed weight are others."""
    with double_precision():
        stack = make_stack()
        stacked = [to_numpy(weight) for weight in stack.trainable_variables]
        outer = [RNG.standard_normal(shape) for shape in ((1, UNITS), (UNITS,), (UNITS, 1), (1,))]
        weights = [*outer[:2], *stacked, *outer[2:]]

        # The layers around the stack are no Dense layers: Keras multiplies in float32 on PyTorch.
        def network(tensors: Sequence[Any], x: Any) -> Any:
            kernel, bias, kernels, biases, last, offset = tensors
            h, _ = stack.stateless_call([kernels, biases], [], x @ kernel + bias, training=True)
            return h @ last + offset

        loss, gradients = DIFFERENTIATE[BACKEND](network, weights)
        loss, gradients = to_numpy(loss), [to_numpy(gradient) for gradient in gradients]
    assert all(weight.dtype == np.float64 for weight in weights)
    np.testing.assert_allclose(loss, loss_by_hand(weights), rtol=1e-10)
    for number, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        direction = RNG.standard_normal(weight.shape)
        by_hand = slope_by_hand(weights, number, direction)
        size = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert size > 0.0
        assert abs(np.sum(gradient * direction) - by_hand) < 1e-10 * size
        # The twin: a thousandth of the weight's size moves the slope by far more than that.
        moved = [w + (1e-3 * direction if i == number else 0.0) for i, w in enumerate(weights)]
        assert abs(slope_by_hand(moved, number, direction) - by_hand) > 1e-7 * size
