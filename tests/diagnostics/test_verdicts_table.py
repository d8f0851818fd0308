"""The recorded table of verdicts before training and of what training then did."""

from __future__ import annotations

import csv
import importlib
import json
from collections import Counter
from pathlib import Path
from statistics import median
from types import ModuleType

import keras
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "comparisons.md"
TABLE = BENCHMARKS / "results" / "verdicts_compared.csv"
CONDITIONS = json.loads(TABLE.with_suffix(".json").read_text(encoding="utf-8"))

with open(TABLE, newline="", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))

SEEDS = {
    seed: [row for row in ROWS if row["seed"] == seed]
    for seed, summary in CONDITIONS["seeds"].items()
    if summary["networks"] >= 40  # the benchmark may not be through with a seed
}
every_seed = pytest.mark.parametrize("seed", SEEDS)

OUTCOMES = {
    "0": {
        "fine": {"learned": 18, "slow": 1},
        "growing": {"learned": 1},
        "shrinking": {"chance": 2, "learned": 4},
        "inputs alike": {"learned": 6},
        "inputs collapsed": {"slow": 3},
        "exploding": {"chance": 2, "slow": 1},
        "vanishing": {"chance": 6, "learned": 2},
        "dead": {"chance": 2},
    },
    "1": {
        "fine": {"learned": 21, "slow": 1},
        "growing": {"learned": 2},
        "shrinking": {"chance": 1, "learned": 4, "slow": 1},
        "inputs alike": {"learned": 1},
        "inputs collapsed": {"chance": 1, "learned": 1, "slow": 1},
        "exploding": {"chance": 2, "slow": 1},
        "vanishing": {"chance": 6, "learned": 3},
        "dead": {"chance": 2},
    },
    "2": {
        "fine": {"learned": 19, "slow": 1},
        "growing": {"learned": 2},
        "shrinking": {"chance": 2, "learned": 4, "slow": 1},
        "inputs alike": {"learned": 3},
        "inputs collapsed": {"learned": 1, "slow": 2},
        "exploding": {"chance": 2, "slow": 1},
        "vanishing": {"chance": 5, "learned": 3},
        "dead": {"chance": 2},
    },
}
"""What the documentation says of the table."""


def of_word(seed: str, word: str) -> list[dict[str, str]]:
    return [row for row in SEEDS[seed] if row["verdict"].removeprefix("partly ").startswith(word)]


@every_seed
def test_the_table_has_forty_networks_and_its_conditions(seed: str) -> None:
    rows = SEEDS[seed]
    assert len({(row["kind"], row["depth"]) for row in rows}) == len(rows) >= 40
    assert {"commands", "seeds", "steps", "machine", "chance", "learned"} <= CONDITIONS.keys()


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


@every_seed
def test_no_network_that_trains_is_called_dead(seed: str) -> None:
    dead = of_word(seed, "dead")
    assert [row["kind"] for row in dead if row["outcome"] != "chance"] == []
    assert dead


@every_seed
def test_no_network_at_chance_is_called_fine(seed: str) -> None:
    """Nor one whose inputs are only alike."""
    passed = [*of_word(seed, "fine"), *of_word(seed, "inputs alike")]
    assert [row["kind"] for row in passed if row["outcome"] == "chance"] == []


def test_networks_of_alike_inputs_are_between_fine_and_collapsed() -> None:
    losses = [
        median(float(row["loss"]) for seed in SEEDS for row in of_word(seed, word))
        for word in ("fine", "inputs alike", "inputs collapsed")
    ]
    assert losses == sorted(losses)


@every_seed
def test_verdicts_rank_the_networks_by_their_final_loss(seed: str) -> None:
    assert _load().summarize(SEEDS[seed]) == CONDITIONS["seeds"][seed]
    assert CONDITIONS["seeds"][seed]["rank_correlation"] > 0.7


@pytest.mark.parametrize("seed", OUTCOMES)
def test_how_often_each_verdict_is_right(seed: str) -> None:
    assert CONDITIONS["seeds"][seed]["outcomes"] == OUTCOMES[seed]


def test_the_page_says_how_the_held_out_seeds_came_out() -> None:
    summaries = [CONDITIONS["seeds"][seed] for seed in ("1", "2")]
    outcomes: Counter[tuple[str, str]] = Counter()
    for summary in summaries:
        for word, counts in summary["outcomes"].items():
            outcomes.update({(word, outcome): count for outcome, count in counts.items()})

    def count(*words: str, outcome: str | None = None) -> int:
        return sum(n for (word, of), n in outcomes.items() if word in words and outcome in (None, of))

    failing = ("vanishing", "exploding", "dead")
    one, two = (f"{summary['rank_correlation']:.2f}" for summary in summaries)
    learned, slow, chance = (
        count("inputs collapsed", outcome=outcome) for outcome in ("learned", "slow", "chance")
    )
    learned_of_fine, stuck = count("fine", outcome="learned"), count(*failing, outcome="chance")
    sentence = (
        f"There, {learned_of_fine} of the {count('fine')} called fine learned and none stayed at chance; "
        f"{stuck} of the {count(*failing)} called vanishing, exploding or dead stayed at chance. The rank "
        f"correlations are {one} and {two}. All {count('inputs alike')} called alike learned. Of the "
        f"{count('inputs collapsed')} called collapsed {learned} learned, {slow} learned slowly and {chance} "
        "stayed at chance"
    )
    assert sentence in " ".join(PAGE.read_text(encoding="utf-8").split())
    assert count("inputs alike", outcome="learned") == count("inputs alike")
    assert count("fine", outcome="chance") == 0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="recorded there")
@pytest.mark.parametrize("kind", ["relu glorot_uniform", "residual, ReZero"])
@pytest.mark.slow
def test_the_table_is_that_of_the_present_verdicts(kind: str) -> None:
    benchmark = _load()
    digits = benchmark.data.load("digits")
    network = next(network for network in benchmark.NETWORKS if network.kind == kind)
    row = next(row for row in SEEDS["0"] if (row["kind"], row["depth"]) == (kind, str(network.depth)))
    assert benchmark.measure(network, digits, 0)["verdict"] == row["verdict"]


@pytest.fixture(autouse=True)
def import_from_the_scripts_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def _load() -> ModuleType:
    return importlib.import_module("verdicts_compared")
