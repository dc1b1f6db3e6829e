"""The load of the next minutes, foretold from probes.

For each series one of four ways is chosen on the last third of what it is fitted on. The last
value, unless another is clearly better: a moving level; a level with a damped trend (Gardner and
McKenzie 1985); a linear model of the last values around a slow level, fitted by ridge regression
for just this distance. Series that wander keep their last value, noisy ones are smoothed, those
that swing back are drawn to their level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.scheduling.series import Series

Values = NDArray[np.float64]
WAYS = ("last", "level", "trend", "linear")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastConfig:
    """How far ahead, and how.

    Attributes:
        ahead_seconds: Distance of the forecast.
        lags: Last values that the linear model sees.
        ridge: Its shrinkage, in units of the values' variance times their number.
        memory: Distances over which the linear model's own level is taken.
        level: Weight of the newest value in the moving level.
        trend: Weight of the newest change in the trend.
        damping: What is left of the trend from one step to the next.
        margin: Another way than the last value must bring the squared error below this share.
    """

    ahead_seconds: float = 300.0
    lags: int = 6
    ridge: float = 0.05
    memory: float = 8.0
    level: float = 0.2
    trend: float = 0.1
    damping: float = 0.9
    margin: float = 0.9

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.ahead_seconds, self.lags, self.ridge, self.memory) <= 0:
            raise ValueError("forecast: ahead_seconds, lags, ridge and memory must be above 0")
        if not (0 < self.level <= 1 and 0 < self.trend <= 1 and 0 <= self.damping < 1):
            raise ValueError("forecast: level and trend lie in (0, 1], damping in [0, 1)")


class LoadForecast:
    """Forecasts of many series at once.

    Args:
        series: What it is fitted on; at least three times as many readings as the distance and
            twice the lags together.
        config: How far ahead.

    Attributes:
        config: How far ahead, and how.
        names: Names of the series.
        steps: Distance of the forecast, in readings.

    Raises:
        ValueError: There are too few readings.
    """

    def __init__(self, series: Series, config: ForecastConfig | None = None) -> None:
        self.config = config or ForecastConfig()
        self.names = series.names
        self.steps = max(1, round(self.config.ahead_seconds / series.every))
        count = len(series.values)
        needed = 3 * (self.steps + 2 * self.config.lags)
        if count < needed:
            raise ValueError(
                f"forecast: {needed} readings are needed for {self.steps} steps ahead, got "
                f"{count}; record {needed * series.every / 60:.1f} minutes"
            )
        values = series.values
        self._low, self._high = values.min(0), values.max(0)
        cut = 2 * count // 3
        weights = self._fit(values[:cut])
        actual = values[cut + self.steps :]
        ways = self._ways(values, weights)
        errors = [((each[cut : -self.steps] - actual) ** 2).mean(0) for each in ways]
        errors[0] *= self.config.margin
        self._chosen = np.argmin(errors, axis=0)
        self._weights = self._fit(values)

    def way(self, name: str) -> str:
        """Return the way chosen for a series."""
        return WAYS[int(self._chosen[self.names.index(name)])]

    def after(self, values: Values) -> Values:
        """Return the forecast made at each reading, for the distance of the config later.

        Args:
            values: Readings of the same series, shape (readings, series); what came before the
                first of them is not known to the forecast.

        Returns:
            The same shape. Forecasts stay within what was seen until then.
        """
        ways = np.stack(self._ways(values, self._weights))
        found = np.take_along_axis(ways, self._chosen[None, None, :], 0)[0]
        low = np.minimum(self._low, np.minimum.accumulate(values))
        high = np.maximum(self._high, np.maximum.accumulate(values))
        bounded: Values = np.clip(found, low, high)
        return bounded

    def next(self, values: Values) -> dict[str, float]:
        """Return the forecast by name after the last of some readings."""
        last = self.after(values)[-1]
        return dict(zip(self.names, last.tolist(), strict=True))

    def _ways(self, values: Values, weights: Values) -> list[Values]:
        level, trend = _smoothed(values, self.config, self.steps)
        return [values, level, trend, self._linear(values, weights)]

    def _fit(self, values: Values) -> Values:
        """Return weights of the last values, shape (series, lags)."""
        lags, steps = self.config.lags, self.steps
        base = self._base(values)
        x = (_lagged(values, lags) - base[:, :, None])[lags - 1 : -steps].transpose(1, 0, 2)
        y = (values[steps:] - base[:-steps])[lags - 1 :]
        square = x.transpose(0, 2, 1) @ x
        scale = np.trace(square, axis1=1, axis2=2) / lags
        square += (self.config.ridge * scale + 1e-12)[:, None, None] * np.eye(lags)
        target = x.transpose(0, 2, 1) @ y.T[:, :, None]
        found: Values = np.linalg.solve(square, target)[:, :, 0]
        return found

    def _linear(self, values: Values, weights: Values) -> Values:
        base = self._base(values)
        lagged = _lagged(values, self.config.lags) - base[:, :, None]
        found: Values = base + np.einsum("tsl,sl->ts", lagged, weights)
        return found

    def _base(self, values: Values) -> Values:
        """Return the slow level around which the linear model works; it follows shifts."""
        weight = 1 / (self.config.memory * self.steps)
        base = np.empty_like(values)
        level = values[0].copy()
        for i, value in enumerate(values):
            level += max(weight, 1 / (i + 1)) * (value - level)
            base[i] = level
        return base


def held_out_ratios(series: Series, config: ForecastConfig | None = None) -> dict[str, float]:
    """Judge forecasts on the last quarter of a recording, fitted on the rest.

    Args:
        series: Readings.
        config: How far ahead.

    Returns:
        For each series that moves there: root of the mean squared error over that of the last
        value. Empty when the recording is too short.
    """
    values = series.values
    cut = 3 * len(values) // 4
    try:
        fitted = LoadForecast(Series(series.names, series.every, values[:cut]), config)
    except ValueError:
        return {}
    steps = fitted.steps
    actual = values[cut + steps :]
    ours = np.sqrt(((fitted.after(values)[cut:-steps] - actual) ** 2).mean(0))
    last = np.sqrt(((values[cut:-steps] - actual) ** 2).mean(0))
    # What rounding alone can move, each series in its own unit.
    least = 1e-12 * np.maximum(1.0, np.abs(actual).max(0))
    return {
        name: float(a / b)
        for name, a, b, c in zip(series.names, ours, last, least, strict=True)
        if b > c
    }


def _lagged(values: Values, lags: int) -> Values:
    """Return each reading with those before it, newest first, shape (readings, series, lags)."""
    before = np.concatenate([np.repeat(values[:1], lags - 1, axis=0), values])
    windows = np.lib.stride_tricks.sliding_window_view(before, lags, axis=0)
    return windows[:, :, ::-1]


def _smoothed(values: Values, config: ForecastConfig, steps: int) -> tuple[Values, Values]:
    """Return the moving level, and level plus damped trend after some steps."""
    simple, level = values[0].copy(), values[0].copy()
    trend = np.zeros_like(level)
    reach = sum(config.damping**k for k in range(1, steps + 1))
    levels, trends = np.empty_like(values), np.empty_like(values)
    for i, value in enumerate(values):
        simple += config.level * (value - simple)
        foretold = level + config.damping * trend
        newer = foretold + config.level * (value - foretold)
        trend = config.trend * (newer - level) + (1 - config.trend) * config.damping * trend
        level = newer
        levels[i], trends[i] = simple, level + reach * trend
    return levels, trends
