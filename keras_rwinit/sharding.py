"""How the weights of very deep networks lie on several devices."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["layout_map"]

_STACK, _HIDDEN = r"(^|.*/)(hidden|dense)_stack(_\d+)?", r"(^|.*/)hidden_\d+"


def layout_map(device_mesh: Any) -> Any:
    """Layouts that cut the units of every hidden layer among the devices of a mesh's axis `"model"`.

    A `DenseStack`'s kernel `(depth, units, units)` and bias `(depth, units)` are cut along their last axis,
    the layer's outputs, and so are the kernels and biases of the plain layers `hidden_1`, `hidden_2`, ... of
    `model_zoo.deep_mlp`. The classifier's kernel is cut along its inputs, which already lie on different
    devices; its bias, and all that has another name, every device holds whole. Each device keeps
    `1 / devices` of a stack, of its gradient and of the optimizer's moments.

    Forward, a layer gathers the activations `(batch, units)` from all devices and multiplies them with its
    columns; backward, the devices add up their shares of the gradient of the activations. No device ever
    holds another's columns of the kernel.

    The back end that distributes models is JAX. `units` must be a multiple of the devices on the axis
    `"model"`.

    Args:
        device_mesh: `keras.distribution.DeviceMesh` with an axis `"model"`; another axis may cut the batch.

    Returns:
        `keras.distribution.LayoutMap`, for `keras.distribution.ModelParallel`. Add layouts for layers
        of other names to it: `layouts["encoder/kernel"] = (None, "model")`.

    Raises:
        ValueError: The mesh has no axis `"model"`.

    Example:
        >>> import keras
        >>> from keras_rwinit import distribution
        >>> mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), ["cpu:0"])
        >>> layouts = distribution.layout_map(mesh)
        >>> layouts["hidden_stack/kernel"].axes, layouts["classifier/kernel"].axes
        ((None, None, 'model'), ('model', None))
        >>> parallel = keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")

        On JAX, `with parallel.scope():` then goes around building, compiling and fitting the model.
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
