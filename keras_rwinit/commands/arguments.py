"""Answers words that a command does not take with the options that they probably mean."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

from keras_rwinit._checks import closest_name
from keras_rwinit.theory import ACTIVATIONS, DISTRIBUTIONS
from keras_rwinit.theory.activations import FAMILIES, NOT_ELEMENTWISE

__all__ = ["EXAMPLES", "explain_arguments", "suggest_command"]

EXAMPLES = {
    "gain": "keras-rwinit gain --activation tanh --width 100 --depth 200",
    "plan": "keras-rwinit plan --depth 1000 --spread 1",
    "train": "keras-rwinit train --depth 100 --width 64 --activation tanh",
    "walk": "keras-rwinit walk --depth 100 --activation tanh",
    "tune": "keras-rwinit tune --depth 100 --width 16:64",
}
"""A command line of each command that works."""

# The order in which the functions of the package take numbers; those of other commands are of `deep_mlp`.
_NUMBERS = {"gain": ("width", "depth"), "plan": ("depth", "width")}
_LARGEST_SPREAD = 10.0  # narrower networks than ten units are rarely meant


def explain_arguments(
    command: str, options: Collection[str], words: Sequence[str], extra: Sequence[str]
) -> str:
    """Returns the message for arguments of a command that takes options only.

    Args:
        command: The command.
        options: Names of its options, as its function has them.
        words: All words behind the command.
        extra: Those that it does not take.
    """
    received = " ".join(map(shlex.quote, extra))
    suggestion = suggest_command(command, options, words, extra)
    return (
        f"{command} takes options here, and no argument. Received: {received}. "
        f"{'Try' if suggestion else 'An example'}: {suggestion or EXAMPLES[command]}"
    )


def suggest_command(
    command: str, options: Collection[str], words: Sequence[str], extra: Sequence[str]
) -> str | None:
    """Returns the command line with the `extra` ones of its words as options; None if one means no option."""
    given = _leave_out(words, extra)
    names = [word.removeprefix("--").split("=")[0].replace("-", "_") for word in given]
    free = [option for option in options if option not in names]
    numbers = [name for name in _NUMBERS.get(command, ("depth", "width")) if name in free]
    line = ["keras-rwinit", command, *given]
    for word in extra:
        option = _guess_number(word, free, numbers) or _guess_name(word, free)
        if option is None:
            return None
        free.remove(option)
        value = word if _knows(option, word) else _closest(option, word)
        line += [f"--{option.replace('_', '-')}", value]
    if command == "plan" and {"spread", "width"} <= set(free):
        line += ["--spread", "1"]
    return shlex.join(line)


def _leave_out(words: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Returns the words without the extra ones, of which an option may have the same word as its value."""
    given = [word for word in words if word != "--"]
    for word in extra:
        places = [place for place, other in enumerate(given) if other == word]
        # A flag has no value; then any of the equal words will do.
        bare = [place for place in places if not (place and given[place - 1].startswith("--"))]
        if places:
            given.pop((bare or places)[0])
    return given


def _guess_number(word: str, free: Sequence[str], numbers: list[str]) -> str | None:
    """Returns the option that a number is for, and takes it from the list of those that may come."""
    try:
        number = float(word)
    except ValueError:
        return None
    if "spread" in free and not {"depth"} & set(numbers) and number < _LARGEST_SPREAD:
        return "spread"
    if not number.is_integer():
        return "spread" if "spread" in free else None
    return numbers.pop(0) if numbers else None


def _guess_name(word: str, free: Sequence[str]) -> str | None:
    """Returns the option whose value a word is, or nearly is."""
    for option in free:
        if _knows(option, word):
            return option
    return next((option for option in free if _closest(option, word) != word), None)


def _closest(option: str, word: str) -> str:
    return closest_name(word, _names(option)) or word


def _knows(option: str, word: str) -> bool:
    if option == "activation" and word.endswith(")"):
        return word.split("(")[0] in (*FAMILIES, "shaped")
    if option == "output":
        return word.endswith(".json")
    return word in _names(option)


def _names(option: str) -> Collection[str]:
    """Returns the values of an option that has names for values."""
    # Imported here: of the commands that have these options, all of it is imported already.
    if option == "dataset":
        from keras_rwinit import data

        return data.available()
    if option == "preset":
        from keras_rwinit.models import model_zoo

        return model_zoo.presets
    if option == "strategy":
        from keras_rwinit.training.strategies.select import STRATEGIES

        return STRATEGIES
    return _NAMES.get(option, ())


_NAMES: dict[str, Collection[str]] = {
    "activation": (*ACTIVATIONS, *NOT_ELEMENTWISE),
    "distribution": tuple(DISTRIBUTIONS),
    "optimizer": ("adam", "adamw", "sgd", "rmsprop", "lion", "nadam", "adagrad", "adafactor"),
    "initializer": (
        "random_walk",
        "glorot_uniform",
        "glorot_normal",
        "he_normal",
        "he_uniform",
        "lecun_normal",
    ),
}
