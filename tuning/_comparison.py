"""The best point against the analytic optimum: scores of both under the same fresh seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics

from scipy import stats

__all__ = ["Comparison"]

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The best point and the analytic optimum, trained again under the same fresh seeds.

    Args:
        best: Scores of the best point, one per seed; None where a run failed.
        analytic: Scores of the analytic optimum under the same seeds.
    """

    best: tuple[float | None, ...]
    analytic: tuple[float | None, ...]

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Scores of the seeds under which neither run failed."""
        both = zip(self.best, self.analytic, strict=True)
        return [(best, analytic) for best, analytic in both if best is not None and analytic is not None]

    @property
    def difference(self) -> float:
        """Mean of best minus analytic; NaN without a pair."""
        return statistics.fmean(self._differences) if self.pairs else math.nan

    @property
    def margin(self) -> float:
        """Half the width of the 95 % confidence interval of the difference; NaN below two pairs.

        The interval is that of the paired t-test.
        """
        count = len(self.pairs)
        if count < 2:
            return math.nan
        quantile = stats.t.ppf((1.0 + _CONFIDENCE) / 2.0, count - 1)
        return float(quantile * statistics.stdev(self._differences) / math.sqrt(count))

    @property
    def larger_than_noise(self) -> bool:
        """Whether the confidence interval excludes zero."""
        return abs(self.difference) > self.margin

    @property
    def _differences(self) -> list[float]:
        return [best - analytic for best, analytic in self.pairs]
