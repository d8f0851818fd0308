"""A search over several processes or machines: keras-tuner's chief and workers, and what becomes of the dead.

keras-tuner's own loop of the chief waits for ever for a worker that has died, and a worker for an hour for a
chief that has. Here workers show a sign of life every second, in the metadata of a call that keras-tuner
has anyway; the chief hands the trial of a silent worker to another, and a worker gives up a silent chief.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from ._oracle import OutwardOracle

__all__ = ["Place", "check_chief", "place", "release_worker", "serve", "signs_of_life"]

CHIEF, WORKER = "chief", "worker"
PATIENCE = 60.0
"""Seconds of silence after which a chief or a worker is given up."""
_BEAT = 1.0
_GRACE = 10.0  # for workers to be told that the search is over
_ALIVE, _GONE = "keras-rwinit-alive", "keras-rwinit-gone"


@dataclass(frozen=True)
class Place:
    """The part of a process in a search: `"chief"` or `"worker"`, and where the chief is."""

    role: str
    name: str
    address: str


def place() -> Place | None:
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
    return Place(CHIEF if "chief" in tuner_id else WORKER, tuner_id, f"{ip}:{port}")


def check_port_free(address: str) -> None:
    """ValueError if the chief's port is taken; gRPC itself would share it without a word."""
    ip, port = address.rsplit(":", 1)
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((ip, int(port)))
    except OSError as error:
        raise ValueError(
            f"The chief cannot listen at {address}: {error.strerror or error}. Set KERASTUNER_ORACLE_IP to "
            "an address of this machine and KERASTUNER_ORACLE_PORT to a free port."
        ) from error


def check_chief(address: str, patience: float | None = None) -> None:
    """ValueError if no chief answers within `patience` seconds."""
    seconds = PATIENCE if patience is None else patience
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError as error:
            raise ValueError(
                f"No chief answered at {address} within {seconds:g} s. Start it with "
                "KERASTUNER_TUNER_ID=chief and the same KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT."
            ) from error


class _Servicer(OracleServicer):
    """keras-tuner's own service, which also notes who is alive."""

    def __init__(self, oracle: OutwardOracle) -> None:
        super().__init__(oracle)
        self.seen: dict[str, float] = {}

    def GetSpace(self, request: Any, context: Any) -> Any:
        for key, value in context.invocation_metadata():
            if key == _ALIVE:
                self.seen[value] = time.monotonic()
            elif key == _GONE:
                self.oracle.release(value)
        return super().GetSpace(request, context)

    def CreateTrial(self, request: Any, context: Any) -> Any:
        self.seen[request.tuner_id] = time.monotonic()
        return super().CreateTrial(request, context)

    def bury(self) -> None:
        """Takes back the trials of workers that have been silent for too long."""
        now = time.monotonic()
        for tuner_id in list(self.oracle.tuner_ids):
            if now - self.seen.setdefault(tuner_id, now) > PATIENCE:
                self.oracle.release(tuner_id)


def serve(oracle: OutwardOracle, address: str, on_tick: Callable[[], None] = lambda: None) -> None:
    """Hands out the oracle's trials at `address` until all of them have ended."""
    check_port_free(address)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)])
    servicer = _Servicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ValueError(f"The chief cannot listen at {address}: {error}") from error
    server.start()
    try:
        over = None
        while True:
            time.sleep(0.1)
            servicer.bury()
            on_tick()
            # A space that is exhausted ends by the answer to a worker, and all workers may be dead by then.
            if over is None and (servicer.stop_triggered or oracle.finished):
                over = time.monotonic()
            if over is not None and (not oracle.tuner_ids or time.monotonic() - over > _GRACE):
                return
    finally:
        server.stop(grace=1.0).wait()


def _call(channel: grpc.Channel, key: str, tuner_id: str, timeout: float) -> None:
    stub = protos.get_service_grpc().OracleStub(channel)
    stub.GetSpace(
        protos.get_service().GetSpaceRequest(),
        metadata=((key, tuner_id),),
        wait_for_ready=True,
        timeout=timeout,
    )


def release_worker(address: str, tuner_id: str) -> None:
    """Tells the chief at once that a worker is dead."""
    with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(address) as channel:
        _call(channel, _GONE, tuner_id, timeout=10.0)


def _interrupt_main() -> None:
    """KeyboardInterrupt in the main thread, at once also where it sleeps or waits."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


@contextlib.contextmanager
def signs_of_life(position: Place) -> Iterator[None]:
    """Shows the chief that this worker is alive; ValueError once the chief itself is silent."""
    done, lost = threading.Event(), threading.Event()

    def beat() -> None:
        heard = time.monotonic()
        with grpc.insecure_channel(position.address) as channel:
            while not done.wait(_BEAT):
                try:
                    _call(channel, _ALIVE, position.name, timeout=_BEAT)
                    heard = time.monotonic()
                except grpc.RpcError:
                    if time.monotonic() - heard > PATIENCE and not done.is_set():
                        lost.set()
                        _interrupt_main()
                        return

    thread = threading.Thread(target=beat, daemon=True, name="signs-of-life")
    thread.start()
    try:
        yield
    except (KeyboardInterrupt, grpc.RpcError) as error:
        if not lost.is_set() and isinstance(error, KeyboardInterrupt):
            raise
        raise ValueError(
            f"The chief at {position.address} no longer answers. Start it again with the same command and "
            "--resume, then the workers."
        ) from error
    finally:
        done.set()
        thread.join(timeout=2.0 * _BEAT)
