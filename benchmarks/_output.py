"""What the benchmarks share to write their results: the machine, and files that overwrite nothing."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["describe_machine", "new_file", "write_csv", "write_json"]


def new_file(text: str) -> Path:
    """Returns the path of a file that does not exist yet, as the type of an argument of `argparse`."""
    path = Path(text)
    if path.exists():
        raise argparse.ArgumentTypeError(f"{path} exists already; choose another file")
    return path


def write_json(path: Path, content: object) -> None:
    """Writes `content` as JSON, which has no numbers for floats that are not finite: they become null."""
    text = json.dumps(_replace_non_finite(content), indent=2, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def write_csv(path: Path, command: str, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes a table behind two lines of comments, the command and the machine."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {command}\n# {describe_machine()}\n")
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def describe_machine() -> str:
    """Returns the system, the processor and the number of processors."""
    return f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} processors"


def _replace_non_finite(content: object) -> object:
    if isinstance(content, dict):
        return {key: _replace_non_finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_replace_non_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _processor() -> str:
    """Returns the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
