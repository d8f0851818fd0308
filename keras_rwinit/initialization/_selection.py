"""Finds the weights of the layers that the user names."""

from __future__ import annotations

from collections.abc import Iterable

import keras

__all__ = ["select_variables"]


def select_variables(model: keras.Model, layers: Iterable[keras.layers.Layer | str] | None) -> set[int]:
    """Returns the ids of the variables of the given layers of a model and of the layers inside them.

    Args:
        model: The model.
        layers: Layers of it or their names, or None for the whole model.

    Raises:
        ValueError: One of them is no layer of the model, or several layers have the name.
    """
    if layers is None:
        return {id(variable) for variable in model.variables}
    inside = [layer for layer in model._flatten_layers() if layer is not model]
    try:
        given = [layers] if isinstance(layers, str | keras.layers.Layer) else list(layers)
    except TypeError:  # an array without an axis counts as iterable
        raise ValueError(
            f"`layers` must hold layers of the model, or their names. Received: {layers!r}"
        ) from None
    chosen = [_find(inside, layer) for layer in given]
    return {id(variable) for layer in chosen for variable in layer.variables}


def _find(inside: list[keras.layers.Layer], wanted: keras.layers.Layer | str) -> keras.layers.Layer:
    named = isinstance(wanted, str)
    found = [x for x in inside if x is wanted or (named and wanted in (x.name, x.path))]
    # The path tells layers of the same name apart.
    found = [layer for layer in found if named and layer.path == wanted] or found
    if len(found) == 1:
        return found[0]
    problem = f"of which there are {len(found)}" if found else "which is none"
    names = ", ".join(sorted({layer.name for layer in inside})[:20])
    raise ValueError(
        "`layers` must hold layers of the model, or names or paths that only one of them has. "
        f"Received: {wanted!r}, {problem}. Layers: {names}"
    )
