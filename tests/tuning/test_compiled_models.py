"""A trial of the shapes of an earlier one trains its compiled model, and gives the numbers of a new one."""

from __future__ import annotations

import math
import types
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tuning_helpers import SHORT, few_digits, small_space, table_of

pytest.importorskip("keras_tuner")

import keras_tuner

from keras_rwinit import tuning
from keras_rwinit.tuning import _compiled_models as compiled_models
from keras_rwinit.tuning._compiled_models import _CompiledModel
from keras_rwinit.tuning._trainer import NetworkTrainer
from keras_rwinit.tuning.search_job import SearchJob
from keras_rwinit.tuning.settings import SearchOptions

OPTIONS = {"epochs": 2, "batch_size": 64, "seeds": 0}


def make_trainer(space: tuning.DeepMLPHyperModel | None = None, **options: Any) -> NetworkTrainer:
    space = small_space(width=16) if space is None else space
    data = few_digits() if space.loss is None else regression()
    return SearchJob(data, space, SearchOptions(**{**OPTIONS, **options})).trainer


def regression() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(150, 64))
    return x, x[:, :10] ** 2


def train(trainer: NetworkTrainer, seed: int = 0, **values: Any) -> float:
    """Returns the score of a network at the values; infinite if it diverges."""
    hp = keras_tuner.HyperParameters()
    for name, value in values.items():
        hp.Fixed(name, value)
    try:
        return trainer.train(hp, seed)
    except tuning.DivergedTrialError:
        return math.inf


TRIALS: list[dict[str, Any]] = [
    {"seed": 1},
    {"seed": 2, "gain_ratio": 1.1, "learning_rate": 3e-3},
    {"seed": 3, "learning_rate": 1e30},  # leaves numbers that are not finite in all of the state
    {"seed": 4, "gain_ratio": 0.9, "distribution": "normal", "output_gain_ratio": 2.0},
]


def compare(trials: list[dict[str, Any]], space: dict[str, Any], **options: Any) -> None:
    """Trains all trials with one model, and the last one with a new model too."""
    trainer = make_trainer(small_space(width=16, **space), **options)
    kept = [train(trainer, **trial) for trial in trials]
    assert len(trainer.models.kept) == 1
    assert kept[-1] == train(make_trainer(small_space(width=16, **space), **options), **trials[-1])
    assert len(set(kept)) == len(trials)
    assert math.isfinite(kept[-1])


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets an entry whenever Python runs the loss: where it is compiled, at every trace of it."""
    calls: list[str] = []
    run = keras.losses.SparseCategoricalCrossentropy.call

    def call(loss: Any, *args: Any) -> Any:
        calls.append(loss.name)
        return run(loss, *args)

    monkeypatch.setattr(keras.losses.SparseCategoricalCrossentropy, "call", call)
    return calls


def test_a_kept_model_is_compiled_once_and_gives_the_numbers_of_a_new_one(traced: list[str]) -> None:
    """Bit by bit, after a trial that diverged."""
    kept, new = make_trainer(), make_trainer()
    train(kept, **TRIALS[1])
    once = len(traced)
    assert once >= 2  # training and validation
    diverged, score = train(kept, **TRIALS[2]), train(kept, **TRIALS[3])
    again = len(traced) - once
    assert score == train(new, **TRIALS[3])
    assert diverged == math.inf
    assert math.isfinite(score)
    if keras.backend.backend() != "torch":  # where Keras compiles nothing, and each step runs the loss
        assert again == 0
        assert len(traced) == 2 * once


def test_without_the_reset_of_the_optimizer_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the test above: Adam keeps the moments of the trial before."""

    def reset(compiled: Any, network: Any, learning_rate: float) -> None:
        for variable, drawn in zip(compiled.model.variables, network.variables, strict=True):
            variable.assign(drawn)

    monkeypatch.setattr(_CompiledModel, "reset", reset)
    trainer = make_trainer()
    first, *_, again = (train(trainer, seed) for seed in (1, 2, 1))
    assert first != again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "options"),
    [
        ({"optimizer": "adagrad", "learning_rate": 1e-2}, {}),  # begins with sums of 0.1
        ({"optimizer": "nadam"}, {}),  # begins with a product of 1
        ({"optimizer": "ftrl"}, {}),
        ({"dtype": "mixed_bfloat16"}, {}),
        ({"loss": "mse"}, {"objective": "val_mae"}),
        ({"activation": "shaped(gelu)"}, {"objective": "loss"}),
        ({"depth": 1}, {"batch_size": 7}),
    ],
)
def test_any_optimizer_and_loss_gives_the_numbers_of_a_new_model(
    space: dict[str, Any], options: dict[str, Any]
) -> None:
    compare([TRIALS[0], TRIALS[1], TRIALS[3]], space, **options)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[keras.Model]:
    """Replaces training by a score of 0.5; gets the model of each trial."""
    models: list[keras.Model] = []

    def fit(space: Any, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        models.append(model)
        return types.SimpleNamespace(history={"val_loss": [0.5]})

    monkeypatch.setattr(tuning.DeepMLPHyperModel, "fit", fit)
    return models


class OwnBuild(tuning.DeepMLPHyperModel):
    def build(self, hp: Any, seed: int | None = None) -> keras.Model:
        return super().build(hp, seed)


class OwnFit(tuning.DeepMLPHyperModel):
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        return super().fit(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tuning.DeepMLPHyperModel, OwnBuild, OwnFit])
def test_a_space_of_a_users_own_builds_every_network(
    kind: type[tuning.DeepMLPHyperModel], untrained: list[keras.Model]
) -> None:
    trainer = make_trainer(kind((64,), depth=3, width=(8, 16)), epochs=1)
    for seed in range(3):
        train(trainer, seed)
    shared = kind is tuning.DeepMLPHyperModel
    assert len({id(model) for model in untrained}) == (1 if shared else 3)
    assert len(trainer.models.kept) == (1 if shared else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["build", "fit"])
