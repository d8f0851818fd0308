"""`tuning.search`: its start, its failed trials, its files, and how it resumes."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tuning_helpers import DIVERGING, SHORT, few_digits, small_space, table_of

import keras_rwinit
from keras_rwinit._files import locked

pytest.importorskip("keras_tuner")

from keras_rwinit import tuning
from keras_rwinit.tuning import Comparison, LocalSearchOracle, SearchResult, TrialRow
from keras_rwinit.tuning._tuner import make_tuner
from keras_rwinit.tuning.search_job import SearchJob
from keras_rwinit.tuning.settings import SearchOptions, SearchSettings

COLUMNS = [
    "trial",
    "gain_ratio",
    "gain",
    "width",
    "depth",
    "parameters",
    "drift",
    "spread",
    "score",
    "seconds",
    "status",
    "reason",
]


def stub(monkeypatch: pytest.MonkeyPatch, score: Any = None) -> list[dict[str, Any]]:
    """Replaces training by a function of the point; returns the list of points trained."""
    trained: list[dict[str, Any]] = []

    def train(trainer: Any, hp: Any, seed: int) -> float:
        values = dict(hp.values)
        forecast = trainer.hypermodel.forecast(trainer.hypermodel.point(hp))
        if forecast.reason:
            raise tuning.UntrainableTrialError(forecast.reason)
        trained.append({**values, "seed": seed})
        if score is not None:
            return float(score(values, seed))
        return abs(math.log(values["gain_ratio"] / 1.05)) + 1.0 / values["width"]

    monkeypatch.setattr("keras_rwinit.tuning._trainer.NetworkTrainer.train", train)
    return trained


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    """A small search whose networks are trained, and its directory."""
    directory = tmp_path_factory.mktemp("search") / "run"
    return tuning.search(few_digits(), small_space(), directory=directory, trials=3, **SHORT), directory


def test_the_first_trial_is_the_analytic_optimum(real: tuple[SearchResult, Path]) -> None:
    result, _ = real
    first = result[0]
    walk = keras_rwinit.predict_walk("relu", 16, 3, distribution="orthogonal")
    assert (first.gain_ratio, first.width, first.depth) == (1.0, 16, 3)
    assert (first.gain, first.spread) == (walk.gain, walk.std[0])
    assert first.drift == pytest.approx(0.0, abs=1e-9)
    others = [row for row in result if row.trial]
    assert all(row.gain_ratio != 1.0 for row in others)
    assert all(row.drift != first.drift for row in others)


def test_the_table_is_whole(real: tuple[SearchResult, Path]) -> None:
    result, directory = real
    with open(directory / "trials.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [float(row["score"]) for row in rows] == [row.score for row in result]
    written = json.loads((directory / "trials.json").read_text(encoding="utf-8"))
    assert [row["gain_ratio"] for row in written["trials"]] == [row.gain_ratio for row in result]
    assert written["summary"] == result.summary()
    for row in result:
        assert row.status == "COMPLETED"
        assert row.seconds is not None
        assert row.seconds > 0
        assert 0.5 < float(row.score or 0) < 10
        assert row.parameters == keras_rwinit.model_zoo.count_parameters(3, row.width, 64, 10)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_table(real: tuple[SearchResult, Path], tmp_path: Path) -> None:
    tuning.search(few_digits(), small_space(), directory=tmp_path / "again", trials=2, **SHORT)
    assert table_of(tmp_path / "again") == table_of(real[1])[:2]
    tuning.search(few_digits(), small_space(), directory=tmp_path / "other", trials=1, seed=1, **SHORT)
    assert table_of(tmp_path / "other") != table_of(real[1])[:1]


def test_a_score_is_the_mean_of_executions_with_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = stub(monkeypatch, lambda values, seed: seed)
    result = tuning.search(few_digits(), small_space(), trials=2, executions_per_trial=3, seeds=0)
    seeds = [run["seed"] for run in trained]
    assert len(set(seeds)) == 3
    assert seeds[:3] == seeds[3:]
    assert result[0].score == np.mean(seeds[:3])


def test_no_trial_is_outside_the_space_or_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = stub(monkeypatch)
    space = small_space(width=(9, 16), activation=["relu", "leaky_relu"], learning_rate=(1e-4, 1e-2))
    result = tuning.search(few_digits(), space, trials=60, seeds=0)
    assert len({json.dumps({**run, "seed": 0}, sort_keys=True) for run in trained}) == 60
    for row in result:
        assert 0.8 <= row.gain_ratio <= 1.25
        assert 9 <= row.width <= 16
        assert 1e-4 <= row.others["learning_rate"] <= 1e-2
    assert {row.others["activation"] for row in result} == {"leaky_relu", "relu"}
    assert min(row.width for row in result) < 12
    assert result.best is not None
    assert abs(math.log(result.best.gain_ratio / 1.05)) < 0.02  # it goes where the score is better


def test_a_small_space_is_exhausted_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch)
    space = small_space(gain_ratio=[1.0, 0.9], width=[8, 16])
    result = tuning.search(few_digits(), space, trials=20, seeds=0)
    assert len(result) == 4
    assert {(row.gain_ratio, row.width) for row in result} == {(1.0, 8), (1.0, 16), (0.9, 8), (0.9, 16)}


def test_untrainable_trials_cost_no_training_and_do_not_end_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = stub(monkeypatch)
    space = small_space(depth=300, width=[16], gain_ratio=(0.3, 3.0), dtype="float16")
    result = tuning.search(few_digits(), space, trials=12, seeds=0)
    failed = [row for row in result if row.status == "FAILED"]
    assert len(failed) >= 4
    assert len(trained) == len(result) - len(failed) >= 1
    for row in failed:
        assert row.score is None
        assert "float16 ends at" in str(row.reason)
    assert {run["gain_ratio"] for run in trained} == {row.gain_ratio for row in result.ranking}


def test_untrainable_trials_build_and_fit_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without a stub: only the analytic optimum reaches Keras."""
    built: list[float] = []
    deep_mlp = tuning.hypermodel.model_zoo.deep_mlp

    def counted(*args: Any, **kwargs: Any) -> Any:
        built.append(kwargs["gain"])
        return deep_mlp(*args, **kwargs)

    monkeypatch.setattr(tuning.hypermodel.model_zoo, "deep_mlp", counted)
    space = small_space(depth=20, width=16, gain_ratio=[1.0, 1e-3, 1e3])
    result = tuning.search(few_digits(), space, trials=3, **SHORT)
    assert [row.status for row in result] == ["COMPLETED", "FAILED", "FAILED"]
    assert built == [result[0].gain]


