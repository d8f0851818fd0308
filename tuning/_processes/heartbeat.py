"""Messages beside keras-tuner's own, by which the chief and the workers know that the others are there.

They travel in the metadata of `GetSpace`, a call that keras-tuner's chief has anyway: the key says what
happened, the value names the worker.
"""

from __future__ import annotations

import contextlib

import grpc
from keras_tuner.src import protos

__all__ = ["ALIVE", "LOST", "PATIENCE", "check_chief", "release_worker", "send"]

PATIENCE = 60.0
"""Seconds of silence after which a chief or a worker is taken for lost."""

ALIVE, LOST = "keras-rwinit-alive", "keras-rwinit-gone"
"""Metadata keys: a worker is at work; a worker has ended without finishing its trial."""


def check_chief(address: str, patience: float | None = None) -> None:
    """Raises ValueError if no chief answers within `patience` seconds."""
    seconds = PATIENCE if patience is None else patience
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError as error:
            raise ValueError(
                f"No chief answered at {address} within {seconds:g} s. Start it with "
                "KERASTUNER_TUNER_ID=chief and the same KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT."
            ) from error


def send(channel: grpc.Channel, key: str, worker: str, timeout: float) -> None:
    """Sends the chief a message about a worker; RpcError if it does not answer within `timeout` seconds."""
    stub = protos.get_service_grpc().OracleStub(channel)
    stub.GetSpace(
        protos.get_service().GetSpaceRequest(),
        metadata=((key, worker),),
        wait_for_ready=True,
        timeout=timeout,
    )


def release_worker(address: str, worker: str) -> None:
    """Tells the chief that a worker is lost, so that it need not wait for `PATIENCE`."""
    with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(address) as channel:
        send(channel, LOST, worker, timeout=10.0)