def test_a_space_with_a_method_of_its_own_builds_every_network(
    name: str, untrained: list[keras.Model]
) -> None:
    space = small_space()
    own = getattr(space, name)
    setattr(space, name, lambda *args, **kwargs: own(*args, **kwargs))
    trainer = make_trainer(space, epochs=1)
    for seed in range(2):
        train(trainer, seed)
    assert untrained[0] is not untrained[1]


def test_what_decides_what_is_compiled(untrained: list[keras.Model]) -> None:
    trainer = make_trainer(small_space(), epochs=1)
    for values in (
        {"width": 8},
        {"width": 8, "gain_ratio": 1.2, "learning_rate": 0.1, "distribution": "uniform"},
        {"width": 9},
        {"depth": 2, "width": 8},
        {"width": 8, "activation": "leaky_relu"},
        {"width": 8, "optimizer": "sgd"},
    ):
        train(trainer, **values)
    assert untrained[0] is untrained[1]
    assert len({id(model) for model in untrained}) == 5


@pytest.mark.slow
def test_the_models_used_longest_ago_are_dropped(
    untrained: list[keras.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(small_space(), epochs=1)

    def kept_widths() -> list[int]:
        return [shapes.width for shapes in trainer.models.kept]

    monkeypatch.setattr(compiled_models, "_MOST_MODELS", 2)
    for width in (8, 9, 8, 10):
        train(trainer, width=width)
    assert kept_widths() == [8, 10]
    # Room for the next one and one other.
    count = tuning.DeepMLPHyperModel.parameters
    largest = count(trainer.hypermodel, list(trainer.models.kept)[-1])
    monkeypatch.setattr(compiled_models, "_MOST_MODELS", 9)
    monkeypatch.setattr(compiled_models, "_MOST_PARAMETERS", 2 * largest)
    for width in (9, 8):
        train(trainer, width=width)
    assert kept_widths() == [9, 8]
    monkeypatch.setattr(compiled_models, "_MOST_PARAMETERS", 1)  # a model that is too large stays alone
    for width in (10, 10):
        train(trainer, width=width)
    assert kept_widths() == [10]


def test_a_model_whose_training_was_cut_off_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(epochs=1)

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "fit", lambda *args, **kwargs: stop())
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(trainer)
        assert trainer.models.kept == {}


def test_a_trial_that_cannot_train_leaves_the_kept_model(untrained: list[keras.Model]) -> None:
    trainer = make_trainer(small_space(depth=200, width=16, gain_ratio=(0.1, 2.0)), epochs=1)
    train(trainer)
    with pytest.raises(tuning.UntrainableTrialError):
        train(trainer, gain_ratio=0.5)
    train(trainer, seed=1)
    assert untrained[0] is untrained[1]


def test_only_optimizers_whose_state_is_in_their_variables_are_reset() -> None:
    class Own(keras.optimizers.SGD):
        pass

    def compiled(optimizer: keras.optimizers.Optimizer) -> _CompiledModel:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse")
        return _CompiledModel(model)

    assert compiled(keras.optimizers.Adam()).is_resettable
    scaled = compiled(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()))
    assert scaled.is_resettable
    assert len(scaled.initial) == len(scaled.model.optimizer.variables) > 2
    assert not compiled(Own()).is_resettable
    assert not compiled(keras.optimizers.LossScaleOptimizer(Own())).is_resettable


@pytest.mark.slow
def test_a_search_has_the_table_of_one_that_builds_every_network(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"depth": 3, "width": [8, 12], "gain_ratio": [1.0, 0.9, 1.1, 1e30]}
    options = {**SHORT, "trials": 8, "executions_per_trial": 2, "seeds": 2}
    for name, kind in (("kept", tuning.DeepMLPHyperModel), ("new", OwnBuild)):
        result = tuning.search(few_digits(), kind((64,), **arguments), directory=tmp_path / name, **options)
        assert {row.status for row in result} == {"COMPLETED", "FAILED"}
    assert table_of(tmp_path / "kept") == table_of(tmp_path / "new")
    kept, new = ((tmp_path / name / "seeds.json").read_text() for name in ("kept", "new"))
    assert kept == new
