"""What a model's gradient is of: its loss, or a random direction of its outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_real

__all__ = ["check_examples", "make_objective"]

_SEED = 1412_6558


def check_examples(name: str, value: Any) -> tuple[Any, int]:
    """`value` as NumPy arrays in its own structure, and how many examples they hold.

    Raises:
        ValueError: It holds no array, no example, different numbers of them, or something else than
            finite numbers.
    """
    arrays = keras.tree.map_structure(lambda leaf: _as_array(name, leaf), _arrays_apart(value))
    flat = keras.tree.flatten(arrays)
    counts = {len(array) for array in flat}
    if not flat or len(counts) != 1 or counts == {0}:
        raise ValueError(
            f"`{name}` must hold at least one example, and the same number in each of its arrays. "
            f"Received: shapes {[array.shape for array in flat]}"
        )
    return arrays, counts.pop()


def _arrays_apart(value: Any) -> Any:
    """Nested lists of numbers are one array; lists of arrays are several."""
    if isinstance(value, list) and not any(hasattr(leaf, "shape") for leaf in keras.tree.flatten(value)):
        return np.asarray(value)
    return value


def _as_array(name: str, leaf: Any) -> NDArray[Any]:
    if not hasattr(leaf, "__array__") and not keras.ops.is_tensor(leaf) and not np.isscalar(leaf):
        raise ValueError(
            f"`{name}` must hold arrays. Received: {type(leaf).__name__}; of a dataset take one batch, for "
            "example with `next(iter(dataset))`."
        )
    array = check_real(name, keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf)
    if array.ndim == 0:
        raise ValueError(f"`{name}` must hold examples along its first axis. Received: {leaf!r}, of shape ()")
    narrow = array.dtype.kind in "iu" and array.dtype.itemsize == 8 and np.abs(array).max() < 2**31
    return array.astype(np.int32) if narrow else array  # as JAX would, but for its warning


def make_objective(model: keras.Model, y: Any, loss: Any, examples: int) -> Callable[[Any], Any]:
    """A scalar of the outputs whose gradient at an example's signals is that of the example's own loss.

    Args:
        model: The model.
        y: Targets in the structure of its outputs, or None for a random direction of every output, the
            same for all examples.
        loss: A Keras loss, one for each output, or None for what the model was compiled with.
        examples: How many `y` must hold.
    """
    if y is None:
        if loss is not None:
            raise ValueError("A loss needs targets: pass `y=`, or leave `loss` out.")
        return _direction
    weights: Any = None
    if loss is None:
        loss = getattr(model, "loss", None)
        compiled = getattr(model, "_compile_loss", None)
        weights = getattr(compiled, "_user_loss_weights", None)
    if loss is None:
        raise ValueError("Targets need a loss: pass `loss=`, compile the model with one, or leave `y` out.")
    targets, count = check_examples("y", y)
    if count != examples:
        raise ValueError(f"`x` and `y` must hold equally many examples. Received: {examples} and {count}.")

    def objective(outputs: Any) -> Any:
        names = _output_names(model, outputs)
        parts, of_targets = _by_output(outputs, names), _by_output(targets, names)
        if len(of_targets) != len(parts):
            raise _BadTargets(f"the model has {len(parts)} outputs, and `y` holds {len(of_targets)} arrays")
        losses, factors = _spread(loss, names, len(parts)), _spread(weights, names, len(parts))
        if all(one is None for one in losses):
            raise _BadTargets("no output has a loss")
        total: Any = 0.0
        for part, target, one, factor in zip(parts, of_targets, losses, factors, strict=True):
            if one is not None:
                total = total + (1.0 if factor is None else factor) * _summed(one, target, part)
        return total

    return objective


class _BadTargets(ValueError):
    """`y` does not fit the loss or the outputs."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"`y` does not fit the loss and the model's outputs: {why}. Pass `y` and `loss` as you would to "
            "`fit` and `compile`, or leave both out."
        )


def _direction(outputs: Any) -> Any:
    rng = np.random.default_rng(_SEED)
    total: Any = 0.0
    for part in keras.tree.flatten(outputs):
        dtype = keras.backend.standardize_dtype(part.dtype)
        if keras.backend.is_float_dtype(dtype):
            towards = keras.ops.convert_to_tensor(rng.standard_normal(tuple(part.shape[1:])), dtype)
            total = total + keras.ops.sum(part * towards)
    return total


def _output_names(model: keras.Model, outputs: Any) -> list[str]:
    if isinstance(outputs, dict):
        return sorted(outputs)
    return list(getattr(model, "output_names", None) or [])


def _by_output(values: Any, names: list[str]) -> list[Any]:
    if isinstance(values, dict):
        _check_names(values, names)
        return [values[name] for name in names if name in values]
    return keras.tree.flatten(values)


def _spread(value: Any, names: list[str], count: int) -> list[Any]:
    """One of `value` for each output, whether it was given once, in a list or by name."""
    if isinstance(value, dict):
        _check_names(value, names)
        return [value.get(name) for name in names]
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise _BadTargets(f"there are {count} outputs and {len(value)} losses or weights")
        return list(value)
    return [value] * count


def _check_names(given: dict[str, Any], names: list[str]) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise _BadTargets(
            f"there is no output {', '.join(unknown)}; the outputs are {', '.join(names) or 'unnamed'}"
        )


def _summed(loss: Any, target: NDArray[Any], outputs: Any) -> Any:
    """Sum over examples of a loss; what Keras would compute or broadcast without a word is refused."""
    loss = keras.losses.get(loss)
    one_by_one = getattr(loss, "call", loss)
    name = str(getattr(loss, "name", None) or getattr(loss, "__name__", repr(loss)))
    shape = tuple(outputs.shape)
    owner = type(loss).__module__ if isinstance(loss, keras.losses.Loss) else getattr(loss, "__module__", "")
    if str(owner).startswith("keras."):  # of any other only its author knows what it takes
        if "sparse" in name:
            _check_labels(name, target, shape, getattr(loss, "ignore_class", None))
        elif target.shape != shape and target.shape != tuple(size for size in shape if size != 1):
            raise _BadTargets(f"{name} of outputs of shape {shape} received targets of shape {target.shape}")
        elif target.ndim == len(shape) - 1:
            target = target.reshape(shape)
    floats = target.dtype.kind == "f"
    dtype = keras.backend.standardize_dtype(outputs.dtype) if floats else str(target.dtype)
    tensor = keras.ops.convert_to_tensor(target, dtype)
    try:
        value = one_by_one(tensor, outputs)
    except (ValueError, TypeError) as error:
        raise _BadTargets(f"{name} says {error}") from error
    if len(value.shape) == 0:  # a mean over the batch
        return value * shape[0]
    return keras.ops.sum(value)


def _check_labels(name: str, target: NDArray[Any], shape: tuple[int, ...], ignored: int | None) -> None:
    classes = shape[-1]
    labels = target[target != ignored] if ignored is not None else target
    whole = labels.size == 0 or ((labels == np.round(labels)) & (labels >= 0) & (labels < classes)).all()
    if target.shape not in (shape[:-1], (*shape[:-1], 1)) or not whole:
        raise _BadTargets(
            f"{name} of {classes} classes needs whole numbers from 0 to {classes - 1}, of shape "
            f"{shape[:-1]}; it has shape {target.shape} and holds {target.min()} to {target.max()}"
        )
