"""Time of the theory's functions at great depth: the first call in a process, and one at another width.

Each row runs in processes of its own, one after another; the table shows the fastest. The first call includes
the tables of the activation. The second shows what another width costs, with those tables at hand. Both are
also given as multiples of NumPy's singular values of a matrix of 200 x 200, on one thread of the same
process. Such ratios can be compared between machines. Mean and spread of the walk are compared with those of
a walk that visits every layer, at the depth of --walked.

    python benchmarks/theory.py --output benchmarks/results/theory.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from _output import describe_machine, new_file, write_json

# Name of the row and the call; WIDTH is 100 in the first call, and 101 in the second.
CALLS = {
    "gain, tanh, depth 100": "gain('tanh', WIDTH, 100)",
    "gain, tanh, depth 1,000": "gain('tanh', WIDTH, 1_000)",
    "gain, tanh, orthogonal, depth 1,000": "gain('tanh', WIDTH, 1_000, distribution='orthogonal')",
    "gain, tanh, depth 1,000,000": "gain('tanh', WIDTH, 1_000_000)",
    "gain, tanh, any depth": "gain('tanh', WIDTH)",
    "gain, relu, depth 1,000": "gain('relu', WIDTH, 1_000)",
    "predict_walk, tanh, depth 1,000": "predict_walk('tanh', WIDTH, 1_000)",
    "predict_walk, tanh, depth 1,000,000": "predict_walk('tanh', WIDTH, 1_000_000)",
    "predict_walk, relu, depth 1,000,000": "predict_walk('relu', WIDTH, 1_000_000)",
}

_PROGRAM = """
import json, time
import numpy as np
from threadpoolctl import threadpool_limits
from keras_rwinit import gain, predict_walk
matrix = np.random.default_rng(0).standard_normal((200, 200))
with threadpool_limits(1):
    units = []
    for _ in range(7):
        started = time.perf_counter()
        np.linalg.svd(matrix)
        units.append(time.perf_counter() - started)
seconds = []
for width in (100, 101):
    started = time.perf_counter()
    {call}
    seconds.append(time.perf_counter() - started)
print(json.dumps([*seconds, min(units)]))
"""

_WALKED = """
import json, time
import numpy as np
from keras_rwinit import gain
from keras_rwinit.theory import ACTIVATIONS, DISTRIBUTIONS
from keras_rwinit.theory._long_walk import walk_totals
from keras_rwinit.theory._mean_field import mean_field_walk
gains = np.array([gain("tanh", 100, {depth})])
arguments = ACTIVATIONS["tanh"], gains, 100, {depth}, DISTRIBUTIONS["normal"]
walked, found = mean_field_walk(*arguments), walk_totals(*arguments)
print(json.dumps([*walked.mean[:, 0], *found.mean, *walked.std[:, 0], *found.std]))
"""


def run(program: str) -> list[float]:
    """Returns the numbers that a program prints as JSON in a process of its own."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    numbers: list[float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def measure(call: str, repeats: int) -> dict[str, float]:
    """Returns the seconds of the first call and of the one at another width, the fastest of `repeats`."""
    program = _PROGRAM.format(call=call.replace("WIDTH", "width"))
    runs = [run(program) for _ in range(repeats)]
    first, second, unit = (min(seconds) for seconds in zip(*runs, strict=True))
    return {
        "first_call": first,
        "another_width": second,
        "first_call_ratio": first / unit,
        "another_width_ratio": second / unit,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each call and, with --output, writes them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="processes of each row (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=len(CALLS), help="number of rows (default: all)")
    parser.add_argument("--walked", type=int, default=1000, help="depth to walk (default: %(default)s)")
    parser.add_argument("--output", type=new_file, help="new JSON file for the results")
    options = parser.parse_args(arguments)
    calls = {}
    for name, call in list(CALLS.items())[: options.rows]:
        calls[name] = row = measure(call, options.repeats)
        print(
            f"{name:38} first call {1e3 * row['first_call']:8.1f} ms   "
            f"another width {1e3 * row['another_width']:8.1f} ms",
            flush=True,
        )
    mean, found_mean, std, found_std = run(_WALKED.format(depth=options.walked))
    error = max(abs(mean - found_mean), abs(std - found_std))
    print(
        f"mean and spread of {options.walked:,} tanh layers differ from the walked ones by {error:.1e} nats"
    )
    if options.output:
        report = {"machine": describe_machine(), "calls": calls}
        write_json(options.output, {**report, "walked_depth": options.walked, "error_in_nats": error})


if __name__ == "__main__":
    main()