def test_diverged_trials_are_failed_and_never_ranked() -> None:
    result = tuning.search(few_digits(), small_space(**DIVERGING), trials=2, epochs=2, batch_size=64, seeds=3)
    assert [row.status for row in result] == ["FAILED"] * 2
    assert all("diverged: loss is not finite in epoch 1" in str(row.reason) for row in result)
    assert result.ranking == []
    assert result.best is None
    assert "None of 2 trials gave a score: diverged" in result.summary()


def test_three_crashes_in_a_row_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(values: Any, seed: int) -> float:
        raise RuntimeError("out of\nmemory")

    stub(monkeypatch, crash)
    with pytest.raises(
        ValueError, match="3 trials in a row crashed, the last by RuntimeError: out of memory"
    ):
        tuning.search(few_digits(), small_space(), trials=9, seeds=0)


def test_one_crash_ends_that_trial_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its message is shown whole, also where rich would take it for markup."""

    def crash(values: Any, seed: int) -> float:
        if values["gain_ratio"] == 1.0:
            raise RuntimeError("[/b] too large")
        return 1.0

    stub(monkeypatch, crash)
    result = tuning.search(few_digits(), small_space(), trials=3, seeds=2, verbose=1)
    assert [row.status for row in result] == ["FAILED", "COMPLETED", "COMPLETED"]
    assert result[0].reason == "RuntimeError: [/b] too large"
    printed = capsys.readouterr()
    assert "failed: RuntimeError: [/b] too large;" in printed.out + printed.err


def test_progress_shows_each_trial_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A resumed search shows the trials that it runs, and none that it found."""
    trained = stub(monkeypatch)

    def trials_shown() -> list[list[str]]:
        lines = capsys.readouterr().out.splitlines()
        return [line.split() for line in lines if " done  trial " in line]

    def search(**options: Any) -> None:
        tuning.search(
            few_digits(), small_space(), directory=tmp_path / "run", trials=4, seeds=0, verbose=1, **options
        )

    train = tuning._trainer.NetworkTrainer.train

    def stop(trainer: Any, hp: Any, seed: int) -> float:
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(trainer, hp, seed)

    with monkeypatch.context() as patch:
        patch.setattr("keras_rwinit.tuning._trainer.NetworkTrainer.train", stop)
        with pytest.raises(KeyboardInterrupt):
            search()
    assert [(line[0], line[3]) for line in trials_shown()] == [("1/4", "0:"), ("2/4", "1:")]
    search(resume=True)
    after = trials_shown()
    assert [(line[0], line[3]) for line in after] == [("3/4", "2:"), ("4/4", "3:")]
    assert ["left" in line for line in after] == [True, False]


