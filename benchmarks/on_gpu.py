"""Measures stacks of 1000 layers on a GPU with JAX, against JAX by hand, PyTorch and bare products.

    python benchmarks/on_gpu.py --check
    python benchmarks/on_gpu.py --output benchmarks/results/on_gpu

`--check` runs a small size of the same contenders on the processors, to find errors before a GPU is used. The
full run takes widths 256, 1024 and 2048, batches of 128 and 4096, in float32 and bfloat16, those that matter
most first, and stops when its `--minutes` are over. It writes a JSON file for each size into the directory;
a size that is not finished leaves none. The column of memory is that of the host. PyTorch has no floor here.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).with_name("stacks_compared.py")
CONTENDERS = ("JAX", "PyTorch")


class Size(NamedTuple):
    """What is measured in one run of the script."""

    width: int
    batch: int
    dtype: str


def sizes() -> Iterator[Size]:
    """Yields the sizes, first those of which one would want to know most."""
    for dtype, batch, width in itertools.product(("bfloat16", "float32"), (4096, 128), (1024, 2048, 256)):
        yield Size(width, batch, dtype)


def command(size: Size, depth: int, steps: int, output: Path | None) -> list[str]:
    """Returns the command of one run."""
    options = {"depth": depth, "width": size.width, "batch": size.batch, "dtype": size.dtype, "steps": steps}
    return [
        sys.executable,
        str(SCRIPT),
        "--one-by-one",
        *("--deepest-dense", "0", "--deepest-compiled", "100"),
        *itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in options.items()),
        *("--only", *CONTENDERS),
        *(() if output is None else ("--output", str(output))),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the check, or all sizes until the time is over."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="one small size on the processors")
    parser.add_argument("--minutes", type=float, default=7.0, help="time for all (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="directory for the results")
    options = parser.parse_args(arguments)
    # Each process would take most of the GPU's memory for itself.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if options.check:
        environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run(command(Size(64, 32, "float32"), 10, 2, None), env=environment, check=True)
        return
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60.0 * options.minutes
    for size in sizes():
        left = ends - time.monotonic()
        if left <= 0.0:
            print(f"no time left for width {size.width}, batch {size.batch}, {size.dtype}", flush=True)
            continue
        name = f"width_{size.width}_batch_{size.batch}_{size.dtype}.json"
        output = options.output / name if options.output else None
        try:
            subprocess.run(command(size, 1000, 10, output), env=environment, check=True, timeout=left)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            print(f"width {size.width}, batch {size.batch}, {size.dtype}: {error}", flush=True)


if __name__ == "__main__":
    main()
