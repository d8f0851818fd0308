"""A search by several processes, and what remains of one that was killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Stop, run_cli, run_until
from tuning_helpers import TINY, few_digits, small_space, table_of, trial_starts, wait_for

pytest.importorskip("keras_tuner")

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_client import OracleClient

from keras_rwinit import tuning
from keras_rwinit.tuning import LocalSearchOracle, SearchResult
from keras_rwinit.tuning._processes import chief as chief_module
from keras_rwinit.tuning._processes import heartbeat as heartbeat_module
from keras_rwinit.tuning._processes import launch
from keras_rwinit.tuning._processes import worker as worker_module
from keras_rwinit.tuning._processes.channel import open_channel
from keras_rwinit.tuning._processes.role import ProcessRole

psutil = pytest.importorskip("psutil")

STOPS = [
    Stop("trial.json", 1, "before its renaming"),
    Stop("trial.json", 2, "half written"),
    Stop("outcome.json", 1, "half written"),
    Stop("trial.json", 3, "before its renaming"),
    Stop("seeds.json", 1, "before its renaming"),
    Stop("trials.csv", 1, "half written"),
]


def outcomes_of(directory: Path) -> dict[str, bytes]:
    """Returns the outcome of each trial that has ended, its seconds included."""
    found = {}
    for path in sorted((directory / "trials").glob("trial_*/trial.json")):
        if json.loads(path.read_text(encoding="utf-8"))["status"] in ("COMPLETED", "FAILED"):
            found[path.parent.name] = (path.parent / "outcome.json").read_bytes()
    return found


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_search_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    arguments: list[object] = [*TINY, "--trials", 3, "--gain-ratio", "0.5:2", "--output"]
    assert run_cli(*arguments, tmp_path / "undisturbed").code == 0
    processes = multiprocessing.get_context("forkserver")  # imports TensorFlow once for all of them
    processes.set_forkserver_preload(["keras_rwinit.cli", "keras_rwinit.tuning", "pytest"])
    directory, kept = tmp_path / "killed", {}
    arguments.append(directory)
    for stop in STOPS:
        process = processes.Process(target=run_until, args=(stop, [str(part) for part in arguments]))
        process.start()
        process.join(timeout=120)
        compared = (tmp_path / "undisturbed/seeds.json").exists()
        if process.exitcode == 0 and stop.name == "seeds.json":
            assert not compared  # the analytic optimum was best: there is nothing to compare
        else:
            assert process.exitcode == -signal.SIGKILL, stop
        now = outcomes_of(directory)
        assert {name: now[name] for name in kept} == kept  # none lost, none run again
        kept = now
        arguments = ["tune", "--resume", "--output", directory]
    assert run_cli(*arguments).code == 0
    assert table_of(directory) == table_of(tmp_path / "undisturbed")
    assert len(kept) == 3


def is_running(process: Any) -> bool:
    """Returns whether a process of psutil's runs; one that has ended and waits to be collected does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class BackgroundSearch:
    """A search by a chief and workers in a thread, with its processes by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, **options: Any) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        start_process = launch._start_process

        @contextlib.contextmanager
        def record_process(directory: Path, name: str, *arguments: Any) -> Iterator[Any]:
            with start_process(directory, name, *arguments) as process:
                self.processes[name] = process
                yield process

        monkeypatch.setattr(launch, "_start_process", record_process)
        self.result: SearchResult | None = None
        self.error: BaseException | None = None

        def search() -> None:
            try:
                self.result = tuning.search(
                    few_digits(), small_space(), directory=directory, seeds=0, **options
                )
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=search)
        self.thread.start()

    def join(self) -> None:
        """Waits for the end of the search, which all its processes have to reach."""
        self.thread.join(timeout=240)
        assert not self.thread.is_alive()
        assert all(process.poll() is not None for process in self.processes.values())


@pytest.mark.slow
def test_a_chief_and_two_workers_run_each_trial_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    options: dict[str, Any] = {"trials": 4, "workers": 2, "epochs": 1, "batch_size": 64, "verbose": 1}
    search = BackgroundSearch(monkeypatch, directory, **options)
    search.join()
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if " done  trial " in line]
    assert [line[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert sorted(line[3] for line in lines) == ["0:", "1:", "2:", "3:"]
    result = search.result
    assert result is not None, search.error
    assert search.processes.keys() == {"chief", "worker-1", "worker-2"}
    assert [row.trial for row in result] == [0, 1, 2, 3]
    assert all(row.status == "COMPLETED" and row.score is not None for row in result)
    assert result[0].gain_ratio == 1.0
    assert sorted(line.split()[1] for line in trial_starts(directory)) == ["0", "1", "2", "3"]
    assert len(table_of(directory)) == 4
    outcomes = [json.loads(path.read_text()) for path in directory.glob("trials/*/outcome.json")]
    assert {outcome["worker"] for outcome in outcomes} <= {"worker-1", "worker-2"}
    assert (directory / ".token").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_worker_killed_in_mid_trial_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "run"
    search = BackgroundSearch(monkeypatch, directory, trials=3, workers=2, epochs=8, batch_size=8)
    wait_for(lambda: any(line.startswith("worker-1 ") for line in trial_starts(directory)))
    (lost,) = (line.split()[1] for line in trial_starts(directory) if line.startswith("worker-1 "))
    search.processes["worker-1"].send_signal(signal.SIGKILL)
    search.join()
    result = search.result
    assert result is not None, search.error
    assert [row.status for row in result] == ["COMPLETED"] * 3
    counts = Counter(line.split()[1] for line in trial_starts(directory))
    assert counts == {str(trial): 2 if str(trial) == lost else 1 for trial in range(3)}
    outcome = json.loads((directory / f"trials/trial_{lost}/outcome.json").read_text())
    assert outcome["worker"] == "worker-2"


@pytest.mark.slow
def test_a_killed_chief_ends_the_search_which_is_resumed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    search = BackgroundSearch(monkeypatch, directory, trials=2, workers=2, epochs=1, batch_size=64)
    wait_for(lambda: len(trial_starts(directory)) > 0)
    search.processes["chief"].send_signal(signal.SIGKILL)
    search.join()
    assert isinstance(search.error, OSError)
    assert "The chief of the search has been killed by signal 9" in str(search.error)
    assert "--resume" in str(search.error)
    arguments: dict[str, Any] = {"trials": 2, "epochs": 1, "batch_size": 64, "seeds": 0}
    result = tuning.search(few_digits(), small_space(), directory=directory, resume=True, **arguments)
    assert [row.status for row in result] == ["COMPLETED"] * 2


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, id="Ctrl-C", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, id="kill -9", marks=pytest.mark.slow),
    ],
)
def test_no_process_outlives_the_command(how: signal.Signals, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    options = (*TINY, "--trials", 90, "--workers", 2, "--output", directory)
    command = [sys.executable, "-m", "keras_rwinit", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(psutil.Process(process.pid).children()) == 3)
        children = psutil.Process(process.pid).children()
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        again = f"keras-rwinit tune --resume --output {directory} --workers 2"
        assert err == f"keras-rwinit: interrupted; continue with {again}\n"
    wait_for(lambda: not any(is_running(child) for child in children), seconds=20)


TOKEN = "a token"


@pytest.fixture
def chief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LocalSearchOracle, str]]:
    """A chief in a thread that hands out one trial: its oracle and its address."""
    monkeypatch.setattr(chief_module, "_GRACE", 0.5)
    oracle = LocalSearchOracle("loss", max_trials=1)
    oracle.hyperparameters.Float("gain_ratio", 0.8, 1.25, sampling="log", default=1.0)
    oracle._set_project_dir(str(tmp_path), "trials")
    port = str(launch._free_port())
    for name, value in {"TUNER_ID": "any", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": port}.items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address = f"127.0.0.1:{port}"
    thread = threading.Thread(target=chief_module.serve, args=(oracle, address, TOKEN))
    thread.start()
    heartbeat_module.check_chief(address, patience=20)
    yield oracle, address
    if not oracle.end_order:  # ends the search
        run_trial(oracle, client_of(oracle, open_channel(address, TOKEN)), "the last")
    thread.join(timeout=20)
    assert not thread.is_alive()


def client_of(oracle: LocalSearchOracle, channel: grpc.Channel) -> OracleClient:
    """Returns keras-tuner's client, which calls through `channel`."""
    client = OracleClient(oracle)
    client.stub = protos.get_service_grpc().OracleStub(channel)
    return client


