"""Every number of the README's results is in a file of the repository, and its links lead somewhere."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
import re
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, stdev

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def rows_of(path: Path) -> list[dict[str, str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def test_it_has_at_most_120_lines() -> None:
    assert len(README.splitlines()) <= 120


def test_depths() -> None:
    rows = [row for row in rows_of(RESULTS / "depths.csv") if row["distribution"] == "default"]
    assert {row["activation"] for row in rows} == {"relu", "tanh"}
    assert {int(row["depth"]) for row in rows} >= {20, 1000}
    assert min(float(row["training_accuracy"]) for row in rows) >= 0.9
    assert {row["epochs"] for row in rows} == {"10"}
    assert "at least 90 % of the training set in ten epochs" in README


def test_ten_thousand_layers() -> None:
    rows = rows_of(ROOT / "examples" / "ten_thousand_layers.csv")
    last = rows[-len(rows) // 8 :]
    accuracy = mean(float(row["accuracy"]) for row in last)
    seconds = float(rows[-1]["seconds"])
    assert (
        f"| {accuracy:.1%} of the training set in the eighth epoch, after {seconds:.0f} s |".replace(
            "%", " %"
        )
        in README
    )


def test_the_picture() -> None:
    """Its networks are those of the main job."""
    (row,) = (
        row
        for row in rows_of(RESULTS / "main_job.csv")
        if (row["network"], row["seed"]) == ("glorot_uniform", "0")
    )
    assert round(float(row["drift"]) * (int(row["depth"]) - 1)) == -8
    assert "default initializer it falls by eight nats" in README


def test_links() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]+))?\)", README)
    assert len(links) > 15
    for path, anchor in links:
        assert (ROOT / path).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, (path, anchor)


def test_mnist() -> None:
    rows = rows_of(ROOT / "examples" / "paper" / "results" / "deep_mnist" / "results.csv")
    (row,) = (
        row
        for row in rows
        if row["preset"] == "mnist_leaky_relu_1000" and row["initializer"] == "random_walk"
    )
    assert f"| {float(row['test_error']):.2%} test error".replace("%", " %") in README


def test_the_faq_on_residual_networks() -> None:
    rows = rows_of(ROOT / "examples" / "paper" / "results" / "plain_against_residual" / "results.csv")
    faq = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    for depth, network in itertools.product(("200", "1000"), ("residual", "looks_linear")):
        at = (depth, network, "relu")
        runs = [row for row in rows if (row["depth"], row["network"], row["activation"]) == at]
        tried = [row for row in runs if row["seed"] == "0"]
        rate = min(tried, key=lambda row: float(row["loss"]))["rate"]
        errors = [100 * float(row["test_error"]) for row in runs if row["seed"] != "0"]
        assert {row["rate"] for row in runs if row["seed"] != "0"} == {rate}
        assert len(errors) == 3
        assert f"{mean(errors):.2f} ± {stdev(errors):.2f} %" in faq


def test_goal_reaching() -> None:
    rows = rows_of(ROOT / "examples" / "goal_reaching" / "results" / "maze" / "results.csv")
    found = []
    for network in ("mirrored relu", "residual"):
        at = {"network": network, "depth": "256"}
        runs = [row for row in rows if at.items() <= row.items() and row["seed"] != "0"]
        assert len(runs) == 5
        found.append(100 * mean(float(row["success"]) for row in runs))
    text = f"{found[0]:.0f} % of the goals; residual blocks with LayerNormalization {found[1]:.0f} %"
    assert f"five seeds | {text}" in README


def test_physics_informed_networks() -> None:
    rows = rows_of(ROOT / "examples" / "pinn" / "results" / "poisson" / "results.csv")

    def error(depth: int, network: str) -> float:
        at = {"depth": str(depth), "network": network}
        return median(float(row["error"]) for row in rows if at.items() <= row.items() and row["seed"] != "0")

    for depth, times, words in (
        (20, 3, "at 20 layers, gated residual blocks had a third"),
        (40, 8, "at 40 layers an eighth"),
    ):
        assert round(error(depth, "mirrored, sines") / error(depth, "gated, sines")) == times
        assert error(depth, "mirrored, sines") < error(depth, "walk, sines")  # the other of this package
        assert words in " ".join(README.split())


@pytest.mark.parametrize("page", ["studies/pinn", "studies/images", "studies/goal_reaching", "results"])
def test_every_mark_of_a_page_is_filled(page: str) -> None:
    assert "{{" not in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def test_time_to_first_step_and_per_step() -> None:
    sizes = json.loads((RESULTS / "stacks_compared_cpu.json").read_text(encoding="utf-8"))["sizes"]
    (size,) = (size for size in sizes if (size["depth"], size["width"]) == (1000, 100))
    stack = size["contenders"]["keras_rwinit, TensorFlow, XLA"]
    dense = size["contenders"]["Keras Dense, TensorFlow"]
    assert f"{stack['first_step']:.1f} s; as Keras `Dense` layers {dense['first_step']:.0f} s" in README
    steps = [1e3 * median(one["steps"]) for one in (stack, dense)]
    assert f"{steps[0]:.0f} ms; as Keras `Dense` layers {steps[1]:.0f} ms" in README


def test_the_table_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of docs/comparisons.md that names a contender has its recorded numbers."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("stacks_compared")
    sizes = json.loads((RESULTS / "stacks_compared_cpu.json").read_text(encoding="utf-8"))["sizes"]
    (size,) = (size for size in sizes if (size["depth"], size["width"]) == (1000, 100))
    page = (ROOT / "docs" / "comparisons.md").read_text(encoding="utf-8")
    row = r"^\| (.+?) \| ([\d.]+) s \| (\d+) ms \((\d+) to (\d+)\) \| ([\d.]+) \|$"
    shown = re.findall(row, page, re.MULTILINE)
    measured = []
    for name, record in size["contenders"].items():
        if "step" in record and not benchmark.is_floor(name):
            times = [f"{1e3 * seconds:.0f}" for seconds in (record["step"], *record["quartiles"])]
            ratio = record["step"] / benchmark.floors_of(name, size["contenders"])[1]
            measured.append((f"{record['first_step']:.1f}", *times, f"{ratio:.2f}"))
    assert sorted(row[1:] for row in shown) == sorted(measured)


def test_search_against_random() -> None:
    found = json.loads((RESULTS / "search_against_random.json").read_text(encoding="utf-8"))
    losses = found["summaries"]["gain ratio and width"]
    page = (ROOT / "docs" / "comparisons.md").read_text(encoding="utf-8")
    for key in ("analytic_loss", "random_best_loss"):
        assert f"{losses[key][1]:.2f}" in page
        assert all(low <= high for low, high in pairwise(losses[key]))
    assert (found["depth"], found["trials"], found["seeds"]) == (100, 8, 10)


def test_the_main_job() -> None:
    rows = rows_of(RESULTS / "main_job.csv")
    page = (ROOT / "docs" / "comparisons.md").read_text(encoding="utf-8")
    for name in ("random_walk", "orthogonal", "glorot_uniform"):
        of_name = sorted((row for row in rows if row["network"] == name), key=lambda row: int(row["seed"]))
        training, test = (
            ", ".join(f"{100.0 * float(row[column]):.1f}" for row in of_name)
            for column in ("training_accuracy", "test_accuracy")
        )
        drift = ", ".join(f"{float(row['drift']):+.4f}" for row in of_name)
        assert f"| `{name}` | {training} | {test} | {drift} |" in page


def test_every_application() -> None:
    recorded = json.loads((RESULTS / "every_application.json").read_text(encoding="utf-8"))["architectures"]
    page = " ".join((ROOT / "docs" / "comparisons.md").read_text(encoding="utf-8").split())
    rows = list(recorded.values())
    fine = [row for row in rows if row["verdict_before"].startswith("fine")]
    after = sum(row["verdict_after"].startswith("fine") for row in rows)
    worse = sum(not row["verdict_after"].startswith("fine") for row in fine)
    before, then = (median(abs(row[f"drift_{when}"]) for row in rows) for when in ("before", "after"))
    vgg = recorded["VGG19"]
    assert all(row["finite"] and row["complete"] and not row["guessed"] for row in rows)
    for text in (
        f"All {len(rows)} architectures",
        f"{sum(row['kernels'] for row in rows):,} kernels",
        f"its median is {before:.3f} nats a layer before and {then:.3f} after",
        f"{len(fine)} are called fine before and {after} after; of the {len(fine)}, {worse} are",
        f"from {vgg['drift_before']:.2f} to {vgg['drift_after']:.3f}",
    ):
        assert text in page, text
