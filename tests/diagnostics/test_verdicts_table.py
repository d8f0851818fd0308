"""The recorded table of verdicts before training and of what training then did."""

from __future__ import annotations

import csv
import importlib
import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import keras
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TABLE = BENCHMARKS / "results" / "verdicts_compared.csv"
CONDITIONS = json.loads(TABLE.with_suffix(".json").read_text(encoding="utf-8"))

with open(TABLE, newline="", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))

COUNTS = Counter(
    {
        ("dead", "chance"): 2,
        ("exploding", "chance"): 2,
        ("exploding", "slow"): 1,
        ("fine", "learned"): 24,
        ("fine", "slow"): 1,
        ("growing", "learned"): 1,
        ("inputs", "slow"): 3,  # collapsed
        ("shrinking", "chance"): 2,
        ("shrinking", "learned"): 4,
        ("vanishing", "chance"): 6,
        ("vanishing", "learned"): 2,
    }
)


def word_of(row: dict[str, str]) -> str:
    return row["verdict"].replace(";", " ").split()[0]


def test_the_table_has_forty_networks_and_its_conditions() -> None:
    assert len({(row["kind"], row["depth"]) for row in ROWS}) == len(ROWS) >= 40
    assert {
        "commands",
        "seed",
        "steps",
        "machine",
        "chance",
        "learned",
        "rank_correlation",
    } <= CONDITIONS.keys()


def test_outcomes_follow_from_the_accuracy() -> None:
    for row in ROWS:
        accuracy = float(row["accuracy"])
        expected = (
            "learned"
            if accuracy >= CONDITIONS["learned"]
            else "chance"
            if accuracy <= CONDITIONS["chance"]
            else "slow"
        )
        assert row["outcome"] == expected


def test_no_network_that_trains_is_called_dead() -> None:
    assert [row["kind"] for row in ROWS if word_of(row) == "dead" and row["outcome"] != "chance"] == []
    assert [row["kind"] for row in ROWS if word_of(row) == "dead"] != []


def test_no_network_at_chance_is_called_fine() -> None:
    assert [row["kind"] for row in ROWS if word_of(row) == "fine" and row["outcome"] == "chance"] == []


def test_no_network_that_learns_is_said_to_have_collapsed_inputs() -> None:
    collapsed = [row for row in ROWS if word_of(row) == "inputs"]
    assert {row["outcome"] for row in collapsed} == {"slow"}
    # The one that the correlation alone would take for one of them
    assert [row["kind"] for row in ROWS if float(row["cosine"]) > 0.99 and row["outcome"] == "learned"] == [
        "sigmoid glorot_uniform"
    ]


def test_verdicts_rank_the_networks_by_their_final_loss() -> None:
    assert CONDITIONS["networks"] == len(ROWS)
    found = _load().rank_correlation(ROWS)
    assert found == pytest.approx(CONDITIONS["rank_correlation"], abs=1e-4)
    assert found > 0.7


def test_how_often_each_verdict_is_right() -> None:
    """What the documentation says of the table."""
    counts = Counter((word_of(row), row["outcome"]) for row in ROWS)
    assert counts == COUNTS


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="recorded there")
@pytest.mark.parametrize("kind", ["relu glorot_uniform", "residual, ReZero"])
@pytest.mark.slow
def test_the_table_is_that_of_the_present_verdicts(kind: str) -> None:
    benchmark = _load()
    digits = benchmark.data.load("digits")
    network = next(network for network in benchmark.NETWORKS if network.kind == kind)
    row = next(row for row in ROWS if (row["kind"], row["depth"]) == (kind, str(network.depth)))
    assert benchmark.measure(network, digits)["verdict"] == row["verdict"]


@pytest.fixture(autouse=True)
def import_from_the_scripts_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def _load() -> ModuleType:
    return importlib.import_module("verdicts_compared")
