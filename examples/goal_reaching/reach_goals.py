"""Contrastive goal-reaching in a maze: plain and residual encoders, each at its own rate.

KERAS_BACKEND=jax python examples/goal_reaching/reach_goals.py [--quick] [--output DIRECTORY]

Every network gets the same steps, batches and recorded random walks. Seed 0 chooses the learning rate on a
ladder of factors of about 3: it climbs until both neighbors reach fewer goals. Other seeds give the results.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _contrast import Critic, encoder_inputs, far_pairs, follow, score_lattice, success
from _encoders import LABELS, build_encoder
from _exact import exact_scores
from _maze import ACTIONS, Integers, Maze, Walks, sample_pairs, walk_at_random
from _pictures import draw_curves, draw_depths, draw_ways, points_of

from keras_rwinit import model_zoo

# The table of results and the options are those of the paper's experiments.
sys.path.append(str(Path(__file__).parents[1] / "paper"))
from _experiment import Experiment, Row, distinct, fill_marks, markdown_table, parse_options, read, select

__all__ = [
    "PLANS",
    "RATES",
    "Plan",
    "Row",
    "distinct",
    "fill_marks",
    "main",
    "markdown_table",
    "read",
    "select",
]

NAME = "maze"
ROOMS, MAZE_SEED, DISCOUNT = 4, 0, 0.95
WALKS, WALK_STEPS = 1000, 1000
WIDTH, BATCH = 32, 128
FAR, PAIRS = 20, 1000  # least steps between start and goal; number of starts and goals
PIECES = 20  # pieces of constant learning rate in the schedule
EVALUATIONS = 10  # of the success, in equal steps
LAST = 3  # evaluations whose mean is a run's result
RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
GUESSING = math.log(BATCH) - 0.02  # loss, in nats, of a critic that knows nothing, less its noise
SHOWN = 4  # pairs whose paths are recorded


@dataclass(frozen=True)
class Plan:
    """What is run at one depth.

    Args:
        depth: Number of hidden layers after the first.
        networks: Names of networks in `LABELS`.
        steps: Training steps.
        seeds: Number of seeds behind a result; the search has another one.
    """

    depth: int
    networks: Sequence[str]
    steps: int
    seeds: int


QUICK = Plan(4, ("mirrored relu", "residual"), steps=400, seeds=1)
COMPARED = ("mirrored relu", "residual", "shaped silu", "glorot swish")
PLANS = (
    Plan(16, COMPARED, steps=1000, seeds=5),
    Plan(4, COMPARED, steps=1000, seeds=5),
    Plan(64, COMPARED, steps=1000, seeds=5),
    Plan(256, COMPARED, steps=1000, seeds=5),
    Plan(1024, ("mirrored relu",), steps=1000, seeds=3),
)


@functools.lru_cache(maxsize=1)
def prepare() -> tuple[Maze, Walks, Integers, Integers]:
    """Returns the maze, the recorded walks, and the starts and goals of the evaluation."""
    maze = Maze(ROOMS, MAZE_SEED)
    return maze, walk_at_random(maze, WALKS, WALK_STEPS, seed=0), *far_pairs(maze, FAR, PAIRS)


def train(run: Row) -> Row:
    """Trains one critic; returns its success in the course of training, its last loss, and some paths.

    A critic that is still guessing after half of the steps is not trained further.
    """
    maze, walks, starts, goals = prepare()
    keras.utils.clear_session()
    seeds = np.random.SeedSequence(run["seed"]).generate_state(3)
    phi, psi = (
        build_encoder(run["network"], inputs, run["depth"], run["width"], int(seed))
        for inputs, seed in ((2 + ACTIONS.shape[1], seeds[0]), (2, seeds[1]))
    )
    critic = Critic(phi, psi)
    per_execution = 1 if keras.backend.backend() == "torch" else 10
    critic.compile(optimizer=keras.optimizers.Adam(run["rate"]), steps_per_execution=per_execution)
    pairs = sample_pairs(walks, run["steps"] * BATCH, DISCOUNT, int(seeds[2]))
    inputs = encoder_inputs(maze, pairs)

    found: Row = {"parameters": phi.count_params() + psi.count_params()}
    started = time.process_time()
    for piece, part in enumerate(np.array_split(np.arange(len(pairs.actions)), PIECES)):
        critic.optimizer.learning_rate = run["rate"] * scheduled(piece)
        batches = {name: values[part] for name, values in inputs.items()}
        history = critic.fit(batches, batch_size=BATCH, shuffle=False, verbose=0).history
        found["loss"] = float(history["loss"][0])
        if (piece + 1) % (PIECES // EVALUATIONS) == 0:
            scores = score_lattice(critic, maze)
            step = run["steps"] * (piece + 1) // PIECES
            found[f"success_{step}"] = round(success(maze, scores, starts, goals), 4)
        if piece + 1 == PIECES // 2 and not found["loss"] < GUESSING:
            break
    found["cpu_seconds"] = round(time.process_time() - started, 2)
    last = [value for name, value in found.items() if name.startswith("success_")][-LAST:]
    found["success"] = round(float(np.mean(last)), 4)
    return found | record_paths(maze, scores, starts[:SHOWN], goals[:SHOWN])


def scheduled(piece: int) -> float:
    """Returns the share of the rate in a piece of the schedule: a tenth first, then half a cosine."""
    return 0.1 if piece == 0 else 0.5 * (1.0 + math.cos(math.pi * (piece + 0.5) / PIECES))


def record_paths(maze: Maze, scores: Any, starts: Integers, goals: Integers) -> Row:
    """Returns the points of the lattice on the ways of the greedy policy, each way as text."""
    found: Row = {}
    for number, path in enumerate(follow(maze, scores, starts, goals), start=1):
        moved = np.flatnonzero(np.diff(path))  # the rest at the end is left out
        end = moved[-1] + 2 if len(moved) else 1
        found[f"path_{number}"] = " ".join(map(str, path[:end]))
    return found


def first_rate(run: Row) -> int:
    """Returns the place on the ladder where the search begins: near the computed rate of a plain network."""
    if run["network"] == "residual":
        return RATES.index(1e-3)
    computed = model_zoo.learning_rate(run["depth"], run["width"], decays=True)
    return int(np.argmin(np.abs(np.log(np.array(RATES) / computed))))


def search(experiment: Experiment, base: Row) -> Row:
    """Returns the settings whose rate reaches the most goals with seed 0, compared with both neighbors.

    The smaller loss decides where the success is equal, and the search ends where both are. It fails at the
    ends of the ladder.
    """
    ranks: dict[int, tuple[float, float]] = {}

    def rank(place: int) -> tuple[float, float]:
        if place not in ranks:
            if place not in range(len(RATES)):
                raise ValueError("The search came to the end of the ladder. Make `RATES` longer.")
            (row,) = experiment.run([{**base, "rate": RATES[place], "seed": 0}], train)
            ranks[place] = rank_row(row)
        return ranks[place]

    best = first_rate(base)
    while True:
        better = min([best, best - 1, best + 1], key=rank)
        if better == best:
            return {**base, "rate": RATES[best]}
        best = better


def rank_row(row: Row) -> tuple[float, float]:
    """Returns what the search makes as small as possible; losses that differ by less than 0.01 are equal.

    The few goals that a guessing network reaches are left out: they would lead the search astray.
    """
    loss = float(row["loss"])
    if not math.isfinite(loss):
        return (0.0, math.inf)
    return (-row["success"] if loss < GUESSING else 0.0, round(loss, 2))


def repeat(experiment: Experiment, plan: Plan, name: str) -> list[Row]:
    """Returns the results of one network with the plan's seeds at its best rate."""
    base = {"network": name, "depth": plan.depth, "width": WIDTH, "steps": plan.steps}
    chosen = {**base, "rate": 3e-3} if experiment.quick else search(experiment, base)
    return experiment.run([{**chosen, "seed": seed} for seed in range(1, plan.seeds + 1)], train)


