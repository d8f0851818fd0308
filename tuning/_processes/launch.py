"""A chief and workers on this machine, all of which end when the search does, however it does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from .heartbeat import release_worker
from .role import CHIEF

__all__ = ["run_local"]

_IP = "127.0.0.1"
_LOGS = "logs"
_SECONDS_TO_END = 5.0

# Before the imports, which take seconds: the end of the command closes the pipe and ends the process.
_START = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
from pathlib import Path
from keras_rwinit.tuning._processes.child import main
main(Path(sys.argv[1]))
"""

Process = subprocess.Popen[bytes]


def run_local(folder: Path, workers: int, on_tick: Callable[[], None] = lambda: None) -> None:
    """Runs the search in `folder` by a chief and `workers` workers, until every trial has ended.

    Each process writes a log into `logs/`. A worker that dies is not replaced: its trial goes to another.

    Raises:
        ChildProcessError: (an OSError) The chief has died, or all workers have.
    """
    address = f"{_IP}:{_free_port()}"
    with contextlib.ExitStack() as stack:
        chief = stack.enter_context(_process(folder, CHIEF, address, workers))
        workers_by_name = {
            name: stack.enter_context(_process(folder, name, address, workers))
            for name in (f"worker-{index}" for index in range(1, workers + 1))
        }
        dead: set[str] = set()
        while chief.poll() is None:
            for name, process in workers_by_name.items():
                if name not in dead and process.poll() not in (None, 0):
                    dead.add(name)
                    release_worker(address, name)
            if len(dead) == len(workers_by_name) and chief.poll() is None:
                raise ChildProcessError(
                    _death_message("All workers of the search have", folder, workers_by_name)
                )
            on_tick()
            time.sleep(0.1)
        on_tick()
        if chief.returncode:
            raise ChildProcessError(_death_message("The chief of the search has", folder, {CHIEF: chief}))


@contextlib.contextmanager
def _process(folder: Path, name: str, address: str, workers: int) -> Iterator[Process]:
    """A process of the search; it also ends when this one is killed, as its standard input closes."""
    ip, port = address.split(":")
    threads = str(max((os.cpu_count() or 1) // workers, 1))
    own = {"KERASTUNER_TUNER_ID": name, "KERASTUNER_ORACLE_IP": ip, "KERASTUNER_ORACLE_PORT": port}
    shared = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
    environment = {**shared, **os.environ, **own}
    for variable in ("no_proxy", "NO_PROXY"):  # gRPC would look for 127.0.0.1 behind a proxy
        environment[variable] = ",".join(part for part in (environment.get(variable), _IP) if part)
    with _log(folder, name) as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(folder.resolve())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the command, which ends them
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _log(folder: Path, name: str) -> IO[bytes]:
    (folder / _LOGS).mkdir(exist_ok=True)
    return open(folder / _LOGS / f"{name}.log", "ab")


def _death_message(who: str, folder: Path, processes: dict[str, Process]) -> str:
    name, process = next(iter(processes.items()))
    code = process.returncode
    end = f"been killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    lines = (folder / _LOGS / f"{name}.log").read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    said = f" ({last[:200]})" if code > 0 and last else ""
    return f"{who} {end}{said}. No trial that has ended is lost: go on with --resume."


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_IP, 0))
        return int(probe.getsockname()[1])
