"""Replaces what live objects do for one thread; all other threads go on with the original."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

__all__ = ["OBSERVATION_LOCK", "replace_function", "replace_policy"]

OBSERVATION_LOCK = threading.RLock()
"""Held while a model is observed: two at once would take each other's replacements for originals."""

_MISSING = object()


@contextlib.contextmanager
def replace_function(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replaces a function of an object, class or module, for calls of the present thread alone.

    For an object it goes around `__setattr__`, which Keras and PyTorch use for tracking.
    """
    attributes = vars(owner)
    before, original = attributes.get(name, _MISSING), getattr(owner, name)
    thread, active = threading.get_ident(), True

    def choose(*args: Any, **kwargs: Any) -> Any:
        # Another thread may hold this function for longer than the replacement lasts.
        chosen = function if active and threading.get_ident() == thread else original
        return chosen(*args, **kwargs)

    _set(owner, name, choose)
    try:
        yield
    finally:
        active = False
        # What somebody else has set meanwhile stays.
        if vars(owner).get(name) is choose:
            _set(owner, name, before)


def _set(owner: Any, name: str, value: object) -> None:
    if isinstance(owner, type):
        if value is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, value)
    elif value is _MISSING:
        del vars(owner)[name]
    else:
        vars(owner)[name] = value


class _PolicyOfThread:
    """A dtype policy that is one for a thread, and another for all others."""

    def __init__(self, policy: keras.DTypePolicy, original: keras.DTypePolicy) -> None:
        thread = threading.get_ident()

        def choose() -> keras.DTypePolicy:
            return policy if threading.get_ident() == thread else original

        object.__setattr__(self, "_choose", choose)

    def __getattribute__(self, name: str) -> Any:
        # With `__class__`, so that `isinstance` sees the chosen policy too.
        return getattr(object.__getattribute__(self, "_choose")(), name)

    def __eq__(self, other: object) -> bool:
        return bool(object.__getattribute__(self, "_choose")() == other)

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_choose")())

    def __repr__(self) -> str:
        return repr(object.__getattribute__(self, "_choose")())


@contextlib.contextmanager
def replace_policy(layer: keras.layers.Layer, policy: keras.DTypePolicy) -> Iterator[None]:
    """Lets a layer compute by another dtype policy, in the present thread alone."""
    before = vars(layer)["_dtype_policy"]
    replacement = _PolicyOfThread(policy, layer.dtype_policy)
    vars(layer)["_dtype_policy"] = replacement
    try:
        yield
    finally:
        if vars(layer)["_dtype_policy"] is replacement:
            vars(layer)["_dtype_policy"] = before
