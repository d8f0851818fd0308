"""The role of this process in a search by several processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

__all__ = ["ProcessRole", "process_role"]

_VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


@dataclass(frozen=True)
class ProcessRole:
    """The role of a process in a search.

    Args:
        kind: The chief hands out trials, a worker runs them.
        name: Name of the process among those of the search.
        address: Where the chief listens, as `ip:port`.
    """

    kind: Literal["chief", "worker"]
    name: str
    address: str


def process_role() -> ProcessRole | None:
    """Returns the role that keras-tuner's environment variables give this process; None if it works alone.

    Raises:
        ValueError: Some of them are not set, or the port is not a port.
    """
    values = [os.environ.get(name, "") for name in _VARIABLES]
    if not any(values):
        return None
    missing = [name for name, value in zip(_VARIABLES, values, strict=True) if not value]
    if missing:
        raise ValueError(
            f"A search over several processes needs {', '.join(_VARIABLES)}. Not set: {', '.join(missing)}"
        )
    tuner_id, ip, port = values
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"KERASTUNER_ORACLE_PORT must be a port from 1 to 65535. Received: {port!r}")
    # keras-tuner's own rule: a process with "chief" in its name is the chief.
    return ProcessRole("chief" if "chief" in tuner_id else "worker", tuner_id, f"{ip}:{port}")
