"""Messages beside keras-tuner's own, by which the chief and the workers know that the others are there.

They are calls of `GetSpace`, which keras-tuner's chief has anyway. Every call of a worker is a sign of life.
"""

from __future__ import annotations

import contextlib
from urllib.parse import quote

import grpc
from keras_tuner.src import protos

from .channel import open_channel

__all__ = ["LOST", "PATIENCE", "check_chief", "release_worker", "send"]

PATIENCE = 60.0
"""Seconds of silence after which a chief or a worker is taken for lost."""

LOST = "keras-rwinit-gone"
"""Metadata key whose value is the name of a worker that has ended without finishing its trial."""


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


def send(channel: grpc.Channel, timeout: float, lost: str | None = None) -> None:
    """Sends the chief a sign of life, or the name of a lost worker.

    Raises:
        RpcError: It does not answer within `timeout` seconds, or refuses this process.
    """
    protos.get_service_grpc().OracleStub(channel).GetSpace(
        protos.get_service().GetSpaceRequest(),
        metadata=() if lost is None else ((LOST, quote(lost)),),
        wait_for_ready=True,
        timeout=timeout,
    )


def release_worker(address: str, token: str, worker: str) -> None:
    """Tells the chief that a worker is lost, so that it need not wait for `PATIENCE`."""
    with contextlib.suppress(grpc.RpcError), open_channel(address, token) as channel:
        send(channel, timeout=10.0, lost=worker)
