"""Trains every network on a problem: a search for the rate and the input's gain, then several seeds."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _descent import Array, Evaluate, adam, compile_forward, compile_loss, l_bfgs, pack
from _forms import FORMS, LABELS, WIDTH, Weights
from _jets import from_inputs
from _problems import PROBLEMS, Problem
from keras import ops

from keras_rwinit import theory
from keras_rwinit.plots import new_figure

# The table of results, the options and the search are those of the paper's experiments.
sys.path.append(str(Path(__file__).parents[1] / "paper"))
from _experiment import Experiment, Row, distinct, fill_marks, markdown_table, parse_options, read, select
from _ladders import RATES, SCALES, climb

__all__ = [
    "RATES",
    "SCALES",
    "WIDTH",
    "Plan",
    "Row",
    "compare",
    "distinct",
    "fill_marks",
    "markdown_table",
    "read",
    "select",
]

MARKERS = "osD^v<>PX*dhp8"
TEST_FACTOR = 4  # points of the test loss per point of training


@dataclass(frozen=True)
class Plan:
    """What is run of one problem at one depth.

    Args:
        depth: Number of hidden layers.
        networks: Names of networks in `FORMS`.
        points: Number of points at which the residual is taken.
        steps: Steps of Adam.
        iterations: Iterations of L-BFGS after them.
        seeds: Number of seeds behind a result; the search has another one.
        search_iterations: Iterations of L-BFGS in the search. `None`: as many as for the results.
    """

    depth: int
    networks: Sequence[str]
    points: int
    steps: int
    iterations: int
    seeds: int
    search_iterations: int | None = None


QUICK = Plan(3, ("glorot", "walk, sines"), points=32, steps=150, iterations=30, seeds=1)


class Network:
    """A network of one form on one problem, compiled once for all its weights.

    Args:
        problem: The problem.
        form: Name in `FORMS`.
        depth: Number of hidden layers.
        points: Number of points at which the residual is taken.
    """

    def __init__(self, problem: Problem, form: str, depth: int, points: int) -> None:
        self.problem, self.form, self.depth = problem, FORMS[form], depth
        self.points = problem.sample(points)
        reference_points, self.reference = _reference(problem.name)
        self.shapes = [weight.shape for weight in self.draw(1.0, 0)]
        self.evaluate: Evaluate = compile_loss(self._loss, self.shapes)
        self._values = compile_forward(lambda weights: self._solve(reference_points, weights)[0])
        more = problem.sample(TEST_FACTOR * points)
        self._residual = compile_forward(lambda w: problem.residual(more, self._solve(more, w)))

    def draw(self, input_scale: float, seed: int) -> Weights:
        """Returns random weights.

        Args:
            input_scale: Gain of the first kernel as a multiple of the computed one, or of its own.
            seed: The seed.
        """
        inputs = self.points.shape[1]
        return self.form.draw(inputs, self.depth, input_scale * self._input_gain(), seed)

    def error(self, vector: Array) -> float:
        """Returns the relative error of the solution, in the Euclidean norm over the reference's points."""
        wrong = self._values(self._unpack(vector)) - self.reference
        return float(np.linalg.norm(wrong) / np.linalg.norm(self.reference))

    def test_loss(self, vector: Array) -> float:
        """Returns the mean square of the residual at four times as many points as in training."""
        return float(np.mean(self._residual(self._unpack(vector)) ** 2))

    def _input_gain(self) -> float:
        if not self.form.sines:
            return 1.0
        activation, inputs = self.form.activation, self.points.shape[1]
        gain = theory.gain(activation, WIDTH, self.depth, distribution="orthogonal")
        return theory.input_gain(activation, self.depth, gain, self.problem.frequency, inputs=inputs)

    def _loss(self, weights: list[Any]) -> Any:
        residual = self.problem.residual(self.points, self._solve(self.points, weights))
        return ops.sum(residual * residual) / len(self.points)

    def _solve(self, points: Array, weights: list[Any]) -> Any:
        jet = self.form.apply(weights, from_inputs(ops.convert_to_tensor(points)))
        return self.problem.solution(points, jet)

    def _unpack(self, vector: Array) -> list[Array]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        return [part.reshape(shape) for part, shape in zip(np.split(vector, ends), self.shapes, strict=True)]


