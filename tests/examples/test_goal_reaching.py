"""The study of goal-reaching: its maze, pairs, exact critic, encoders, search, quick run and page."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "goal_reaching"


@pytest.fixture(autouse=True)
def import_from_the_scripts_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "paper"))
    monkeypatch.syspath_prepend(str(STUDY))


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def load_page_writer() -> ModuleType:
    """Loads the file by its path: another study has a `write_page` too."""
    spec = importlib.util.spec_from_file_location("goal_reaching_write_page", STUDY / "write_page.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("seed", range(3))
def test_a_maze_is_connected_and_has_no_loops(seed: int) -> None:
    maze = module("_maze").Maze(5, seed)
    free = ~maze.walls
    assert not free[[0, -1]].any()
    assert not free[:, [0, -1]].any()
    assert np.count_nonzero(free) == 25 + 24  # rooms, and the openings of a tree of rooms
    assert len(maze.distances) == 4 * 49
    # Bellman's equation of the shortest way: one step, then the shortest way from the best next point.
    best = 1 + maze.distances[maze.next_points].min(axis=1)
    np.fill_diagonal(best, 0)
    assert np.array_equal(maze.distances, best)
    assert not np.array_equal(maze.walls, module("_maze").Maze(5, seed + 1).walls)


def test_no_walk_enters_a_wall_and_every_step_is_an_action() -> None:
    mazes = module("_maze")
    maze = mazes.Maze(4, 0)
    walks = mazes.walk_at_random(maze, 50, 200, 0)
    blocks = np.floor(walks.states).astype(int)
    assert not maze.walls[blocks[..., 0], blocks[..., 1]].any()
    moved = np.diff(walks.states, axis=1)
    wished = mazes.STEP * mazes.ACTIONS[walks.actions]
    # Along each axis a walk makes its step or none.
    made = np.isclose(moved, wished)
    assert np.all(made | np.isclose(moved, 0.0))
    whole = made.all(axis=2)
    assert whole.any()
    assert not whole.all()


def test_the_later_state_of_a_pair_comes_with_geometric_probability() -> None:
    """The mean number of steps is that of the law within four standard errors, for no other discount."""
    mazes = module("_maze")
    steps, count, discount = 300, 20_000, 0.9
    states = np.stack([np.arange(steps + 1.0), np.zeros(steps + 1)], axis=1)[None]
    walks = mazes.Walks(states, np.zeros((1, steps), np.int64))
    pairs = mazes.sample_pairs(walks, count, discount, 1)
    ahead = pairs.futures[:, 0] - pairs.states[:, 0]
    assert ahead.min() == 1.0
    error = ahead.std(ddof=1) / count**0.5
    assert abs(ahead.mean() - mean_steps(steps, discount)) < 4.0 * error
    assert abs(ahead.mean() - mean_steps(steps, 0.91)) > 4.0 * error


def mean_steps(steps: int, discount: float) -> float:
    """The mean of k over all times, with weights discount^k up to the end of the walk."""
    means = []
    for left in range(1, steps + 1):
        k = np.arange(1, left + 1)
        means.append(np.average(k, weights=discount**k))
    return float(np.mean(means))


def test_the_exact_critic_has_the_frequencies_of_walks() -> None:
    """All points are reached as often as computed, within five standard errors, for no other discount."""
    mazes, exact = module("_maze"), module("_exact")
    maze, count, discount = mazes.Maze(2, 0), 4000, 0.8
    rng = np.random.default_rng(0)
    start, first = 3, 6
    ahead, states = rng.geometric(1.0 - discount, count), np.repeat(maze.lattice[[start]], count, axis=0)
    actions = np.full(count, first)
    for step in range(ahead.max()):
        walking = step < ahead
        states[walking] = maze.move(states[walking], actions[walking])
        actions = np.where(rng.random(count) < mazes.KEEP, actions, rng.integers(8, size=count))
    found = np.array([np.mean(np.all(states == point, axis=1)) for point in maze.lattice])

    def deviations(assumed: float) -> float:
        chances = np.exp(exact.exact_scores(maze, assumed)[start, first]) * (1.0 - assumed) / assumed
        assert chances.sum() == pytest.approx(1.0)
        return float(np.max(np.abs(found - chances) / np.sqrt(chances * (1.0 - chances) / count)))

    assert deviations(discount) < 5.0
    assert deviations(0.7) > 5.0


def test_the_exact_critic_reaches_every_goal_and_its_opposite_none() -> None:
    mazes, contrast, exact = module("_maze"), module("_contrast"), module("_exact")
    maze = mazes.Maze(4, 1)
    scores = exact.exact_scores(maze, 0.95)
    starts, goals = contrast.far_pairs(maze, 20, 500)
    assert maze.distances[starts, goals].min() == 20
    assert contrast.success(maze, scores, starts, goals) == 1.0
    assert contrast.success(maze, -scores, starts, goals) == 0.0
    ways = contrast.follow(maze, scores, starts, goals)
    lengths = np.count_nonzero(np.diff(ways, axis=1), axis=1)
    # A goal is reached beside it, from where a diagonal around a corner may take two steps.
    assert np.all(lengths >= maze.distances[starts, goals] - 2)
    assert np.any(lengths < maze.distances[starts, goals])


def test_the_policy_stops_at_its_limit() -> None:
    """A policy that goes to and fro makes twice the steps of the shortest way and no more."""
    mazes, contrast = module("_maze"), module("_contrast")
    maze = mazes.Maze(2, 0)
    scores = np.random.default_rng(0).standard_normal((len(maze.lattice), 8, len(maze.lattice)))
    starts, goals = contrast.far_pairs(maze, 6, 100)
    ways = contrast.follow(maze, scores, starts, goals)
    for way, limit in zip(ways, 2 * maze.distances[starts, goals], strict=True):
        assert np.all(way[limit:] == way[limit])


@pytest.mark.backends
def test_the_loss_is_that_of_the_formula() -> None:
    contrast = module("_contrast")
    rng = np.random.default_rng(0)
    phi, psi = rng.standard_normal((2, 6, 5))
    distances = np.linalg.norm(phi[:, None] - psi[None], axis=2)
    critic = contrast.Critic(keras.layers.Identity(), keras.layers.Identity())
    inputs = {"state_action": phi.astype("float32"), "goal": psi.astype("float32")}
    scores = critic(inputs)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(scores), -distances, rtol=1e-4)
    sums = [np.log(np.exp(-distances).sum(axis=axis)) for axis in (1, 0)]
    expected = np.mean(0.5 * (sums[0] + sums[1]) + np.diag(distances)) + 0.1 * np.mean(sums[0] ** 2)
    assert float(critic.compute_loss(y_pred=scores)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.backends
def test_the_blocks_in_a_loop_are_those_of_keras_layers() -> None:
    encoders = module("_encoders")
    keras.utils.set_random_seed(0)
    blocks = encoders.ResidualBlocks(3, 7)
    x = np.random.default_rng(0).standard_normal((5, 8)).astype("float32")
    found = keras.ops.convert_to_numpy(blocks(x))
    for variable in (blocks.bias, blocks.scale, blocks.shift):
        variable.assign(np.random.default_rng(1).normal(1.0, 0.2, variable.shape))
    changed = keras.ops.convert_to_numpy(blocks(x))
    assert np.abs(found - changed).max() > 0.1
    kernel, bias, scale, shift = (
        keras.ops.convert_to_numpy(variable)
        for variable in (blocks.kernel, blocks.bias, blocks.scale, blocks.shift)
    )
    h = keras.ops.convert_to_tensor(x)
    for block in range(3):
        a = h
        for layer in range(encoders.LAYERS):
            dense, norm = keras.layers.Dense(8), keras.layers.LayerNormalization(epsilon=1e-6)
            dense.build((None, 8))
            norm.build((None, 8))
            dense.set_weights([kernel[block, layer], bias[block, layer]])
            norm.set_weights([scale[block, layer], shift[block, layer]])
            a = keras.ops.silu(norm(dense(a)))
        h = h + a
    np.testing.assert_allclose(changed, keras.ops.convert_to_numpy(h), rtol=1e-4, atol=1e-4)


def test_all_encoders_have_the_same_size_but_for_the_normalization() -> None:
    encoders = module("_encoders")
    counts = {name: encoders.build_encoder(name, 4, 8, 16, 0).count_params() for name in encoders.LABELS}
    normalization = 2 * 16 * (8 + 1)
    assert counts.pop("residual") - normalization == counts["mirrored relu"]
    assert len(set(counts.values())) == 1
    with pytest.raises(ValueError, match="must be a multiple of 4, the layers .* Received: depth=6"):
        encoders.build_encoder("residual", 4, 6, 16, 0)


def test_the_search_finds_the_best_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = module("reach_goals")

    def hill(run: dict[str, Any]) -> dict[str, float]:
        away = abs(math.log10(run["rate"] / 1e-3))
        return {"success": max(0.0, 0.5 - 0.3 * away), "loss": math.nan if run["rate"] > 0.2 else 4.0 + away}

    monkeypatch.setattr(study, "train", hill)
    experiment = module("_experiment").Experiment("some", tmp_path, False, None, "")
    base = {"network": "shaped silu", "depth": 1, "width": 64}
    assert study.RATES[study.first_rate(base)] == 1e-3
    assert study.search(experiment, base)["rate"] == 1e-3
    # No goal is reached at 0.1, and the loss leads the way from there.
    monkeypatch.setattr(study, "first_rate", lambda run: study.RATES.index(1e-1))
    assert study.search(experiment, {**base, "network": "silent"})["rate"] == 1e-3
    monkeypatch.setattr(study, "train", lambda run: {"success": 0.0, "loss": -math.log(run["rate"])})
    with pytest.raises(ValueError, match="came to the end of the ladder"):
        study.search(experiment, {**base, "network": "other"})


def test_goals_reached_by_guessing_do_not_count_in_the_search() -> None:
    rank = module("reach_goals").rank_row
    assert rank({"success": 0.03, "loss": math.log(128)}) == (0.0, 4.85)
    assert rank({"success": 0.03, "loss": 4.7}) < rank({"success": 0.02, "loss": 4.6}) < (0.0, 4.0)
    assert rank({"success": 0.03, "loss": math.nan}) == (0.0, math.inf)


def test_the_schedule_ends_near_zero_and_begins_low() -> None:
    study = module("reach_goals")
    shares = [study.scheduled(piece) for piece in range(study.PIECES)]
    assert shares[0] == 0.1
    assert max(shares) == shares[1] > 0.98
    assert shares[1:] == sorted(shares[1:], reverse=True)
    assert 0.0 < shares[-1] < 0.01


@pytest.mark.slow
@pytest.mark.backends
def test_a_quick_run_and_its_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, arguments = module("reach_goals"), ["--quick", "--output", str(tmp_path)]
    rows = study.main(arguments)
    assert [row["network"] for row in rows] == ["mirrored relu", "residual"]
    # Both know something of the maze: a critic that guesses has a loss of ln(128) = 4.85.
    assert all(row["loss"] < 4.2 for row in rows)
    directory = tmp_path / study.NAME
    pictures = {"curves.png", "depths.png", "ways.png"}
    assert {path.name for path in directory.iterdir()} == {"results.csv", "exact.csv", *pictures}
    assert all((directory / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    written = (directory / "results.csv").read_bytes()
    monkeypatch.setattr(study, "train", lambda run: pytest.fail("was done already"))
    assert len(study.main(arguments)) == len(rows)
    assert (directory / "results.csv").read_bytes() == written
    capsys.readouterr()


@pytest.mark.slow
def test_a_critic_that_guesses_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    study = module("reach_goals")
    monkeypatch.setattr(study, "GUESSING", -1.0)  # so that every critic counts as one that guesses
    run = {"network": "mirrored relu", "depth": 4, "width": 8, "steps": 40, "rate": 1e-3, "seed": 1}
    row = study.train(run)
    assert [name for name in row if name.startswith("success_")] == [f"success_{4 * n}" for n in range(1, 6)]


def test_every_result_has_the_best_rate_of_the_search() -> None:
    """No rate next to those chosen reaches more goals with the seed of the search."""
    study = module("reach_goals")
    rows = study.read(STUDY / "results" / study.NAME / "results.csv")
    keys = ("network", "depth", "rate")
    ranks = {tuple(row[key] for key in keys): study.rank_row(row) for row in rows if row["seed"] == 0}
    chosen = {tuple(row[key] for key in keys) for row in rows if row["seed"] != 0}
    assert chosen
    for network, depth, rate in chosen:
        place = study.RATES.index(rate)
        neighbors = [ranks[network, depth, study.RATES[place + step]] for step in (-1, 1)]
        assert all(not rank < ranks[network, depth, rate] for rank in neighbors)


def test_every_plan_is_in_the_table() -> None:
    study = module("reach_goals")
    rows = study.read(STUDY / "results" / study.NAME / "results.csv")
    for plan in study.PLANS:
        for name in plan.networks:
            found = study.select(rows, network=name, depth=plan.depth, steps=plan.steps)
            assert {row["seed"] for row in found} == set(range(plan.seeds + 1))


def test_the_interval_is_that_of_means_drawn_again() -> None:
    """The interval of many values is that of the normal law, to a tenth of its length."""
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    low, high = module("_pictures").bootstrap(values)
    half = 1.96 * values.std() / 20.0
    assert low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.2 * half)


def test_a_run_that_was_stopped_keeps_its_success_in_the_curve() -> None:
    """Both as a row of this process and as one that was read from the table."""
    whole = {"success_10": 0.1, "success_20": 0.2, "success_30": 0.3}
    read = {"success_10": 0.4, "success_20": 0.5, "success_30": ""}
    steps, values = module("_pictures").curves([{"success_10": 0.4, "success_20": 0.5}, whole, read])
    assert steps == [10, 20, 30]
    np.testing.assert_array_equal(values, [[0.4, 0.5, 0.5], [0.1, 0.2, 0.3], [0.4, 0.5, 0.5]])


def test_the_page_agrees_with_the_tables() -> None:
    writer = load_page_writer()
    page = writer.PAGE.read_text(encoding="utf-8")
    assert page == writer.make_page(), "run examples/goal_reaching/write_page.py"


@pytest.mark.slow
def test_the_code_of_the_page_lowers_the_loss() -> None:
    page = (ROOT / "docs" / "studies" / "goal_reaching.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "goal_reaching.md", "exec"), names)
    first, last = names["history"]["loss"][0], names["history"]["loss"][-1]
    assert last < min(first, math.log(128)) - 0.5
