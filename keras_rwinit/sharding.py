"""Layouts that share the weights of very deep networks among several devices."""

from __future__ import annotations

import keras

__all__ = ["layout_map"]

# Names that the package and Keras give. A layer of another kind has a kernel of two axes.
_PART = r"(hidden|encoder|decoder)_\d+"
_STACK = rf"(^|.*/)((hidden|dense)_stack(_\d+)?|{_PART}_stack)"
_HIDDEN = rf"(^|.*/){_PART}"


def layout_map(device_mesh: keras.distribution.DeviceMesh) -> keras.distribution.LayoutMap:
    """Returns layouts that share the units of each hidden layer among the devices of the mesh axis `"model"`.

    The layouts go by the names of layers. The kernel `(depth, units, units)` and bias `(depth, units)` of a
    `DenseStack` are sharded along their last axis, the layer's outputs, if it has the name that Keras gives
    it, `dense_stack`, or that of a stack of `model_zoo`: `hidden_stack`, `encoder_1_stack`,
    `decoder_1_stack`, .... So are the kernels and biases of the plain layers `hidden_1`, `encoder_1`,
    `decoder_1`, ... of `model_zoo`. The kernel of `classifier` is sharded along its inputs, which are on
    different devices already. Its bias and all weights with other names are on every device as a whole. Each
    device keeps `1 / devices` of a stack, of its gradient and of the optimizer's moments.

    In the forward pass, each device gathers the activations `(batch, units)` from all devices and multiplies
    them with its columns of the kernel. In the backward pass, the devices add up their parts of the gradient
    at the activations. No device holds another's columns of the kernel.

    Keras distributes models on JAX only. `units` must be a multiple of the number of devices on the axis
    `"model"`.

    Args:
        device_mesh: `keras.distribution.DeviceMesh` with an axis `"model"`. Another axis may share the batch.

    Returns:
        `keras.distribution.LayoutMap`, for `keras.distribution.ModelParallel`. Add layouts for layers
        of other names to it: `layouts["projection/kernel"] = (None, "model")`.

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