@functools.lru_cache(maxsize=1)
def _reference(problem: str) -> tuple[Array, Array]:
    return PROBLEMS[problem].reference()


@functools.lru_cache(maxsize=1)
def _network(problem: str, form: str, depth: int, points: int) -> Network:
    return Network(PROBLEMS[problem], form, depth, points)


def train(run: Row) -> dict[str, float]:
    """Trains one network; returns its loss and error after Adam and after L-BFGS."""
    network = _network(run["problem"], run["network"], run["depth"], run["points"])
    vector = adam(
        network.evaluate, pack(network.draw(run["input_scale"], run["seed"])), run["rate"], run["steps"]
    )
    found = {"adam_loss": network.evaluate(vector)[0], "adam_error": network.error(vector)}
    vector = l_bfgs(network.evaluate, vector, run["iterations"])
    found["loss"] = network.evaluate(vector)[0]
    return found | {"test_loss": network.test_loss(vector), "error": network.error(vector)}


def search(experiment: Experiment, base: Row) -> Row:
    """Returns rate and scale with the smallest test loss of seed 0, compared with all four neighbors."""

    def loss(rate: float, scale: float) -> float:
        (row,) = experiment.run([{**base, "rate": rate, "input_scale": scale, "seed": 0}], train)
        return float(row["test_loss"])

    rate, scale = climb(loss)
    return {"rate": rate, "input_scale": scale}


def compare(
    problem: str, plans: Sequence[Plan], description: str | None, arguments: Sequence[str] | None
) -> list[Row]:
    """Completes the table of a problem, draws it, and returns the rows of the seeds behind the results."""
    experiment = parse_options(problem, description, arguments)
    plans = [QUICK] if experiment.quick else plans
    rows = [
        row for plan in plans for name in plan.networks for row in repeat(experiment, problem, plan, name)
    ]
    draw(experiment, rows)
    return rows


def repeat(experiment: Experiment, problem: str, plan: Plan, name: str) -> list[Row]:
    """Returns the results of one network with the plan's seeds at its best settings."""
    base = {
        "problem": problem,
        "network": name,
        "depth": plan.depth,
        "width": WIDTH,
        "points": plan.points,
        "steps": plan.steps,
        "iterations": plan.iterations,
    }
    chosen: Row = {"rate": 3e-3, "input_scale": 1.0}
    if not experiment.quick:
        chosen = search(experiment, {**base, "iterations": plan.search_iterations or plan.iterations})
    seeds = range(1, plan.seeds + 1)
    return experiment.run([{**base, **chosen, "seed": seed} for seed in seeds], train)


def draw(experiment: Experiment, rows: Iterable[Row]) -> None:
    """Draws the error of every seed and their median, by depth."""
    rows = list(rows)
    figure, ax = new_figure(width=7.0, height=4.0)
    depths = sorted(distinct(rows, "depth"))
    names = distinct(rows, "network")
    for number, name in enumerate(names):
        places, medians = [], []
        for place, depth in enumerate(depths):
            of_depth = select(rows, depth=depth)
            errors = [row["error"] for row in select(of_depth, network=name)]
            if errors:
                present = distinct(of_depth, "network")
                shifted = place + 0.08 * (present.index(name) - (len(present) - 1) / 2.0)
                ax.plot([shifted] * len(errors), errors, ".", color=f"C{number}", markersize=3)
                places.append(shifted)
                medians.append(np.median(errors))
        ax.plot(places, medians, MARKERS[number], color=f"C{number}", label=LABELS[name])
    ax.set_yscale("log")
    ax.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    ax.set_xlabel("hidden layers")
    ax.set_ylabel("relative error, and its median")
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    experiment.save_picture(figure)