def run_trial(oracle: LocalSearchOracle, client: OracleClient, worker: str) -> None:
    """Runs the trial as `SearchTuner` does, with a score of 0.25."""
    trial = client.create_trial(worker)
    trial.metrics.register("loss", "min")
    trial.metrics.update("loss", 0.25)
    trial.status = "COMPLETED"
    client.end_trial(trial)
    assert client.create_trial(worker).status == "STOPPED"
    assert oracle.trials["0"].score == 0.25


@pytest.mark.slow
def test_a_worker_that_falls_silent_loses_its_trial(
    chief: tuple[LocalSearchOracle, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat_module, "PATIENCE", 1.5)
    monkeypatch.setattr(worker_module, "_BEAT", 0.1)
    oracle, address = chief
    with open_channel(address, TOKEN, "lively") as channel:
        client = client_of(oracle, channel)
        with worker_module.show_alive(ProcessRole("worker", "lively", address), channel):
            assert client.create_trial("silent").trial_id == "0"
            assert client.create_trial("lively").status == "IDLE"
            wait_for(lambda: client.create_trial("lively").status == "RUNNING", seconds=20)
            time.sleep(3.0)  # longer than the chief's patience, but not silent
            assert oracle.ongoing_trials.keys() == {"lively"}
            run_trial(oracle, client, "lively")


def test_a_stranger_is_refused_and_calls_that_never_end_stall_nobody(
    chief: tuple[LocalSearchOracle, str],
) -> None:
    oracle, address = chief
    with (
        grpc.insecure_channel(address) as stranger,
        open_channel(address, "a guess") as guessing,
        open_channel(address, TOKEN) as own,
    ):
        for channel in (stranger, guessing):
            for call in (
                lambda client: client.create_trial("stranger"),
                lambda client: client.update_trial("0", {"loss": -1.0}),
            ):
                with pytest.raises(grpc.RpcError) as refusal:
                    call(client_of(oracle, channel))
                assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED
        # Calls whose request never arrives
        silence = threading.Event()

        def never() -> Iterator[bytes]:
            silence.wait()
            yield b""

        metadata = [(), (("keras-rwinit-token", TOKEN),)] * 3
        method = "/keras_tuner.Oracle/GetSpace"
        calls = [stranger.stream_unary(method).future(never(), metadata=each) for each in metadata]
        client = client_of(oracle, own)
        assert client.create_trial("own").trial_id == "0"
        assert calls[0].code() == grpc.StatusCode.UNAUTHENTICATED
        run_trial(oracle, client, "own")
        silence.set()


def test_two_workers_of_one_name_are_refused(
    chief: tuple[LocalSearchOracle, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle, address = chief
    role = ProcessRole("worker", "wörker", address)
    with open_channel(address, TOKEN, role.name) as first:
        assert client_of(oracle, first).create_trial(role.name).trial_id == "0"
        monkeypatch.setattr("keras_rwinit.tuning._processes.channel._THIS_PROCESS", "another")
        with open_channel(address, TOKEN, role.name) as second:
            with (
                pytest.raises(
                    ValueError, match="refuses this worker. A worker named wörker is at work already"
                ),
                worker_module.show_alive(role, second),
            ):
                time.sleep(20)
            assert oracle.ongoing_trials.keys() == {role.name}  # the first one's trial is still its own
            heartbeat_module.send(first, timeout=5.0, lost=role.name)  # as a worker that ends does
            assert client_of(oracle, second).create_trial(role.name).trial_id == "0"
            run_trial(oracle, client_of(oracle, second), role.name)


def test_a_worker_gives_up_a_silent_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "PATIENCE", 0.3)
    monkeypatch.setattr(worker_module, "_BEAT", 0.1)
    nowhere = ProcessRole("worker", "worker-1", f"127.0.0.1:{launch._free_port()}")
    with (
        open_channel(nowhere.address, TOKEN, nowhere.name) as channel,
        pytest.raises(ValueError, match="chief at 127.0.0.1:.* no longer answers. Start it again"),
        worker_module.show_alive(nowhere, channel),
    ):
        time.sleep(20)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_several_machines_by_environment_variables(tmp_path: Path) -> None:
    """The same command as chief and as worker; the worker comes first and waits."""
    directory = tmp_path / "run"
    port = str(launch._free_port())
    command = [sys.executable, "-m", "keras_rwinit", *map(str, (*TINY, "--trials", 2, "--output", directory))]
    both = []
    for name in ("worker-7", "chief"):
        role = {
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": port,
        }
        environment = {**os.environ, **role, "no_proxy": "127.0.0.1"}
        both.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "The search is over" in outputs[0][0]
    assert "Best val_loss" in outputs[1][0]
    assert [row["status"] for row in table_of(directory)] == ["COMPLETED"] * 2
