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
from .channel import open_channel, read_token
from .role import ProcessRole

__all__ = ["run_worker", "show_alive"]

_BEAT = 1.0
"""Seconds between two signs of life."""

_REFUSALS = (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.UNAUTHENTICATED)


def run_worker(trainer: NetworkTrainer, directory: Path, role: ProcessRole) -> None:
    """Runs the chief's trials until there are no more."""
    heartbeat.check_chief(role.address)  # it writes the token before it answers
    with (
        open_channel(role.address, read_token(directory), role.name) as channel,
        show_alive(role, channel),
    ):
        make_tuner(trainer.settings, directory, trainer.hypermodel, _log_trial, channel).search(trainer)


@contextlib.contextmanager
def show_alive(role: ProcessRole, channel: grpc.Channel) -> Iterator[None]:
    """Shows the chief that this worker is alive; ValueError once the chief is silent or refuses it."""
    done = threading.Event()
    failures: list[grpc.RpcError] = []

    def beat() -> None:
        heard = time.monotonic()
        while not done.is_set():
            try:
                heartbeat.send(channel, timeout=_BEAT)
                heard = time.monotonic()
            except grpc.RpcError as error:
                silent = time.monotonic() - heard > heartbeat.PATIENCE
                if (silent or error.code() in _REFUSALS) and not done.is_set():
                    failures.append(error)
                    _interrupt_main_thread()
                    return
            done.wait(_BEAT)

    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.SIG_IGN:
        # A shell starts background processes so, and the heartbeat could not interrupt the training.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    try:
        thread.start()  # the first beat may be refused before this line is done
        yield
    except (KeyboardInterrupt, grpc.RpcError) as error:
        if isinstance(error, KeyboardInterrupt) and not failures:
            _leave(channel, role)
            raise  # Ctrl-C of a user
        answer = error if isinstance(error, grpc.RpcError) else failures[0]
        if answer.code() in _REFUSALS:
            raise ValueError(
                f"The chief at {role.address} refuses this worker. {answer.details()}"
            ) from error
        raise ValueError(
            f"The chief at {role.address} no longer answers. Start it again as before, with resume=True "
            "(--resume on the command line), then the workers."
        ) from error
    except BaseException:
        _leave(channel, role)
        raise
    finally:
        done.set()
        thread.join(timeout=2.0 * _BEAT)
        if handler is signal.SIG_IGN:
            signal.signal(signal.SIGINT, handler)


def _leave(channel: grpc.Channel, role: ProcessRole) -> None:
    """Tells the chief that this worker ends: its trial goes to another at once, and its name is free."""
    with contextlib.suppress(grpc.RpcError):
        heartbeat.send(channel, timeout=_BEAT, lost=role.name)


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
