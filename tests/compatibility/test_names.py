"""Every public name of the recorded version is still there, but for the renames listed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compatibility.make_names import NAMES, list_names

pytest.importorskip("keras_tuner")

ROOT = Path(__file__).resolve().parents[2]

RENAMED = {
    "callbacks.GradientWalkCallback(directory)": "callbacks.GradientWalkCallback(log_dir)",
    "callbacks.GradientWalkCallback(every)": "callbacks.GradientWalkCallback(update_freq)",
    "callbacks.GradientWalkCallback(unit)": "callbacks.GradientWalkCallback(update_freq)",
    "data.load(standardise)": "data.load(standardize)",
    "data.load_timit(standardise)": "data.load_timit(standardize)",
    "data.standardise": "data.standardize",
    "keras_rwinit.distribution": "keras_rwinit.sharding",
    "tuning.DeepMLPHyperModel(.prognosis)": "tuning.DeepMLPHyperModel(.forecast)",
    "tuning.HopelessTrialError": "tuning.UntrainableTrialError",
    "tuning.OutwardOracle": "tuning.LocalSearchOracle",
    "tuning.search(console)": "tuning.search(verbose)",
    "tuning.search(folder)": "tuning.search(directory)",
}
REMOVED = {"data.Dataset(.to_tf)"}
ADDED = {
    "keras_rwinit.show_versions",
    "tuning.SearchResult(.to_frame)",
    "callbacks.GradientWalkCallback(.verdict)",
    "callbacks.GradientWalkCallback(overwrite)",
    "callbacks.GradientWalkCallback(training)",
    "callbacks.GradientWalkCallback(trackers)",
    "diagnostics.GradientWalk(.initial_statistics)",
    "diagnostics.GradientWalk(.unpredicted)",
    "diagnostics.GradientWalk(initial_statistics)",
    "diagnostics.GradientWalk(unpredicted)",
    "diagnostics.GradientWalk(.example_spread)",
    "diagnostics.GradientWalk(.first_backward)",
    "diagnostics.GradientWalk(.waits)",
    "diagnostics.GradientWalk(first_backward)",
    "diagnostics.GradientWalk(waits)",
    "callbacks.WalkRecord(.advice)",
    "callbacks.WalkRecord(advice)",
    "diagnostics.GradientWalk(.trained)",
    "diagnostics.GradientWalk(trained)",
    "diagnostics.gradient_walk(trained)",
    "diagnostics.GradientWalk(.advice)",
    "diagnostics.GradientWalk(.assert_healthy)",
    "diagnostics.GradientWalk(.correlation)",
    "diagnostics.GradientWalk(.repeats)",
    "diagnostics.GradientWalk(correlation)",
    "diagnostics.GradientWalk(repeats)",
    "diagnostics.WalkCorrelation",
    "diagnostics.WalkCorrelation(.prediction)",
    "diagnostics.WalkCorrelation(backward)",
    "diagnostics.WalkCorrelation(effective_rank)",
    "diagnostics.WalkCorrelation(forward)",
    "diagnostics.WalkCorrelation(inputs)",
    "diagnostics.WalkCorrelation(inputs_rank)",
    "diagnostics.WalkCorrelation(prediction)",
    "plots.plot_correlation",
    "plots.plot_correlation(ax)",
    "plots.plot_correlation(correlation)",
    "plots.plot_correlation(prediction)",
    "diagnostics.gradient_walk(sample_weight)",
    "initialization.InitializationReport(.summary)",
    "initialization.InitializationReport(biases)",
    "initialization.InitializedKernel(.count)",
    "initialization.InitializedKernel(count)",
    "initialization.InitializedKernel(.distribution)",
    "initialization.InitializedKernel(distribution)",
    "initialization.initialize(layers)",
    "initializers.RandomWalk(mirrored)",
    "initializers.RandomWalkLinear(mirrored)",
    "initializers.RandomWalkReLU(mirrored)",
    "initializers.RandomWalkTanh(mirrored)",
    "keras_rwinit.CorrelationPrediction",
    "keras_rwinit.effective_rank",
    "keras_rwinit.predict_correlation",
    "keras_rwinit.shape_activation",
    "keras_rwinit.simulate_correlation",
    "keras_rwinit.theory",
    "layers.DenseStack(.enable_lora)",
    "layers.DenseStack(.from_config)",
    "layers.DenseStack(.kernel)",
    "layers.DenseStack(.quantize)",
    "layers.DenseStack(.quantized_call)",
    "layers.DenseStack(.units)",
    "layers.DenseStack(lora_alpha)",
    "layers.DenseStack(lora_rank)",
    "layers.DenseStack(quantization_config)",
    "layers.get_activation",
    "layers.get_activation(activation)",
    "layers.get_activation(depth)",
    "model_zoo.TrainingRecipe",
    "model_zoo.TrainingRecipe(.cosine_decay)",
    "model_zoo.TrainingRecipe(batch_size)",
    "model_zoo.TrainingRecipe(cosine_decay)",
    "model_zoo.TrainingRecipe(dataset)",
    "model_zoo.TrainingRecipe(epochs)",
    "model_zoo.TrainingRecipe(learning_rate)",
    "model_zoo.TrainingRecipe(optimizer)",
    "model_zoo.learning_rate",
    "model_zoo.learning_rate(decays)",
    "model_zoo.learning_rate(depth)",
    "model_zoo.learning_rate(width)",
    "model_zoo.recipe",
    "model_zoo.recipe(loss)",
    "model_zoo.recipe(model)",
    "optimizers.Layerwise",
    "optimizers.Layerwise(.build)",
    "optimizers.Layerwise(.from_config)",
    "optimizers.Layerwise(.get_config)",
    "optimizers.Layerwise(.update_step)",
    "optimizers.Layerwise(inner_optimizer)",
    "optimizers.Layerwise(name)",
    "theory.Activation(.constant)",
    "theory.Activation(.gate)",
    "theory.Activation(.gradient_from_output)",
    "theory.Activation(.keras)",
    "theory.Activation(.keras_layer)",
    "theory.Activation(.key)",
    "theory.Activation(.units)",
    "theory.Activation(constant)",
    "theory.Activation(gate)",
    "theory.Activation(gradient_from_output)",
    "theory.Activation(keras)",
    "theory.Activation(keras_layer)",
    "theory.Activation(units)",
    "theory.CorrelationPrediction",
    "theory.CorrelationPrediction(correlation)",
    "theory.CorrelationPrediction(gain)",
    "theory.CorrelationPrediction(mean)",
    "theory.CorrelationPrediction(simulated)",
    "theory.CorrelationPrediction(std)",
    "theory.DerivativePrediction",
    "theory.DerivativePrediction(.first)",
    "theory.DerivativePrediction(.frequency)",
    "theory.DerivativePrediction(.second)",
    "theory.DerivativePrediction(.value)",
    "theory.DerivativePrediction(covariance)",
    "theory.DerivativePrediction(gain)",
    "theory.DerivativePrediction(input_gain)",
    "theory.input_gain",
    "theory.input_gain(activation)",
    "theory.input_gain(depth)",
    "theory.input_gain(frequency)",
    "theory.input_gain(gain)",
    "theory.input_gain(inputs)",
    "theory.predict_derivatives",
    "theory.predict_derivatives(activation)",
    "theory.predict_derivatives(axis)",
    "theory.predict_derivatives(depth)",
    "theory.predict_derivatives(gain)",
    "theory.predict_derivatives(input_activation)",
    "theory.predict_derivatives(input_bias_stddev)",
    "theory.predict_derivatives(input_gain)",
    "theory.predict_derivatives(output_gain)",
    "theory.predict_derivatives(point)",
    "theory.WalkPrediction(.spread)",
    "theory.effective_rank",
    "theory.effective_rank(batch)",
    "theory.predict_correlation",
    "theory.predict_correlation(activation)",
    "theory.predict_correlation(correlation)",
    "theory.predict_correlation(depth)",
    "theory.predict_correlation(distribution)",
    "theory.predict_correlation(gain)",
    "theory.predict_correlation(width)",
    "theory.resolve_activation(depth)",
    "theory.shape_activation",
    "theory.shape_activation(correlation)",
    "theory.shape_activation(depth)",
    "theory.shape_activation(name)",
    "theory.simulate_correlation",
    "theory.simulate_correlation(activation)",
    "theory.simulate_correlation(correlation)",
    "theory.simulate_correlation(depth)",
    "theory.simulate_correlation(distribution)",
    "theory.simulate_correlation(gain)",
    "theory.simulate_correlation(samples)",
    "theory.simulate_correlation(seed)",
    "theory.simulate_correlation(width)",
    "tuning.DeepMLPHyperModel(loss)",
}


def flatten(names: dict[str, list[str]]) -> set[str]:
    """Returns `module.name` and `module.name(argument)` for each; a class that stands twice, once."""
    flat = set(names) | {f"{name}({part})" for name, parts in names.items() for part in parts}
    return {name for name in flat if not (name.startswith("keras_rwinit.") and "(" in name)}


RECORDED = flatten(json.loads(NAMES.read_text(encoding="utf-8"))["names"])
PRESENT = flatten(list_names())


def rename(name: str) -> str:
    """Returns the present name of a recorded one; the arguments and attributes of a class move with it."""
    if name in RENAMED:
        return RENAMED[name]
    owner, bracket, part = name.partition("(")
    return RENAMED.get(owner, owner) + bracket + part


def test_every_recorded_name_is_there_or_was_renamed() -> None:
    assert {rename(name) for name in RECORDED - REMOVED} - PRESENT == set()


def test_every_new_name_is_listed() -> None:
    assert PRESENT - {rename(name) for name in RECORDED} == ADDED


def test_nothing_is_listed_that_did_not_change() -> None:
    assert RENAMED.keys() | REMOVED <= RECORDED
    assert not (RENAMED.keys() | REMOVED) & PRESENT


@pytest.mark.parametrize("name", sorted({*RENAMED, *RENAMED.values(), *REMOVED}))
def test_the_changelog_names_it(name: str) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert name.rstrip(")").replace("(", ".").split(".")[-1] in changelog
