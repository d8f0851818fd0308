"""What a model, its layers and the generators of random numbers are, to compare before and after."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
from keras_helpers import BACKEND, to_numpy

Snapshot = dict[str, Any]


def snapshot(model: keras.Model) -> Snapshot:
    """What must not change: values by value, everything else by identity."""
    if BACKEND == "torch":
        list(model.parameters())  # Keras counts them when somebody asks for the first time
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else ())]
    found: Snapshot = {
        f"value {v.path} {number}": to_numpy(v).tobytes() for number, v in enumerate(variables)
    }
    for number, layer in enumerate(model._flatten_layers()):
        for name, value in vars(layer).items():
            found[f"{number} {layer.name} {name}"] = _identity(value)
    compiled = getattr(model, "_compile_loss", None)
    for owner in (model, compiled, optimizer):
        for name, value in vars(owner).items() if owner is not None else ():
            found[f"{type(owner).__name__} {name}"] = _identity(value)
    found["random"] = random.getstate()
    found["numpy"] = [np.asarray(part).tolist() for part in np.random.get_state()]  # noqa: NPY002
    generator = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
    found["keras"] = None if generator is None else to_numpy(generator.state).tobytes()
    if BACKEND == "torch":
        import torch

        found["torch"] = torch.random.get_rng_state().numpy().tobytes()
        found["gradients"] = [p.grad is None for p in model.parameters()]
    return found


def _identity(value: Any) -> Any:
    if isinstance(value, bool | int | float | str | tuple | None):
        return value
    if isinstance(value, list):
        return [id(one) for one in value]
    if isinstance(value, set):
        return set(value) if all(isinstance(one, int) for one in value) else {id(one) for one in value}
    if isinstance(value, dict):
        return {key: id(one) for key, one in value.items()}
    return id(value)


def assert_unchanged(before: Snapshot, after: Snapshot) -> None:
    """Fails with the names of all that changed."""
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    assert not changed, sorted(changed)
