"""The table of a search, its summary in words and its files."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keras_rwinit._files import check_new, write_atomically, write_json
from keras_rwinit._summary import Summarized

from ._comparison import Comparison
from ._landscape import plot_landscape
from ._trial_row import TrialRow

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

__all__ = ["SearchResult"]


@dataclasses.dataclass(frozen=True)
class SearchResult(Summarized):
    """The table of a search: a sequence of `TrialRow`, in the order of the trials.

    Args:
        rows: The trials.
        objective: Name of the score.
        direction: Whether the best score is the smallest, `"min"`, or the largest, `"max"`.
        comparison: The best point against the analytic one; None if it was not asked for, or they are the
            same.

    Example:
        >>> from keras_rwinit import tuning
        >>> row = tuning.TrialRow(
        ...     trial=0, gain_ratio=1.0, gain=1.41, width=8, depth=3, parameters=754, drift=0.0,
        ...     spread=0.6, score=0.4, seconds=2.5, status="COMPLETED", reason=None, others={},
        ... )
        >>> result = tuning.SearchResult((row,), objective="val_loss", direction="min")
        >>> len(result), result[0].gain_ratio, result.best.score
        (1, 1.0, 0.4)
        >>> float(result.to_frame().loc[0, "score"])
        0.4
        >>> result.plot_landscape().get_xlabel()
        'gain / analytic gain'
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     result.to_csv(f"{directory}/trials.csv")
        ...     result.to_json(f"{directory}/trials.json")
        ...     sorted(path.name for path in pathlib.Path(directory).iterdir())
        ['trials.csv', 'trials.json']
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
        """The completed trials, the best first; equal scores in the order of the trials."""
        sign = -1.0 if self.direction == "max" else 1.0
        scored = [(sign * row.score, row.trial, row) for row in self.rows if row.score is not None]
        return [row for _, _, row in sorted(scored, key=lambda item: item[:2])]

    @property
    def best(self) -> TrialRow | None:
        """The best trial; None if none was completed."""
        return next(iter(self.ranking), None)

    def summary(self) -> str:
        """Returns the best point, its distance from the analytic one, and whether the difference matters."""
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
        # A gain larger by a factor r multiplies the gradient by r at every layer.
        nats = best.depth * math.log(best.gain_ratio)
        found += (
            f"gain ratio {best.gain_ratio:.4g} at width {best.width} (gain {best.gain:.5g}, depth "
            f"{best.depth}). That is {best.gain_ratio - 1.0:+.2%}, or {nats:+.2f} nats over all layers, from "
            f"the analytic gain there; the search began at width {start.width} (gain {start.gain:.5g}). "
        )
        return found + self._summarize_comparison(start)

    def _summarize_comparison(self, start: TrialRow) -> str:
        comparison = self.comparison
        if comparison is None:
            score = "failed" if start.score is None else f"scored {start.score:.4g}"
            return f"The analytic optimum {score}; the noise between seeds was not measured."
        if len(comparison.pairs) < 2:
            return "Too few runs under fresh seeds succeeded to compare the two."
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

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes one line per trial, atomically.

        Args:
            path: The file to write.
            overwrite: Whether a file of that name is replaced.

        Raises:
            ValueError: The file exists, and `overwrite` is False.
        """
        path = Path(path)
        check_new(path, overwrite=overwrite)
        text = io.StringIO()
        rows = [row.as_dict() for row in self.rows]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(
            path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
        )

    def to_json(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes table, comparison and summary, atomically.

        Args:
            path: The file to write.
            overwrite: Whether a file of that name is replaced.

        Raises:
            ValueError: The file exists, and `overwrite` is False.
        """
        path = Path(path)
        check_new(path, overwrite=overwrite)
        compared: dict[str, object] | None = None
        if self.comparison is not None:
            compared = {
                **dataclasses.asdict(self.comparison),
                "difference": self.comparison.difference,
                "margin": self.comparison.margin,
                "larger_than_noise": self.comparison.larger_than_noise,
            }
        content = {
            "objective": self.objective,
            "direction": self.direction,
            "trials": [row.as_dict() for row in self.rows],
            "comparison": compared,
            "summary": self.summary(),
        }
        write_json(path, content)

    def to_frame(self) -> pandas.DataFrame:
        """Returns the table as a pandas data frame, with a row for each trial.

        Returns:
            The data frame. Its index has the numbers of the trials, its columns the fields of `TrialRow`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("`to_frame` needs pandas: pip install pandas") from error
        return pandas.DataFrame([row.as_dict() for row in self.rows]).set_index("trial")

    def plot_landscape(self, ax: Axes | None = None) -> Axes:
        """Draws the score over gain ratio and width; see `tuning.plot_landscape`.

        Args:
            ax: Axes to draw on. `None`: those of a new figure.

        Returns:
            The axes.

        Raises:
            ImportError: Matplotlib is missing; the message names the extra to install.
        """
        return plot_landscape(self.rows, self.objective, ax)
