"""A contrastive critic: two encoders, trained on pairs of states, and the greedy policy that they give."""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import numpy as np
from _maze import ACTIONS, STEP, Array, Integers, Maze, Pairs
from numpy.typing import NDArray

__all__ = ["Critic", "Floats", "encoder_inputs", "far_pairs", "follow", "score_lattice", "success"]

Floats: TypeAlias = NDArray[np.float32]

PENALTY = 0.1  # of the squared log-sums; the value of the code of arXiv:2503.14858
SLACK = 2  # steps that the policy may make, as a multiple of those of the shortest way


class Critic(keras.Model):
    """Scores a state and action with a goal by the negative distance of their embeddings.

    Args:
        phi: Encoder of states and actions.
        psi: Encoder of goals.
    """

    def __init__(self, phi: keras.Model, psi: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.phi, self.psi = phi, psi

    def call(self, inputs: dict[str, Any]) -> Any:
        """Returns the score of every row of `inputs["state_action"]` with every row of `inputs["goal"]`."""
        return _scores(keras.ops, self.phi(inputs["state_action"]), self.psi(inputs["goal"]))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the symmetric InfoNCE loss, in nats, plus the penalty of the scores' log-sums.

        Row i and column i of the scores are of the same walk; all others are the negatives.
        """
        same = keras.ops.diagonal(y_pred)
        by_row, by_column = keras.ops.logsumexp(y_pred, axis=1), keras.ops.logsumexp(y_pred, axis=0)
        contrast = keras.ops.mean(0.5 * (by_row + by_column) - same)
        return contrast + PENALTY * keras.ops.mean(by_row**2)


def _scores(ops: Any, phi: Any, psi: Any) -> Any:
    """Returns the negative distances of all rows of `phi` to all rows of `psi`; `ops` is Keras's or NumPy."""
    products = ops.matmul(phi, ops.transpose(psi))
    squares = ops.sum(phi**2, axis=1)[:, None] + ops.sum(psi**2, axis=1) - 2.0 * products
    return -ops.sqrt(ops.maximum(squares, 0.0) + 1e-6)


def encoder_inputs(maze: Maze, pairs: Pairs) -> dict[str, Floats]:
    """Returns the inputs of a `Critic`, with positions and actions of variance about one."""
    return {
        "state_action": _join(maze, pairs.states, pairs.actions),
        "goal": maze.standardize(pairs.futures),
    }


def _join(maze: Maze, states: Array, actions: Integers) -> Floats:
    return np.concatenate([maze.standardize(states), ACTIONS[actions].astype(np.float32)], axis=1)


def score_lattice(critic: Critic, maze: Maze) -> Floats:
    """Returns the scores at all points of the lattice, shape (points, actions, points)."""
    points, actions = len(maze.lattice), len(ACTIONS)
    states = np.repeat(maze.lattice, actions, axis=0)
    inputs = _join(maze, states, np.tile(np.arange(actions), points))
    phi = critic.phi.predict(inputs, batch_size=len(inputs), verbose=0)
    psi = critic.psi.predict(maze.standardize(maze.lattice), batch_size=points, verbose=0)
    return np.asarray(_scores(np, phi, psi)).reshape(points, actions, points)


def far_pairs(maze: Maze, farther: int, count: int) -> tuple[Integers, Integers]:
    """Returns starts and goals, points of the lattice at least `farther` steps apart.

    Args:
        maze: The maze.
        farther: Least steps of the shortest way between start and goal.
        count: Number of pairs, drawn from all that there are.
    """
    starts, goals = np.nonzero(maze.distances >= farther)
    chosen = np.random.default_rng(0).permutation(len(starts))[:count]
    return starts[chosen], goals[chosen]


def follow(maze: Maze, scores: Floats | Array, starts: Integers, goals: Integers) -> Integers:
    """Returns the points that the greedy policy visits, shape (pairs, steps + 1).

    A walk rests where it has reached its goal or made `SLACK` times the steps of the shortest way.

    Args:
        maze: The maze.
        scores: Scores as of `score_lattice`.
        starts: Points of the lattice.
        goals: Points of the lattice.
    """
    best = np.argmax(scores, axis=1)
    limits = SLACK * maze.distances[starts, goals]
    at, visited = starts, [starts]
    for step in range(int(limits.max())):
        rests = _is_reached(maze, at, goals) | (step >= limits)
        at = np.where(rests, at, maze.next_points[at, best[at, goals]])
        visited.append(at)
    return np.stack(visited, axis=1)


def _is_reached(maze: Maze, at: Integers, goals: Integers) -> NDArray[np.bool_]:
    """Returns whether points are at most a step from their goals along both axes."""
    return np.asarray(np.abs(maze.lattice[at] - maze.lattice[goals]).max(axis=1) <= STEP)


def success(maze: Maze, scores: Floats | Array, starts: Integers, goals: Integers) -> float:
    """Returns the share of pairs between which the greedy policy finds its way within the limit."""
    ends = follow(maze, scores, starts, goals)[:, -1]
    return float(np.mean(_is_reached(maze, ends, goals)))