def reference(_: Row) -> Row:
    """Returns the success of the exact critic of the recorded walks."""
    maze, _walks, starts, goals = prepare()
    scores = exact_scores(maze, DISCOUNT)
    found = {"points": len(maze.lattice), "longest": int(maze.distances.max()), "pairs": len(starts)}
    return (
        found
        | {"success": success(maze, scores, starts, goals)}
        | record_paths(maze, scores, starts[:SHOWN], goals[:SHOWN])
    )


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Completes the tables, draws them, and returns the rows behind the results."""
    experiment = parse_options(NAME, __doc__, arguments)
    experiment.run([{"rooms": ROOMS, "farther": FAR, "discount": DISCOUNT}], reference, table="exact.csv")
    plans = [QUICK] if experiment.quick else PLANS
    rows = [row for plan in plans for name in plan.networks for row in repeat(experiment, plan, name)]
    draw(experiment, rows)
    return rows


def draw(experiment: Experiment, rows: Sequence[Row]) -> None:
    """Draws the success over the steps and by depth, and the ways at the largest depth of most networks."""
    experiment.save_picture(draw_curves(rows), "curves.png")
    experiment.save_picture(draw_depths(rows), "depths.png")
    maze, _walks, _starts, goals = prepare()
    depths = distinct(rows, "depth")
    deepest = max(depths, key=lambda depth: (len(distinct(select(rows, depth=depth), "network")), depth))
    shown = select(rows, depth=deepest, seed=1)
    titled = {f"{LABELS[row['network']]}, {deepest} layers": row for row in shown}
    titled = {"exact critic": read(experiment.directory / "exact.csv")[0], **titled}
    ways = {
        title: [points_of(row[f"path_{number}"]) for number in range(1, SHOWN + 1)]
        for title, row in titled.items()
    }
    experiment.save_picture(draw_ways(maze, ways, goals[:SHOWN]), "ways.png")


if __name__ == "__main__":
    main()
