"""The part that this process plays in a search over several processes."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["CHIEF", "WORKER", "ProcessRole", "process_role"]


CHIEF, WORKER = "chief", "worker"


@dataclass(frozen=True)
class ProcessRole:
    """The part of a process in a search: `"chief"` or `"worker"`, and where the chief is."""

    role: str
    name: str
    address: str


def process_role() -> ProcessRole | None:
    """What keras-tuner's environment variables say of this process; None if it works alone.

    Raises:
        ValueError: They are not all set, or the port is none.
    """
    names = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
    values = [os.environ.get(name, "") for name in names]
    if not any(values):
        return None
    missing = [name for name, value in zip(names, values, strict=True) if not value]
    if missing:
        raise ValueError(
            f"A search over several processes needs {', '.join(names)}. Not set: {', '.join(missing)}"
        )
    tuner_id, ip, port = values
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"KERASTUNER_ORACLE_PORT must be a port from 1 to 65535. Received: {port!r}")
    return ProcessRole(CHIEF if "chief" in tuner_id else WORKER, tuner_id, f"{ip}:{port}")
