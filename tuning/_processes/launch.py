"""A chief and workers on this machine, which all end when the search does, also if it is killed."""

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

from .channel import make_token
from .heartbeat import release_worker

__all__ = ["run_local"]

_CHIEF = "chief"
_IP = "127.0.0.1"
_LOGS = "logs"
_TICK = 0.1
_SECONDS_TO_END = 5.0

# The thread is started before the imports, which take seconds. The pipe closes when the command ends, in
# whatever way, and that ends the process.
_START = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
from pathlib import Path
from keras_rwinit.tuning._processes.child import main
main(Path(sys.argv[1]))
"""

Process = subprocess.Popen[bytes]


def run_local(directory: Path, workers: int, on_tick: Callable[[], None] = lambda: None) -> None:
    """Runs the search in `directory` by a chief and `workers` workers, until every trial has ended.

    Each process writes a log into `logs/`. A lost worker is not replaced: its trial goes to another.

    Raises:
        ChildProcessError: (an OSError) The chief is lost, or all workers are.
    """
    address = f"{_IP}:{_free_port()}"
    token = make_token(directory)  # the processes read it from there
    # The stack ends all processes, in whatever way the loop ends.
    with contextlib.ExitStack() as stack:
        chief = stack.enter_context(_start_process(directory, _CHIEF, address, workers))
        running = {
            name: stack.enter_context(_start_process(directory, name, address, workers))
            for name in (f"worker-{index}" for index in range(1, workers + 1))
        }
        lost: dict[str, Process] = {}
        while chief.poll() is None:
            for name, process in list(running.items()):
                if process.poll() not in (None, 0):
                    lost[name] = running.pop(name)
                    # The chief alone would notice only after `PATIENCE`.
                    release_worker(address, token, name)
            if not running and chief.poll() is None:
                name, process = next(iter(lost.items()))
                raise ChildProcessError(
                    _exit_message("All workers of the search have", directory, name, process)
                )
            on_tick()
            time.sleep(_TICK)
        on_tick()
        if chief.returncode:
            raise ChildProcessError(_exit_message("The chief of the search has", directory, _CHIEF, chief))


@contextlib.contextmanager
def _start_process(directory: Path, name: str, address: str, workers: int) -> Iterator[Process]:
    """Starts a process of the search, and ends it at the end of the context."""
    with _open_log(directory, name) as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(directory.resolve())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=_environment(name, address, workers),
            start_new_session=True,  # Ctrl-C goes to the command alone, which ends its processes
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


def _environment(name: str, address: str, workers: int) -> dict[str, str]:
    """Returns the environment of a process, in which the workers share the processors."""
    ip, port = address.split(":")
    threads = str(max((os.cpu_count() or 1) // workers, 1))
    defaults = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
    role = {"KERASTUNER_TUNER_ID": name, "KERASTUNER_ORACLE_IP": ip, "KERASTUNER_ORACLE_PORT": port}
    environment = {**defaults, **os.environ, **role}
    for variable in ("no_proxy", "NO_PROXY"):  # gRPC would look for 127.0.0.1 behind a proxy
        environment[variable] = ",".join(part for part in (environment.get(variable), _IP) if part)
    return environment


def _open_log(directory: Path, name: str) -> IO[bytes]:
    (directory / _LOGS).mkdir(exist_ok=True)
    return open(directory / _LOGS / f"{name}.log", "ab")


def _exit_message(who: str, directory: Path, name: str, process: Process) -> str:
    """Returns how a process ended, with the last line of its log if it was not killed."""
    code = process.returncode
    end = f"been killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    last = ""
    with contextlib.suppress(OSError):  # the directory may have been deleted
        log = (directory / _LOGS / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        last = next((line.strip() for line in reversed(log.split("\n")) if line.strip()), "")
    said = f" ({last[:200]})" if code > 0 and last else ""
    return (
        f"{who} {end}{said}. No trial that has ended is lost: resume the search with resume=True "
        "(--resume on the command line)."
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_IP, 0))
        return int(probe.getsockname()[1])
