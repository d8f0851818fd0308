"""Checks of the arguments of public functions; each message gives the rule, the value and the way out."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any, ParamSpec, TypeVar

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "check_count",
    "check_fits_dtype",
    "check_input_shape",
    "check_positive",
    "check_real",
    "check_seed",
    "closest_name",
    "deprecate_positional",
    "did_you_mean",
    "dtype_limits",
]

P = ParamSpec("P")
R = TypeVar("R")

_LARGEST = 10**15  # counts enter formulas as floats, which are exact up to 2**53


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Returns `value` as an int; ValueError unless it is an integer of at least `minimum`."""
    # Python counts bool among the integers; as a depth or width it is a mistake.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}. Received: {name}={value!r}")
    if int(value) > _LARGEST and name != "seed":  # a seed enters no formula
        raise ValueError(
            f"`{name}` must be at most {_LARGEST:,}. Received: a number of {len(str(value)):,} digits"
        )
    return int(value)


def check_positive(name: str, value: object, *, allow_zero: bool = False) -> float:
    """Returns `value` as a float; ValueError unless it is a finite number above zero, or zero if allowed."""
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer beyond the floats
        number = math.inf
    if not (math.isfinite(number) and (number > 0.0 or (allow_zero and number == 0.0))):
        bound = ", at least 0" if allow_zero else " above 0"
        raise ValueError(f"`{name}` must be a finite number{bound}. Received: {name}={value!r}")
    return number


def dtype_limits(dtype: str) -> tuple[float, float]:
    """Returns the smallest normal and the largest number of a dtype, `bfloat16` and the float8 ones included.

    Back ends round what is below the smallest normal number to zero.
    """
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return float(info.smallest_normal), float(info.max)


def check_fits_dtype(name: str, value: float, dtype: str, *, number: float | None = None) -> None:
    """Raises ValueError unless a dtype holds the numbers that an argument leads to.

    Args:
        name: Name of the argument.
        value: The argument.
        dtype: Name of a floating-point dtype.
        number: Standard deviation of the numbers, or their size; `None`: `value` itself.
    """
    size = value if number is None else number
    smallest, largest = dtype_limits(dtype)
    largest /= 10.0  # a draw stays within ten deviations
    if not smallest <= size <= largest:
        where = "" if number is None else f", which makes weights of about {size:.2g}"
        raise ValueError(
            f"`{name}` must leave the weights in the range of {dtype}, from {smallest:.2g} to {largest:.2g}. "
            f"Received: {name}={value!r}{where}"
        )


def check_seed(value: object, rule: str = "an integer or None") -> int | None:
    """Returns a seed as an int, or None; ValueError unless it is an integer or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
        raise ValueError(f"`seed` must be {rule}. Received: seed={value!r}")
    return None if value is None else int(value)


def check_input_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of one input as a tuple; ValueError unless it is a sequence of sizes."""
    if not isinstance(input_shape, Sequence) or isinstance(input_shape, str) or not input_shape:
        raise ValueError(f"`input_shape` must be a tuple of sizes, as in (784,). Received: {input_shape!r}")
    sizes = tuple(check_count("input_shape", size) for size in input_shape)
    check_count("input_shape", math.prod(sizes))  # the features of an input count parameters
    return sizes


def _holds_names(array: NDArray[Any]) -> bool:
    """Returns whether an array holds text that is no number, such as names of classes."""
    if array.dtype.kind not in "SUO":
        return False
    try:
        array.astype(np.float64)
    except ValueError:
        return True
    except (TypeError, OverflowError):  # other objects, and integers beyond the floats
        pass
    return False


def check_real(name: str, values: ArrayLike) -> NDArray[Any]:
    """Returns `values` as an array; ValueError unless they are rectangular, non-empty, real and finite."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be a rectangular array. Received rows of unequal length: pad or "
            "resample them to one length first."
        ) from error
    if array.dtype.kind not in "biuf":
        way = f"{name}.astype('float32')"
        if _holds_names(array):
            way = f"np.unique({name}, return_inverse=True)[1]"
        raise ValueError(
            f"`{name}` must hold real numbers. Received: dtype {array.dtype}; convert it, for "
            f"example with `{way}`."
        )
    if array.size == 0:
        raise ValueError(
            f"`{name}` must hold at least one example with at least one feature. Received: "
            f"shape {array.shape}; check the filter or the path that selected the examples."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        _raise_not_finite(name, array)
    return array


def _raise_not_finite(name: str, array: NDArray[Any]) -> None:
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    bad = np.argwhere(~np.isfinite(array))[0]
    first = ", ".join(str(int(index)) for index in bad)
    raise ValueError(
        f"`{name}` must be finite. Received: {nan} NaN and {infinite} infinite values, the first "
        f"at {name}[{first}]; drop those examples or impute the values."
    )


def closest_name(word: str, names: Collection[str]) -> str | None:
    """Returns the name that a mistyped word, in letters of any case, probably means; None if none is near."""
    return next(iter(difflib.get_close_matches(word.lower(), names, 1, 0.7)), None)


def did_you_mean(word: object, names: Collection[str], ending: str = "") -> str:
    """Returns a sentence for the end of a message, with a space before it; empty where no name is near.

    Args:
        word: What was received in the place of a name.
        names: The names that there are.
        ending: What followed the word, and follows the name, such as the argument of an activation.
    """
    name = closest_name(word, names) if isinstance(word, str) else None
    return "" if name in (None, word) else f". Did you mean {name + ending!r}?"


def deprecate_positional(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function whose arguments `names` have become keyword-only.

    For one release the function still takes them by position, in the order of `names`, with a
    DeprecationWarning. Its signature shows them as keyword-only. scikit-learn calls this
    `_deprecate_positional_args`.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        call: Callable[..., R] = function
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
        positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            late = dict(zip(names, args[positional:], strict=False))
            # Too many arguments, or one given twice: the function itself raises the TypeError.
            if not late or len(args) > positional + len(names) or late.keys() & kwargs.keys():
                return function(*args, **kwargs)
            warnings.warn(
                f"Pass {', '.join(f'{name}=' for name in late)} by keyword: {function.__name__}() will "
                "not take it by position from the next release on.",
                DeprecationWarning,
                stacklevel=2,
            )
            return call(*args[:positional], **kwargs, **late)

        return wrapper

    return decorate
