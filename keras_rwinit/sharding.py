"""Layouts that share the weights of very deep networks among several devices."""

from __future__ import annotations

import keras

__all__ = ["layout_map"]

_STACK, _HIDDEN = r"(^|.*/)(hidden|dense)_stack(_\d+)?", r"(^|.*/)hidden_\d+"


def layout_map(device_mesh: keras.distribution.DeviceMesh) -> keras.distribution.LayoutMap:
    """Returns layouts that share the units of each hidden layer among the devices of the mesh axis `"model"`.

    The kernel `(depth, units, units)` and bias `(depth, units)` of a `DenseStack` are sharded along their
    last axis, the layer's outputs, as are the kernels and biases of the plain layers `hidden_1`, `hidden_2`,
    ... of `model_zoo.deep_mlp`. The classifier's kernel is sharded along its inputs, which are on different
    devices already. Its bias and all weights with other names are on every device as a whole. Each device
    keeps `1 / devices` of a stack, of its gradient and of the optimizer's moments.

    In the forward pass, each device gathers the activations `(batch, units)` from all devices and multiplies
    them with its columns of the kernel. In the backward pass, the devices add up their parts of the gradient
    at the activations. No device holds another's columns of the kernel.

    Keras distributes models on JAX only. `units` must be a multiple of the number of devices on the axis
    `"model"`.

    Args:
        device_mesh: `keras.distribution.DeviceMesh` with an axis `"model"`. Another axis may share the batch.

    Returns:
        `keras.distribution.LayoutMap`, for `keras.distribution.ModelParallel`. Add layouts for layers
        of other names to it: `layouts["encoder/kernel"] = (None, "model")`.

    Raises:
        ValueError: The mesh has no axis `"model"`.

    Example:
        >>> import keras
        >>> from keras_rwinit import sharding
        >>> mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
        >>> layouts = sharding.layout_map(mesh)
        >>> layouts["hidden_stack/kernel"].axes, layouts["classifier/kernel"].axes
        ((None, None, 'model'), ('model', None))
        >>> parallel = keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")

        On JAX, build, compile and fit the model inside `with parallel.scope():`.
    """
    names = tuple(getattr(device_mesh, "axis_names", ()))
    if "model" not in names:
        raise ValueError(
            "`device_mesh` must be a keras.distribution.DeviceMesh with an axis named 'model', as in "
            f"DeviceMesh((1, 8), ('batch', 'model')). Received: device_mesh={device_mesh!r}"
        )
    layouts = keras.distribution.LayoutMap(device_mesh)
    layouts[f"{_STACK}/kernel$"] = (None, None, "model")
    layouts[f"{_STACK}/bias$"] = (None, "model")
    layouts[f"{_HIDDEN}/kernel$"] = (None, "model")
    layouts[f"{_HIDDEN}/bias$"] = ("model",)
    layouts[r"(^|.*/)classifier/kernel$"] = ("model", None)
    return layouts
