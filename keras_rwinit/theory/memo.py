"""Caches results by what an activation computes, not by which object it is."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .activation import Activation

__all__ = ["cache_by_value"]

P = ParamSpec("P")
R = TypeVar("R")


def cache_by_value(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function whose results follow from the values of its arguments.

    An `Activation` among the arguments counts by its `key`. The cache therefore never returns the result of a
    callable that has changed since, and it keeps no object of the user's alive.

    Args:
        maxsize: Number of results to keep; the one that was used the longest time ago goes first.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        results: OrderedDict[tuple[object, ...], R] = OrderedDict()
        lock = threading.Lock()

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            values = (*args, *sorted(kwargs.items()))
            key = tuple(value.key if isinstance(value, Activation) else value for value in values)
            with lock:
                if key in results:
                    results.move_to_end(key)
                    return results[key]
            result = function(*args, **kwargs)
            with lock:
                results[key] = result
                if len(results) > maxsize:
                    results.popitem(last=False)
            return result

        return wrapper

    return decorate
