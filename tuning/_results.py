"""What a search found: a row a trial, the best against the analytic optimum, files and a picture."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import stats

from keras_rwinit._files import write_atomically, write_json
from keras_rwinit.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Comparison", "SearchResult", "TrialRow", "plot_landscape"]

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """One trial.

    Args:
        trial: Its number, from 0, the analytic optimum.
        gain_ratio: Gain over the analytic one.
        gain: Of the hidden kernels; NaN where none exists.
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        parameters: Weights and biases.
        drift: Predicted mean step of the gradient's log-norm, in nats of `|delta|` a layer.
        spread: Its predicted standard deviation over all layers, in nats of `|delta|`.
        score: The objective, finite; None unless the trial was completed.
        seconds: That the trial took; None unless it has ended.
        status: keras-tuner's: `"COMPLETED"`, `"FAILED"`, `"RUNNING"`.
        reason: Why it failed; None if it did not.
        others: The other hyperparameters that were tuned, by name.
    """

    trial: int
    gain_ratio: float
    gain: float
    width: int
    depth: int
    parameters: int
    drift: float
    spread: float
    score: float | None
    seconds: float | None
    status: str
    reason: str | None
    others: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The row by column, other hyperparameters last."""
        row = dict(vars(self))
        others = row.pop("others")
        return {**row, **others}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The best point and the analytic optimum, trained again under the same fresh seeds.

    Args:
        best: Scores of the best point, one a seed; None where a run failed.
        analytic: Scores of the analytic optimum under the same seeds.
    """

    best: tuple[float | None, ...]
    analytic: tuple[float | None, ...]

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Scores of the seeds under which both runs worked."""
        both = zip(self.best, self.analytic, strict=True)
        return [(a, b) for a, b in both if a is not None and b is not None]

    @property
    def difference(self) -> float:
        """Mean of best minus analytic; NaN without a pair."""
        return statistics.fmean(a - b for a, b in self.pairs) if self.pairs else math.nan

    @property
    def margin(self) -> float:
        """Half the width of the difference's 95 % confidence interval (Student's, paired)."""
        count = len(self.pairs)
        if count < 2:
            return math.nan
        spread = statistics.stdev(a - b for a, b in self.pairs)
        return float(stats.t.ppf((1.0 + _CONFIDENCE) / 2.0, count - 1) * spread / math.sqrt(count))

    @property
    def larger_than_noise(self) -> bool:
        """Whether the interval leaves zero out."""
        return abs(self.difference) > self.margin


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The table of a search: a sequence of `TrialRow`, in the order of the trials.

    Args:
        rows: The trials.
        objective: What the scores are.
        direction: `"min"` or `"max"`.
        comparison: Of the best and the analytic point; None if it was not asked for, or they are one.

    Example:
        >>> from keras_rwinit import tuning
        >>> space = tuning.DeepMLPHyperModel((64,), depth=3, width=8)
        >>> result = tuning.search("digits", space, trials=2, epochs=1, seeds=0, batch_size=256)
        >>> result[0].gain_ratio, len(result)
        (1.0, 2)
    """

    rows: tuple[TrialRow, ...]
    objective: str
    direction: str
    comparison: Comparison | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> TrialRow:
        return self.rows[index]

    def __iter__(self) -> Iterator[TrialRow]:
        return iter(self.rows)

    @property
    def ranking(self) -> list[TrialRow]:
        """The completed trials, the best first."""
        sign = -1.0 if self.direction == "max" else 1.0
        scored = [(sign * row.score, row.trial, row) for row in self.rows if row.score is not None]
        return [row for _, _, row in sorted(scored, key=lambda item: item[:2])]

    @property
    def best(self) -> TrialRow | None:
        """The best trial; None if none was completed."""
        return next(iter(self.ranking), None)

    @property
    def summary(self) -> str:
        """The best gain and width, how far they are from the analytic optimum, and whether that matters."""
        best = self.best
        if best is None:
            reasons = {row.reason for row in self.rows if row.reason}
            return f"None of {len(self.rows)} trials gave a score: {'; '.join(sorted(reasons)[:2])}."
        start = self.rows[0]
        found = f"Best {self.objective} {best.score:.4g}: "
        if best.trial == start.trial:
            return (
                f"{found}the analytic optimum itself, gain {best.gain:.5g} at width {best.width} and depth "
                f"{best.depth}; none of the other {len(self.rows) - 1} trials beat it."
            )
        nats = best.depth * math.log(best.gain_ratio)
        found += (
            f"gain ratio {best.gain_ratio:.4g} at width {best.width} (gain {best.gain:.5g}, depth "
            f"{best.depth}). That is {best.gain_ratio - 1.0:+.2%}, or {nats:+.2f} nats over all layers, from "
            f"the analytic gain there; the search began at width {start.width} (gain {start.gain:.5g}). "
        )
        return found + self._verdict(start)

    def _verdict(self, start: TrialRow) -> str:
        comparison = self.comparison
        if comparison is None:
            score = "failed" if start.score is None else f"scored {start.score:.4g}"
            return f"The analytic optimum {score}; the noise between seeds was not measured."
        if len(comparison.pairs) < 2:
            return "Under fresh seeds too few of their runs worked to compare them."
        better = (comparison.difference < 0.0) == (self.direction == "min")
        verdict = (
            f"{'better' if better else 'worse'}, and larger than the noise between seeds"
            if comparison.larger_than_noise
            else "not larger than the noise between seeds"
        )
        failed = sum(score is None for score in (*comparison.best, *comparison.analytic))
        return (
            f"Under {len(comparison.pairs)} fresh seeds {self.objective} differs by "
            f"{comparison.difference:+.3g} +- {comparison.margin:.2g} (95 % confidence): {verdict}."
            + (f" {failed} of those runs failed." if failed else "")
        )

    def to_csv(self, path: str | Path) -> None:
        """Writes a line a trial, atomically."""
        text = io.StringIO()
        rows = [row.as_dict() for row in self.rows]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(
            Path(path), lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
        )

    def to_json(self, path: str | Path) -> None:
        """Writes table, comparison and summary, atomically."""
        compared = None if self.comparison is None else dataclasses.asdict(self.comparison)
        if compared is not None and self.comparison is not None:
            compared |= {
                "difference": self.comparison.difference,
                "margin": self.comparison.margin,
                "larger_than_noise": self.comparison.larger_than_noise,
            }
        content = {
            "objective": self.objective,
            "direction": self.direction,
            "trials": [row.as_dict() for row in self.rows],
            "comparison": compared,
            "summary": self.summary,
        }
        write_json(Path(path), content)

    def plot_landscape(self, ax: Axes | None = None) -> Axes:
        """Draws the score over gain ratio and width: see `plot_landscape`."""
        return plot_landscape(self.rows, self.objective, ax)


def plot_landscape(rows: Sequence[TrialRow], objective: str = "score", ax: Axes | None = None) -> Axes:
    """Draws trials over gain ratio and width, colored by score, with the analytic line in.

    With a single width the score itself is the vertical axis. Failed trials are crosses.

    Args:
        rows: The trials.
        objective: Name of the score.
        ax: Axes to draw on. `None`: those of a new figure.

    Returns:
        The axes.
    """
    if ax is None:
        ax = new_figure()[1]
    done = sorted((row for row in rows if row.score is not None), key=lambda row: row.gain_ratio)
    failed = [row for row in rows if row.status == "FAILED"]
    ratios, scores = [row.gain_ratio for row in done], [float(row.score or 0.0) for row in done]
    if len({row.width for row in rows}) > 1:
        points = ax.scatter(
            ratios, [row.width for row in done], c=scores, cmap="viridis_r", s=60, edgecolors="0.2", zorder=3
        )
        if done:
            ax.figure.colorbar(points, ax=ax, label=objective)
        failed_at = [float(row.width) for row in failed]
        ax.set_ylabel("width")
    else:
        ax.plot(ratios, scores, marker="o", zorder=3)
        failed_at = [max(scores, default=0.0)] * len(failed)
        ax.set_ylabel(objective)
    if failed:
        ax.scatter(
            [row.gain_ratio for row in failed], failed_at, marker="x", color="C3", label="failed", zorder=3
        )
    ax.axvline(1.0, color="0.3", linestyle="--", linewidth=1.2, label="analytic optimum")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.set_xlabel("gain / analytic gain")
    ax.legend(fontsize="small", frameon=False)
    return ax
