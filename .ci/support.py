"""Runs the quick tests in a fresh environment of one row of the support matrix.

    python .ci/support.py lowest
    python .ci/support.py newest --python python3.13
    python .ci/support.py jax
    python .ci/support.py torch --lowest

`lowest` has the lowest declared version of what the package, `data`, `tuning` and `plots` need, `newest`
whatever pip chooses, and `jax` and `torch` have that back end and no TensorFlow; with `--lowest` they have
the lowest declared version of the back end, and the newest of everything else.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("jax", "torch")
# Something of everything that a version may break; `.ci/run` runs the whole suite on the newest versions.
QUICK = (
    "theory/test_gains.py",
    "test_initializers.py",
    "layers/test_dense_stack.py",
    "layers/test_round_trips.py",
    "diagnostics/test_gradient_walk.py",
    "initialization/test_initialize.py",
)
WITH_TENSORFLOW = (
    "commands",
    "data/test_data.py",
    "models/test_recipe.py",
    "test_callbacks.py",
    "test_files.py",
    "training/test_run.py",
    "tuning/test_search.py",
)


def read_dependencies() -> tuple[list[str], dict[str, list[str]]]:
    """Returns the declared dependencies, and those of each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"], project["optional-dependencies"]


def pin_lowest(dependencies: list[str]) -> list[str]:
    """Returns the dependencies that have a lowest version, pinned to it."""
    return [
        f"{found[1]}=={found[2]}"
        for dependency in dependencies
        if (found := re.match(r"([\w-]+)(?:\[[\w,-]+\])?>=([\w.]+)", dependency))
    ]


def run(*command: str | Path, **environment: str) -> None:
    """Runs a command, which must succeed."""
    print("+", *command, flush=True)
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True)


def main() -> None:
    """Makes the environment, says what is in it and runs the tests."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("row", choices=("lowest", "newest", *BACKENDS))
    parser.add_argument("--python", default="python3", help="the Python to test (default: %(default)s)")
    parser.add_argument("--lowest", action="store_true", help="the lowest declared version of the back end")
    options = parser.parse_args()
    if options.lowest and options.row not in BACKENDS:
        parser.error(f"--lowest is for the rows {' and '.join(BACKENDS)}; got {options.row}")
    own, extras = read_dependencies()
    with tempfile.TemporaryDirectory() as folder:
        run(options.python, "-m", "venv", folder)
        python = Path(folder) / "bin" / "python"
        install = (python, "-m", "pip", "install", "-q")
        if options.row in BACKENDS:
            needed = [name for name in own if not name.startswith("tensorflow")]
            chosen = pin_lowest(extras[options.row]) if options.lowest else extras[options.row]
            run(*install, *needed, *extras["test"], *extras["plots"], *chosen)
            run(*install, "--no-deps", "-e", ".")
            run(python, "-c", "import importlib.util as u; assert u.find_spec('tensorflow') is None")
            files, backend, marks = QUICK, options.row, "backends and not slow"
        else:
            constraints = Path(folder) / "constraints.txt"
            used = [*own, *extras["data"], *extras["tuning"], *extras["plots"]]
            pinned = pin_lowest(used) if options.row == "lowest" else []
            constraints.write_text("\n".join(pinned), encoding="utf-8")
            run(*install, "-c", constraints, "-e", ".[all]")
            files, backend, marks = (*QUICK, *WITH_TENSORFLOW), "tensorflow", "not slow"
            if options.row == "newest":  # the files of tests/compatibility were written by new versions
                files = (*files, "compatibility")
        run(python, "-c", "import keras_rwinit; keras_rwinit.show_versions()", KERAS_BACKEND=backend)
        tests = [f"tests/{name}" for name in files]
        # Old versions warn of what has come after them.
        warnings = ("-W", "default") if options.lowest or options.row == "lowest" else ()
        run(python, "-m", "pytest", "-q", "-m", marks, *warnings, *tests, KERAS_BACKEND=backend)


if __name__ == "__main__":
    main()
