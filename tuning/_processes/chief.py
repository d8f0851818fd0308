"""A search over several processes or machines: keras-tuner's chief and workers, and what becomes of the dead.

keras-tuner's own loop of the chief waits for ever for a worker that has died, and a worker for an hour for a
chief that has. Here workers show a sign of life every second, in the metadata of a call that keras-tuner
has anyway; the chief hands the trial of a silent worker to another, and a worker gives up a silent chief.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from .._oracle import LocalSearchOracle
from . import heartbeat

__all__ = ["check_port_free", "serve"]

_GRACE = 10.0  # for workers to be told that the search is over


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


class _Servicer(OracleServicer):
    """keras-tuner's own service, which also notes who is alive."""

    def __init__(self, oracle: LocalSearchOracle) -> None:
        super().__init__(oracle)
        self.seen: dict[str, float] = {}

    def GetSpace(self, request: Any, context: Any) -> Any:
        for key, value in context.invocation_metadata():
            if key == heartbeat.ALIVE:
                self.seen[value] = time.monotonic()
            elif key == heartbeat.GONE:
                self.oracle.release(value)
        return super().GetSpace(request, context)

    def CreateTrial(self, request: Any, context: Any) -> Any:
        self.seen[request.tuner_id] = time.monotonic()
        return super().CreateTrial(request, context)

    def release_silent(self) -> None:
        """Takes back the trials of workers that have been silent for too long."""
        now = time.monotonic()
        for tuner_id in list(self.oracle.tuner_ids):
            if now - self.seen.setdefault(tuner_id, now) > heartbeat.PATIENCE:
                self.oracle.release(tuner_id)


def serve(oracle: LocalSearchOracle, address: str, on_tick: Callable[[], None] = lambda: None) -> None:
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
            servicer.release_silent()
            on_tick()
            # A space that is exhausted ends by the answer to a worker, and all workers may be dead by then.
            if over is None and (servicer.stop_triggered or oracle.finished):
                over = time.monotonic()
            if over is not None and (not oracle.tuner_ids or time.monotonic() - over > _GRACE):
                return
    finally:
        server.stop(grace=1.0).wait()
