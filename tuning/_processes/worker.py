"""The worker of a search by several processes: it runs the chief's trials and shows that it is alive."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from keras_tuner.engine.trial import Trial, TrialStatus

from .._trainer import NetworkTrainer
from .._tuner import make_tuner
from . import heartbeat
from .role import ProcessRole

__all__ = ["run_worker", "show_alive"]

_BEAT = 1.0
"""Seconds between two signs of life."""


def run_worker(trainer: NetworkTrainer, directory: Path, role: ProcessRole) -> None:
    """Runs the chief's trials until there are no more."""
    heartbeat.check_chief(role.address)
    with show_alive(role):
        make_tuner(trainer.settings, directory, trainer.hypermodel, on_trial=_log_trial).search(trainer)


@contextlib.contextmanager
def show_alive(role: ProcessRole) -> Iterator[None]:
    """Shows the chief that this worker is alive; ValueError once the chief itself is silent."""
    done, lost = threading.Event(), threading.Event()

    def beat() -> None:
        heard = time.monotonic()
        with grpc.insecure_channel(role.address) as channel:
            while not done.wait(_BEAT):
                try:
                    heartbeat.send(channel, heartbeat.ALIVE, role.name, timeout=_BEAT)
                    heard = time.monotonic()
                except grpc.RpcError:
                    if time.monotonic() - heard > heartbeat.PATIENCE and not done.is_set():
                        lost.set()
                        _interrupt_main_thread()
                        return

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    except (KeyboardInterrupt, grpc.RpcError) as error:
        if isinstance(error, KeyboardInterrupt) and not lost.is_set():
            raise  # Ctrl-C of a user
        raise ValueError(
            f"The chief at {role.address} no longer answers. Start it again as before, with resume=True "
            "(--resume on the command line), then the workers."
        ) from error
    finally:
        done.set()
        thread.join(timeout=2.0 * _BEAT)


def _interrupt_main_thread() -> None:
    """Raises KeyboardInterrupt in the main thread; a signal reaches it also while it sleeps or waits."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _log_trial(trial: Trial) -> None:
    event = "begins" if trial.status == TrialStatus.RUNNING else f"ends: {trial.status}"
    print(f"trial {trial.trial_id} {event}", flush=True)
