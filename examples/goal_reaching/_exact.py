"""The critic that contrastive learning aims at, from the transition probabilities of the recorded walks."""

from __future__ import annotations

import numpy as np
from _maze import ACTIONS, KEEP, Array, Maze
from scipy import sparse
from scipy.sparse import linalg

__all__ = ["exact_scores"]


def exact_scores(maze: Maze, discount: float) -> Array:
    """Returns the logarithm of the discounted probability of each future point, up to a constant.

    With P the transitions between pairs of a point and an action, and E their next points, the sum of
    `discount^k` times the probability of a goal after k steps is `(1 - discount P)^-1 discount E`. The score
    of the lowest contrastive loss is the logarithm of this, less that of the goal's own probability, which
    does not depend on the action.

    Args:
        maze: The maze.
        discount: Discount of a step.

    Returns:
        Shape (points, actions, points), as of `score_lattice`.
    """
    points, actions = maze.next_points.shape
    after = maze.next_points.ravel()
    size = points * actions
    rows = np.repeat(np.arange(size), 1 + actions)
    kept = after * actions + np.tile(np.arange(actions), points)
    drawn = after[:, None] * actions + np.arange(actions)
    columns = np.concatenate([kept[:, None], drawn], axis=1).ravel()
    chances = np.tile([KEEP, *[(1.0 - KEEP) / actions] * actions], size)
    transitions = sparse.csc_matrix((chances, (rows, columns)), (size, size))
    arrivals = np.zeros((size, points))
    arrivals[np.arange(size), after] = discount
    solved = linalg.splu(sparse.eye(size, format="csc") - discount * transitions).solve(arrivals)
    return np.asarray(np.log(solved).reshape(points, len(ACTIONS), points))
