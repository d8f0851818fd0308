"""How the chief and the workers of a search know that the others are alive."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import grpc
from keras_tuner.src import protos

from .role import ProcessRole

__all__ = ["ALIVE", "GONE", "PATIENCE", "check_chief", "heartbeat", "release_worker"]


PATIENCE = 60.0
"""Seconds of silence after which a chief or a worker is given up."""


_BEAT = 1.0


ALIVE, GONE = "keras-rwinit-alive", "keras-rwinit-gone"
"""Keys in the metadata of a call to the chief; the value is the worker's name."""


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
        _call(channel, GONE, tuner_id, timeout=10.0)


def _interrupt_main() -> None:
    """KeyboardInterrupt in the main thread, at once also where it sleeps or waits."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


@contextlib.contextmanager
def heartbeat(role: ProcessRole) -> Iterator[None]:
    """Shows the chief that this worker is alive; ValueError once the chief itself is silent."""
    done, lost = threading.Event(), threading.Event()

    def beat() -> None:
        heard = time.monotonic()
        with grpc.insecure_channel(role.address) as channel:
            while not done.wait(_BEAT):
                try:
                    _call(channel, ALIVE, role.name, timeout=_BEAT)
                    heard = time.monotonic()
                except grpc.RpcError:
                    if time.monotonic() - heard > PATIENCE and not done.is_set():
                        lost.set()
                        _interrupt_main()
                        return

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    except (KeyboardInterrupt, grpc.RpcError) as error:
        if not lost.is_set() and isinstance(error, KeyboardInterrupt):
            raise
        raise ValueError(
            f"The chief at {role.address} no longer answers. Start it again with the same command and "
            "--resume, then the workers."
        ) from error
    finally:
        done.set()
        thread.join(timeout=2.0 * _BEAT)
