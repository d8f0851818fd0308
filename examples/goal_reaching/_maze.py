"""A maze of square blocks, random walks in it, and the pairs of states that a critic learns from."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIONS", "STEP", "Array", "Integers", "Maze", "Pairs", "Walks", "sample_pairs", "walk_at_random"]

Array: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

# Two steps cross a block, so that no step jumps over a wall.
STEP = 0.5
# The eight directions; a diagonal step moves by `STEP` along both axes.
ACTIONS = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)], float)
KEEP = 0.75  # probability that a random walk keeps its direction for another step


@dataclass(frozen=True)
class Maze:
    """A maze without loops, drawn by a depth-first search through square rooms.

    A room, and the opening between two rooms, is a block of side one. All other blocks are walls.

    Args:
        rooms: Rooms along each side.
        seed: Random seed of the search.
    """

    rooms: int
    seed: int
    walls: NDArray[np.bool_] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "walls", _draw_walls(self.rooms, self.seed))

    def move(self, positions: Array, actions: Integers) -> Array:
        """Returns the positions after one step; the part of a step that would end in a wall is left out.

        Args:
            positions: Positions in blocks, shape (walkers, 2).
            actions: Rows of `ACTIONS`, shape (walkers,).
        """
        moved = positions.copy()
        for axis in (0, 1):
            tried = moved.copy()
            tried[:, axis] += STEP * ACTIONS[actions, axis]
            free = ~self.walls[tuple(np.floor(tried).astype(int).T)]
            moved[free] = tried[free]
        return moved

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Returns positions that are uniform over the free blocks, shape (count, 2)."""
        free = np.argwhere(~self.walls)
        return free[rng.integers(len(free), size=count)] + rng.random((count, 2))

    def standardize(self, positions: Array) -> NDArray[np.float32]:
        """Returns positions with mean 0 and variance 1 along each axis, over the whole square."""
        side = len(self.walls)
        return ((positions - side / 2.0) / (side / 12.0**0.5)).astype(np.float32)

    @cached_property
    def lattice(self) -> Array:
        """Positions at a quarter and three quarters of each free block along both axes."""
        quarters = np.array([(i, j) for i in (0.25, 0.75) for j in (0.25, 0.75)])
        return (np.argwhere(~self.walls)[:, None] + quarters).reshape(-1, 2)

    @cached_property
    def next_points(self) -> Integers:
        """Point of the lattice after each action at each point, shape (points, actions)."""
        number = {tuple(point): index for index, point in enumerate(self.lattice)}
        columns = []
        for action in range(len(ACTIONS)):
            moved = self.move(self.lattice, np.full(len(self.lattice), action))
            columns.append([number[tuple(point)] for point in moved])
        return np.array(columns).T

    @cached_property
    def distances(self) -> Integers:
        """Steps of the shortest way from each point of the lattice to each other one."""
        return np.array([self._distances_from(start) for start in range(len(self.lattice))])

    def _distances_from(self, start: int) -> list[int]:
        found, queue = {start: 0}, deque([start])
        while queue:
            point = queue.popleft()
            for after in self.next_points[point]:
                if after not in found:
                    found[int(after)] = found[point] + 1
                    queue.append(int(after))
        return [found[point] for point in range(len(self.lattice))]


def _draw_walls(rooms: int, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    walls = np.ones((2 * rooms + 1, 2 * rooms + 1), bool)
    walls[1, 1] = False
    path = [(0, 0)]
    while path:
        i, j = path[-1]
        beside = [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
        new = [(k, m) for k, m in beside if 0 <= k < rooms and 0 <= m < rooms and walls[2 * k + 1, 2 * m + 1]]
        if not new:
            path.pop()
            continue
        k, m = new[rng.integers(len(new))]
        walls[2 * k + 1, 2 * m + 1] = walls[i + k + 1, j + m + 1] = False
        path.append((k, m))
    return walls


@dataclass(frozen=True)
class Walks:
    """Random walks that were recorded before any training.

    Args:
        states: Positions, shape (walks, steps + 1, 2).
        actions: Rows of `ACTIONS`, shape (walks, steps).
    """

    states: Array
    actions: Integers


@dataclass(frozen=True)
class Pairs:
    """States with an action, and states that the walk visited later.

    Args:
        states: Positions, shape (pairs, 2).
        actions: Rows of `ACTIONS`, shape (pairs,).
        futures: Positions, shape (pairs, 2).
    """

    states: Array
    actions: Integers
    futures: Array


def walk_at_random(maze: Maze, walks: int, steps: int, seed: int) -> Walks:
    """Records walks that keep their direction with probability `KEEP`, and else draw one of the eight."""
    rng = np.random.default_rng(seed)
    states = np.empty((walks, steps + 1, 2))
    actions = np.empty((walks, steps), np.int64)
    states[:, 0] = maze.sample(walks, rng)
    action = rng.integers(len(ACTIONS), size=walks)
    for step in range(steps):
        drawn = rng.integers(len(ACTIONS), size=walks)
        action = np.where(rng.random(walks) < KEEP, action, drawn)
        actions[:, step] = action
        states[:, step + 1] = maze.move(states[:, step], action)
    return Walks(states, actions)


def sample_pairs(walks: Walks, count: int, discount: float, seed: int) -> Pairs:
    """Returns pairs of states that lie `k` steps apart, with probability proportional to `discount ** k`.

    Args:
        walks: The recorded walks.
        count: Number of pairs.
        discount: Discount of a step, between 0 and 1; `k` begins at 1.
        seed: The seed.
    """
    rng = np.random.default_rng(seed)
    steps = walks.actions.shape[1]
    walk, time = rng.integers(len(walks.actions), size=count), rng.integers(steps, size=count)
    # The inverse of the distribution function, cut off at the end of the walk
    reached = 1.0 - discount ** (steps - time)
    ahead = np.ceil(np.log1p(-rng.random(count) * reached) / np.log(discount)).astype(int)
    ahead = np.clip(ahead, 1, steps - time)
    return Pairs(walks.states[walk, time], walks.actions[walk, time], walks.states[walk, time + ahead])