def test_fresh_seeds_tell_noise_from_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained = stub(monkeypatch)
    clear = tuning.search(few_digits(), small_space(), directory=tmp_path / "clear", trials=9, seeds=3)
    assert clear.comparison is not None
    assert clear.best is not None
    assert clear.comparison.larger_than_noise
    assert clear.best.score is not None
    assert clear.comparison.difference == pytest.approx(clear.best.score - float(clear[0].score or 0.0))
    assert "larger than the noise between seeds" in clear.summary()
    assert "not larger" not in clear.summary()
    assert len(trained) == 9 + 2 * 3
    assert not {run["seed"] for run in trained[:9]} & {run["seed"] for run in trained[9:]}

    draws = np.random.default_rng(0)
    stub(monkeypatch, lambda values, seed: draws.normal())
    noisy = tuning.search(few_digits(), small_space(), directory=tmp_path / "noisy", trials=9, seeds=5)
    assert noisy.comparison is not None
    assert not noisy.comparison.larger_than_noise
    assert "not larger than the noise between seeds" in noisy.summary()


def test_comparison_is_a_paired_t_test() -> None:
    from scipy import stats

    best, analytic = (1.0, 1.2, 0.9, 1.1), (1.4, 1.5, 1.6, 1.2)
    comparison = Comparison(best, analytic)
    interval = stats.ttest_rel(best, analytic).confidence_interval(0.95)
    assert comparison.difference - comparison.margin == pytest.approx(interval.low)
    assert comparison.difference + comparison.margin == pytest.approx(interval.high)
    assert Comparison((1.0, None), (None, 2.0)).pairs == []
    assert not Comparison((1.0, None), (2.0, 2.0)).larger_than_noise


def test_the_best_by_accuracy_is_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, lambda values, seed: values["width"] / 16)
    result = tuning.search(few_digits(), small_space(), trials=6, objective="val_accuracy", seeds=0)
    assert result.best is not None
    assert result.best.score == max(row.score for row in result if row.score is not None)


def test_landscape(real: tuple[SearchResult, Path]) -> None:
    rows = [*real[0], _failed(real[0][1])]
    ax = tuning.plot_landscape(rows, "val_loss")
    assert ax.get_ylabel() == "width"
    assert [list(line.get_xdata()) for line in ax.lines] == [[1.0, 1.0]]
    assert sum(len(points.get_offsets()) for points in ax.collections) == 4
    assert ax.get_title() == "val_loss of 3 trials"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "trial",
        "failed",
        "analytic optimum",
    ]
    same_width = [row for row in rows if row.width == 16][:1]
    ax = tuning.plot_landscape(same_width, "val_loss")
    assert ax.get_ylabel() == "val_loss"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["trial", "analytic optimum"]


