"""Generates hostile calls of public functions, and says what is wrong with how one is answered.

A `Target` is a function with a pool of values for each of its arguments and a check of its results. Calls
are drawn from a seeded generator, so that a failure comes again. A good answer is a result that passes the
check, or one ValueError whose message names an argument, with the value that it was given. To test another
function, add a `Target` in the tests of its room.
"""

from __future__ import annotations

import copy
import json
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

__all__ = [
    "COUNTS",
    "NUMBERS",
    "WRONG_TYPES",
    "Call",
    "Target",
    "damage_json",
    "draw_calls",
    "find_fault",
    "mostly",
]


class Unprintable:
    """An object whose text is an error."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


WRONG_TYPES: tuple[Any, ...] = (
    None,
    True,
    "",
    "relu",
    "1",
    "\x00",
    "[bold]",
    b"3",
    [],
    [3],
    (2, 2),
    {},
    {1},
    object(),
    int,
    1j,
    np.zeros(3),
    np.array(3),
    np.array([]),
    np.float32(2.0),
    Ellipsis,
)
"""Values that are rarely what an argument takes."""

NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    -0.0,
    0.5,
    1.0,
    1e-300,
    5e-324,
    1e-30,
    1e10,
    1e39,
    1e300,
    float("nan"),
    float("inf"),
    -float("inf"),
    10**400,
    np.float64(1.5),
    np.int64(3),
    np.uint8(200),
)
"""Real numbers of all sizes."""

COUNTS: tuple[Any, ...] = (0, -1, 1, 2, 3, 7, 10**6, 10**9, 10**12, 10**18, 10**400, 2.0, 1e6, np.int8(5))
"""Integers of all sizes, and floats that look like some."""


def mostly(good: Sequence[Any], *bad: Any) -> tuple[Any, ...]:
    """Returns a pool with some twenty good values for each bad one: calls of many arguments can then work."""
    return (*(tuple(good) * max(1, 20 * len(bad) // len(good))), *bad)


@dataclass(frozen=True)
class Target:
    """A function, the values that its arguments take in hostile calls, and a check of what it returns.

    Args:
        function: The function.
        pools: For each argument, values that are often good; hostile ones are mixed in.
        find_fault: Returns what is wrong with a result for these arguments; None if nothing is.
        hostility: Probability that an argument comes from the hostile values and not from its pool.
        may_warn: Whether a UserWarning is a good answer too.
    """

    function: Callable[..., Any]
    pools: Mapping[str, Sequence[Any]]
    find_fault: Callable[[Any, Mapping[str, Any]], str | None]
    hostility: float = 0.25
    may_warn: bool = False


@dataclass(frozen=True)
class Call:
    """One call of a target."""

    target: Target
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        text = ", ".join(f"{name}={str(value)[:60]!s}" for name, value in self.arguments.items())
        return f"{self.target.function.__name__}({text})"


def draw_calls(targets: Sequence[Target], count: int, seed: int) -> Iterator[Call]:
    """Draws `count` calls of the targets in turn; the same for the same seed."""
    rng = np.random.default_rng(seed)
    hostile = (*WRONG_TYPES, *NUMBERS, *COUNTS)
    for number in range(count):
        target = targets[number % len(targets)]
        arguments = {}
        for name, pool in target.pools.items():
            values = hostile if rng.random() < target.hostility else pool
            arguments[name] = values[int(rng.integers(len(values)))]
        yield Call(target, arguments)


def find_fault(call: Call, *, seconds: int = 10) -> str | None:
    """Makes a call; returns what is wrong with its answer, or None if nothing is."""
    try:
        with warnings.catch_warnings(), _limit(seconds):
            warnings.simplefilter("error")
            # Keras's own, at every conversion of a variable to NumPy
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            if call.target.may_warn:
                warnings.simplefilter("ignore", UserWarning)
            result = call.target.function(**call.arguments)
    except _TooSlowError:
        return f"{call} takes more than {seconds} s of the processor"
    except ValueError as error:
        wrong = _find_wrong_message(call, str(error))
        return None if wrong is None else f"{call} {wrong}"
    except Exception as error:  # what users must never see is what this looks for
        return f"{call} raises {type(error).__name__}: {str(error)[:200]}"
    fault = call.target.find_fault(result, call.arguments)
    return None if fault is None else f"{call}: {fault}"


# What Keras could not interpret, such as an initializer or a dtype; NumPy, which takes no array for a flag;
# the slopes of an activation such as "leaky_relu(1e300)".
_OTHER_NAMES = "Could not interpret|truth value|`policy`|`config`|`slopes`"


def _find_wrong_message(call: Call, message: str) -> str | None:
    """Returns what is wrong with the message of an error; None if it names an argument, and its own value."""
    named = any(re.search(rf"\b{name}\b", message) for name in call.arguments)
    if not named and not re.search(_OTHER_NAMES, message):
        return f"names no argument: {message!r}"
    for name, text in re.findall(r"Received: (\w+)=([-+.\w]+)", message):
        value = call.arguments.get(name, ())
        if value is None or isinstance(value, int | float):
            try:
                received = float(text)
                # NaN differs from NaN, but not by more than anything.
                differs = value is None or abs(received - value) > 1e-9 * abs(value)
            except (OverflowError, ValueError):  # an integer beyond the floats; a text such as None
                continue
            if differs:
                return f"names another argument than the wrong one: {message!r}"
    return None


_DAMAGED_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, 10**400, 1e308, float("nan"), float("inf"), -(2**63)),
    *("", "nan", "relu", "\x00", "\ud800", [], [[]], [1, "2"], {}, {"tuple": 1}, {"tuple": []}, {"a": None}),
)


def damage_json(content: Any, count: int, seed: int) -> list[str]:
    """Returns `count` texts that are nearly the JSON of `content`; the same for the same seed.

    In each a value is another, missing or doubled, or the text is cut, changed in a character, or put into a
    thousand brackets.
    """
    rng = np.random.default_rng(seed)
    whole = json.dumps(content)
    texts = []
    for _ in range(count):
        kind, place = rng.random(), int(rng.integers(len(whole)))
        if kind < 0.7:
            texts.append(json.dumps(_damage_value(copy.deepcopy(content), rng)))
        elif kind < 0.8:
            texts.append(whole[:place])
        elif kind < 0.95:
            texts.append(whole[:place] + chr(int(rng.integers(1, 256))) + whole[place + 1 :])
        else:
            texts.append("[" * 10**4 + whole + "]" * int(rng.choice([0, 10**4])))
    return texts


def _damage_value(content: Any, rng: np.random.Generator) -> Any:
    """Damages a value somewhere in `content`, in place where it can; returns `content`."""
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = keys[int(rng.integers(len(keys)))]
    if isinstance(content[key], dict | list) and content[key] and rng.random() < 0.7:
        content[key] = _damage_value(content[key], rng)
    elif rng.random() < 0.2:
        del content[key]
    elif rng.random() < 0.1 and isinstance(content, list):
        content.append(content[key])
    else:
        content[key] = _DAMAGED_VALUES[int(rng.integers(len(_DAMAGED_VALUES)))]
    return content


class _TooSlowError(BaseException):
    pass


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooSlowError

    # Processor time: the same on a busy machine.
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
