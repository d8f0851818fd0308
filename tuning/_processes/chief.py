"""The chief of a search by several processes: it hands out trials and takes back those of lost workers.

keras-tuner's own chief waits forever for a worker that was killed, and its worker waits an hour for a chief
that was. Here a worker sends a sign of life every second. The chief gives the trial of a silent worker to
another one, and a worker ends when the chief is silent.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent import futures
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from .._oracle import LocalSearchOracle, check_trials_exist
from . import heartbeat
from .channel import AuthenticatingInterceptor, Caller

__all__ = ["check_port_free", "serve"]

_TICK = 0.1
_THREADS = 64  # each reads one call; the oracle is changed by one alone
_GRACE = 10.0
"""Seconds in which the workers learn that the search has ended."""


def check_port_free(address: str) -> None:
    """Raises ValueError if the chief's port is taken; gRPC itself would share it silently."""
    ip, port = address.rsplit(":", 1)
    try:
        with socket.socket() as probe:
            # Without it, the port of a search that has just ended would count as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((ip, int(port)))
    except OSError as error:
        raise ValueError(
            f"The chief cannot listen at {address}: {error.strerror or error}. Set KERASTUNER_ORACLE_IP to "
            "an address of this machine and KERASTUNER_ORACLE_PORT to a free port."
        ) from error


class _Servicer(OracleServicer):
    """keras-tuner's service, which also records each worker's process and when it was last heard."""

    def __init__(self, oracle: LocalSearchOracle) -> None:
        super().__init__(oracle)
        self.last_heard: dict[str, float] = {}
        self.processes: dict[str, str] = {}
        self.failure: OSError | None = None

    def record_call(self, caller: Caller, context: grpc.ServicerContext) -> None:
        """Notes that a worker is alive, and refuses a second one of its name."""
        if self.processes.setdefault(caller.worker, caller.process) != caller.process:
            context.abort(
                grpc.StatusCode.ALREADY_EXISTS,
                f"A worker named {caller.worker} is at work already: give each its own KERASTUNER_TUNER_ID. "
                f"The name of a worker that was killed is free after {heartbeat.PATIENCE:g} s.",
            )
        self.last_heard[caller.worker] = time.monotonic()

    def keep_failure(self, error: BaseException) -> None:
        """Keeps an error of the search's files, which ends the search."""
        if isinstance(error, OSError):
            self.failure = error

    def GetSpace(self, request: Message, context: grpc.ServicerContext) -> Message:
        for key, worker in context.invocation_metadata():
            if key == heartbeat.LOST:
                self._release(unquote(worker))
        return super().GetSpace(request, context)

    def release_silent_workers(self) -> None:
        """Takes back the trials of workers that have been silent for too long."""
        now = time.monotonic()
        for worker in self.oracle.tuner_ids | self.processes.keys():
            if now - self.last_heard.setdefault(worker, now) > heartbeat.PATIENCE:
                self._release(worker)

    def _release(self, worker: str) -> None:
        self.processes.pop(worker, None)
        self.last_heard.pop(worker, None)
        self.oracle.release(worker)


def serve(
    oracle: LocalSearchOracle, address: str, token: str, on_tick: Callable[[], None] = lambda: None
) -> None:
    """Hands out the oracle's trials at `address` until all of them have ended.

    Raises:
        OSError: A trial's file could not be written.
    """
    check_port_free(address)
    servicer = _Servicer(oracle)
    interceptor = AuthenticatingInterceptor(token, servicer.record_call, servicer.keep_failure)
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=_THREADS),
        interceptors=[interceptor],
        # A call from a machine that has gone is given up.
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
        ],
    )
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ValueError(f"The chief cannot listen at {address}: {error}") from error
    server.start()
    try:
        _wait_for_end(servicer, oracle, interceptor, on_tick)
    finally:
        server.stop(grace=1.0).wait()


def _wait_for_end(
    servicer: _Servicer,
    oracle: LocalSearchOracle,
    interceptor: AuthenticatingInterceptor,
    on_tick: Callable[[], None],
) -> None:
    ended_at: float | None = None
    while True:
        time.sleep(_TICK)
        interceptor.run(servicer.release_silent_workers)
        if servicer.failure is not None:
            raise servicer.failure
        interceptor.run(check_trials_exist, oracle)
        on_tick()
        # An exhausted space ends the search by the answer to a worker's request for a trial. If all trials
        # have ended there may be no worker left to ask.
        if ended_at is None and (servicer.stop_triggered or oracle.finished):
            ended_at = time.monotonic()
        if ended_at is not None and (not oracle.tuner_ids or time.monotonic() - ended_at > _GRACE):
            return