@pytest.mark.parametrize("method", ["to_csv", "to_json"])
def test_files_are_overwritten_only_if_asked_for(method: str, tmp_path: Path) -> None:
    write = getattr(SearchResult((), "val_loss", "min"), method)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ValueError, match="exists, and nothing is overwritten.*or pass overwrite=True"):
        write(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"
    write(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine").read_text() != "mine"


def test_a_table_for_pandas(real: tuple[SearchResult, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    result, _ = real
    frame = result.to_frame()
    assert list(frame.index) == [row.trial for row in result]
    assert frame.loc[1].to_dict() == {name: v for name, v in result[1].as_dict().items() if name != "trial"}
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="`to_frame` needs pandas: pip install pandas"):
        result.to_frame()


def test_a_result_prints_its_summary(real: tuple[SearchResult, Path]) -> None:
    assert str(real[0]) == real[0].summary()


def _failed(row: TrialRow) -> TrialRow:
    return TrialRow(**{**vars(row), "score": None, "status": "FAILED", "reason": "diverged"})


def test_resuming_a_finished_search_trains_nothing(
    real: tuple[SearchResult, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = stub(monkeypatch)
    before = table_of(real[1])
    result = tuning.search(few_digits(), small_space(), directory=real[1], trials=3, resume=True, **SHORT)
    assert trained == []
    assert list(result) == list(real[0])
    assert table_of(real[1]) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trials": 4}, "trials 3, not 4"),
        ({"seed": 5}, "seed 0, not 5"),
        ({"hypermodel": small_space(width=(8, 12))}, r"width \(8, 16\), not \(8, 12\)"),
        ({"data": "digits"}, "dataset 'few', not 'digits'.*sha256"),
    ],
)
def test_other_settings_are_refused_on_resuming(
    changed: dict[str, Any], message: str, real: tuple[SearchResult, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = stub(monkeypatch)
    arguments = {"data": few_digits(), "hypermodel": small_space(), "trials": 3, **SHORT, **changed}
    with pytest.raises(ValueError, match=f"other settings:.*{message}"):
        tuning.search(directory=real[1], resume=True, **arguments)
    assert trained == []


def test_a_search_of_an_earlier_release_keeps_its_learning_rate(
    real: tuple[SearchResult, Path], tmp_path: Path
) -> None:
    """Its settings do not know `rate_width`; the trials of all widths trained at the rate of width 64."""
    settings = json.loads((real[1] / "settings.json").read_text(encoding="utf-8"))
    assert SearchSettings.load(real[1]).make_hypermodel().rate_width is settings.pop("rate_width") is None
    (tmp_path / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    assert SearchSettings.load(tmp_path).make_hypermodel().rate_width == 64


def test_a_new_search_keeps_off_an_old_one(real: tuple[SearchResult, Path], tmp_path: Path) -> None:
    before = sorted(real[1].rglob("*"))
    with pytest.raises(ValueError, match="not empty. A run never overwrites files"):
        tuning.search(few_digits(), small_space(), directory=real[1], trials=3, **SHORT)
    assert sorted(real[1].rglob("*")) == before
    with pytest.raises(ValueError, match="There is no search to resume in .*nowhere"):
        tuning.search(few_digits(), small_space(), directory=tmp_path / "nowhere", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_keep_out_of_each_others_way(real: tuple[SearchResult, Path]) -> None:
    with locked(real[1]), pytest.raises(ValueError, match="Another process is at work"):
        tuning.search(few_digits(), small_space(), directory=real[1], trials=3, resume=True, **SHORT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "`workers` must be an integer of at least 1.*0"),
        ({"trials": 0}, "trials.*at least 1"),
        ({"epochs": 0}, "epochs.*at least 1"),
        ({"seeds": 1}, "`seeds` must be 0 or at least 2"),
        ({"seed": -1}, "seed.*at least 0"),
        ({"objective": "val_auc"}, "objective.*val_loss.*val_auc"),
        ({"resume": True}, "Pass `directory`: it holds the search to resume"),
        ({"hypermodel": small_space(width=8, gain_ratio=1.0)}, "space is a single point"),
        ({"hypermodel": tuning.DeepMLPHyperModel((63,))}, r"shape \(63,\).*input_shape=\(64,\)"),
        ({"data": "digitz"}, "digits, mnist.*digitz"),
        ({"verbose": "auto"}, "`verbose` must be 0, .* or 1.*'auto'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    directory = {} if "resume" in arguments else {"directory": tmp_path / "new"}
    with pytest.raises(ValueError, match=message):
        tuning.search(**{"data": few_digits(), **directory, **arguments})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ['{"trial_id"', "{}", "null", "[]"])
def test_a_damaged_trial_is_named(content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub(monkeypatch)
    arguments: dict[str, Any] = {"directory": tmp_path / "run", "trials": 4, "seeds": 0}
    whole = tuning.search(few_digits(), small_space(), **arguments)
    for number in (0, 2):
        path = tmp_path / f"run/trials/trial_{number}/trial.json"
        before = path.read_bytes()
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"trial_{number}/trial.json is damaged. Restore the file, or"):
            tuning.search(few_digits(), small_space(), resume=True, **arguments)
        path.write_bytes(before)
    assert tuning.search(few_digits(), small_space(), resume=True, **arguments) == whole


def test_a_missing_trial_is_named_and_none_is_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """keras-tuner numbers a trial by how many there are: after a deletion it would overwrite the last one."""
    trained = stub(monkeypatch)
    arguments: dict[str, Any] = {"directory": tmp_path / "run", "trials": 4, "seeds": 0}
    tuning.search(few_digits(), small_space(), **arguments)
    trials = tmp_path / "run/trials"
    for number in (0, 2):
        (trials / f"trial_{number}").rename(tmp_path / "elsewhere")
        before = {path: path.read_bytes() for path in trials.glob("*/*")}
        with pytest.raises(ValueError, match=f"Trial {number} in .*trials is missing.*new search in another"):
            tuning.search(few_digits(), small_space(), resume=True, **arguments)
        assert {path: path.read_bytes() for path in trials.glob("*/*")} == before
        (tmp_path / "elsewhere").rename(trials / f"trial_{number}")
    assert len(trained) == 4
    shutil.rmtree(trials / "trial_3")  # the last: a number that no other trial has
    again = tuning.search(few_digits(), small_space(), resume=True, **arguments)
    assert [row.trial for row in again] == [0, 1, 2, 3]
    assert len(trained) == 5


@pytest.mark.parametrize("score", [None, "x", float("nan")])
def test_a_trial_whose_file_lacks_its_score_runs_again(
    score: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Earlier versions wrote the status before the score, and could be killed between the two."""
    trained = stub(monkeypatch)
    arguments: dict[str, Any] = {"directory": tmp_path / "run", "trials": 3, "seeds": 0}
    whole = tuning.search(few_digits(), small_space(), **arguments)
    for number in (0, 2):
        path = tmp_path / f"run/trials/trial_{number}/trial.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "score": score}))
        again = tuning.search(few_digits(), small_space(), resume=True, **arguments)
        assert [row.score for row in again] == [row.score for row in whole]
    assert len(trained) == 5


@pytest.mark.parametrize("deleted", ["run", "run/trials", "run/trials/trial_0"])
def test_a_directory_that_is_deleted_ends_the_search(
    deleted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def score(values: Any, seed: int) -> float:
        if values["gain_ratio"] != 1.0:
            shutil.rmtree(tmp_path / deleted, ignore_errors=True)
        return 1.0

    stub(monkeypatch, score)
    with pytest.raises(FileNotFoundError):
        tuning.search(few_digits(), small_space(), directory=tmp_path / "run", trials=3, seeds=0)
    assert not (tmp_path / deleted).exists()  # nothing is made again there


def test_the_callers_keras_is_left_alone() -> None:
    """A search once called `keras.utils.clear_session`, which resets all of this."""
    keras.config.disable_traceback_filtering()
    keras.config.disable_interactive_logging()
    try:
        with keras.saving.custom_object_scope({"mine": abs}):
            tuning.search(few_digits(), small_space(**DIVERGING), trials=1, **SHORT)
            assert keras.saving.get_registered_object("mine") is abs
        assert not keras.config.is_traceback_filtering_enabled()
        assert not keras.config.is_interactive_logging_enabled()
    finally:
        keras.config.enable_traceback_filtering()
        keras.config.enable_interactive_logging()


def test_a_directory_that_is_not_utf_8_is_refused_before_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no directory whose name is not UTF-8"):
        tuning.search(few_digits(), small_space(), directory=tmp_path / "x\udcff", trials=1, seeds=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["settings.json", "seeds.json"])
@pytest.mark.parametrize("content", ["{", "{}", "[]", "null"])
def test_other_damaged_files_are_named(
    name: str, content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub(monkeypatch)
    arguments: dict[str, Any] = {"directory": tmp_path / "run", "trials": 3, "seeds": 2}
    result = tuning.search(few_digits(), small_space(), **arguments)
    if name == "seeds.json" and (content == "{}" or result.best.trial == 0):
        return  # no runs are kept, and none is damaged
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        tuning.search(few_digits(), small_space(), resume=True, **arguments)


@pytest.mark.slow
def test_a_search_keeps_to_the_global_policy(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watching(tuning.DeepMLPHyperModel):
        def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(f"{model.layers[1].compute_dtype} {type(model.optimizer).__name__}")
            return super().fit(hp, model, *args, **kwargs)

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        space = Watching((64,), depth=1, width=(8, 12), activation="erf", distribution="orthogonal")
        tuning.search(few_digits(), space, directory=tmp_path / "run", trials=2, epochs=1, seeds=0)
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy(before)
    assert seen == ["float16 LossScaleOptimizer"] * 2
    with pytest.raises(ValueError, match="dtype_policy 'mixed_float16', not 'float32'"):
        tuning.search(
            few_digits(), small_space(), directory=tmp_path / "run", trials=2, epochs=1, seeds=0, resume=True
        )


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (lambda hp: None, "must be a `DeepMLPHyperModel`"),
        (tuning.DeepMLPHyperModel((8, 8)), r"inputs of shape \(8, 8\)"),
        (tuning.DeepMLPHyperModel((64,), tunable=False), "single point"),
    ],
)
def test_spaces_that_cannot_be_searched(space: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        tuning.search(few_digits(), space, directory=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": 64}, "`input_shape` must be a tuple of sizes"),
        ({"optimizer": keras.optimizers.Adam()}, "`optimizer` must be a name"),
    ],
)
def test_arguments_of_the_wrong_kind(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tuning.DeepMLPHyperModel(**arguments)


def test_a_policy_may_be_an_object() -> None:
    assert tuning.DeepMLPHyperModel(dtype=keras.DTypePolicy("mixed_bfloat16")).dtype == "mixed_bfloat16"


@pytest.mark.parametrize("arguments", [{"max_trials": 0}, {"seed": -1}, {"objective": "val_unknown"}])
def test_an_oracle_that_could_not_choose_a_point_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_trials|seed|val_unknown"):
        LocalSearchOracle(**{"objective": "val_loss", "max_trials": 3, **arguments})


def test_a_trial_that_has_no_number_gets_no_point() -> None:
    with pytest.raises(ValueError, match="abc"):
        LocalSearchOracle("val_loss", max_trials=3).populate_space("abc")


def test_a_lost_workers_trial_goes_to_the_next_and_ends_once(tmp_path: Path) -> None:
    """The chief's side, without processes."""
    job = SearchJob(few_digits(), small_space(), SearchOptions(objective="loss", trials=2, **SHORT))
    oracle = make_tuner(job.settings, tmp_path).oracle
    assert isinstance(oracle, LocalSearchOracle)
    first, second = oracle.create_trial("a"), oracle.create_trial("b")
    assert oracle.create_trial("c").status == "IDLE"  # it waits, as a trial may come back
    oracle.release("a")
    again = oracle.create_trial("c")
    assert (again.trial_id, again.hyperparameters.values) == (first.trial_id, first.hyperparameters.values)
    for trial, score in ((again, 1.0), (second, 2.0), (first, 3.0)):  # `a` was only slow
        oracle.update_trial(trial.trial_id, {"loss": score})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert oracle.trials[first.trial_id].score == 1.0
    assert oracle.end_order == [first.trial_id, second.trial_id]
    assert oracle.create_trial("c").status == "STOPPED"


def test_without_keras_tuner_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("keras_rwinit.tuning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    monkeypatch.delattr(keras_rwinit, "tuning", raising=False)
    with pytest.raises(ImportError, match=r'pip install "keras-rwinit\[tuning\]"'):
        _ = keras_rwinit.tuning
