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

    Scores, difference and margin are in the units of the objective: nats for a cross-entropy, and a fraction
    from 0 to 1 for an accuracy.

    Args:
        best: Scores of the best point, one per seed; None where a run failed.
        analytic: Scores of the analytic optimum under the same seeds.

    Example:
        >>> from keras_rwinit import tuning
        >>> comparison = tuning.Comparison(best=(0.41, 0.39, 0.40), analytic=(0.52, 0.49, None))
        >>> f"{comparison.difference:.3f} +- {comparison.margin:.3f}", comparison.larger_than_noise
        ('-0.105 +- 0.064', True)
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
