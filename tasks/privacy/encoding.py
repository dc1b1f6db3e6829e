"""From raw columns to the numbers that are encrypted: public, and done by the data owner.

The scorer publishes it, the owner computes it before encryption, so it may bend as it likes: signed
logarithms, standardisation, hinges at knots, steps at thresholds, rules made of steps. Its outputs
are bounded, which is what lets the compiler prove that nothing wraps around under encryption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Reals = NDArray[np.float64]

Beyond = Literal["refuse", "clip"]

Rule = tuple[tuple[int, bool], ...]
"""Steps, by their numbers, and whether each is to be taken."""


class RowError(ValueError):
    """Rows that cannot be scored.

    Attributes:
        rows: Their places.
        reasons: Why, for each.
    """

    def __init__(self, rows: Sequence[int], reasons: Sequence[str]) -> None:
        self.rows, self.reasons = list(rows), list(reasons)
        shown = "; ".join(f"row {row}: {why}" for row, why in zip(rows, reasons, strict=True))
        super().__init__(shown if len(rows) <= 3 else f"{len(rows)} rows, such as {shown[:300]}")


@dataclass(frozen=True)
class Encoding:
    """F columns as G bounded inputs: standardised columns, hinges, steps or rules, in this order.

    Attributes:
        columns: Names of the F columns.
        mean: float64 [F], subtracted (after the logarithm).
        scale: float64 [F], divided by.
        limits: float64 [F]: standardised values lie within plus and minus these.
        knots: float64 [F, K], standardised: adds ``max(z - knot, 0)`` for each.
        signed_log: Whether values become ``sign(v) * ln(1 + |v|)`` first.
        beyond: What happens to a value outside its limits.
        steps: Pairs of a column's place and a threshold; adds 1 where the raw value lies above.
        rules: If there are any, they are added in place of the steps: 1 where all of a rule's steps
            are as it says.
    """

    columns: tuple[str, ...]
    mean: Reals
    scale: Reals
    limits: Reals
    knots: Reals = field(default_factory=lambda: np.zeros((0, 0)))
    signed_log: bool = False
    beyond: Beyond = "refuse"
    steps: tuple[tuple[int, float], ...] = ()
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        """Bring the arrays into shape.

        Raises:
            ValueError: When lengths differ, or a scale or limit is not positive and finite.
        """
        width = len(self.columns)
        for name in ("mean", "scale", "limits"):
            values = np.asarray(getattr(self, name), np.float64)
            if values.shape != (width,) or not np.isfinite(values).all():
                raise ValueError(f"encoding.{name} must be {width} finite numbers")
            object.__setattr__(self, name, values)
        if not ((self.scale > 0).all() and (self.limits > 0).all()):
            raise ValueError("encoding.scale and encoding.limits must be positive")
        if not all(0 <= place < width and np.isfinite(limit) for place, limit in self.steps):
            raise ValueError(f"encoding.steps are finite thresholds of columns 0 to {width - 1}")
        known = range(len(self.steps))
        if not all(rule and all(step in known for step, _ in rule) for rule in self.rules):
            raise ValueError(f"encoding.rules each name one or more of the {len(known)} steps")
        knots = np.asarray(self.knots, np.float64).reshape(width, -1 if width else 0)
        object.__setattr__(self, "knots", knots)

    @property
    def inputs(self) -> int:
        """Number of inputs G: ``F * (1 + K)`` and one for each step or rule."""
        flags = len(self.rules) or len(self.steps)
        return len(self.columns) * (1 + int(self.knots.shape[1])) + flags

    @property
    def bounds(self) -> Reals:
        """Largest absolute value of each input, float64 [G]."""
        hinges = np.maximum(self.limits[:, None] - self.knots, 0.0)
        flags = len(self.rules) or len(self.steps)
        return np.concatenate([self.limits, hinges.ravel(), np.ones(flags)])

    def encode(self, rows: ArrayLike) -> Reals:
        """Return the inputs of rows.

        Args:
            rows: [n, F] numbers.

        Returns:
            float64 [n, G]: standardised columns, the hinges column by column, the steps or rules.

        Raises:
            RowError: On rows that are not finite or, if so told, outside the limits.
            ValueError: When the number of columns is another.
        """
        values = self._checked(rows)
        if wrong := self.refused(values):
            raise RowError(list(wrong), list(wrong.values()))
        parts = [self._flags(values)] if self.steps else []
        z = np.clip(self._standardised(values), -self.limits, self.limits)
        if self.knots.shape[1]:
            parts.insert(0, np.maximum(z[:, :, None] - self.knots, 0.0).reshape(len(z), -1))
        return np.concatenate([z, *parts], axis=1) if parts else z

    def refused(self, rows: ArrayLike) -> dict[int, str]:
        """Return which of the rows [n, F] `encode` refuses, with the reasons.

        Raises:
            ValueError: When the number of columns is another.
        """
        values, found = self._checked(rows), dict[int, str]()
        for wrong, why in self._wrong(values):
            for row in np.flatnonzero(wrong.any(axis=1)):
                column = self.columns[int(np.argmax(wrong[row]))]
                found.setdefault(int(row), f"{column} {why}")
        return dict(sorted(found.items()))

    def _checked(self, rows: ArrayLike) -> Reals:
        values = np.asarray(rows, np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.columns):
            raise ValueError(f"rows have shape [n, {len(self.columns)}], not {list(values.shape)}")
        return values

    def _standardised(self, values: Reals) -> Reals:
        if self.signed_log:
            values = np.sign(values) * np.log1p(np.abs(values))
        z: Reals = (values - self.mean) / self.scale
        return z

    def _wrong(self, values: Reals) -> Iterator[tuple[NDArray[np.bool_], str]]:
        """Yield which values [n, F] cannot be, and why."""
        finite = np.isfinite(values)
        yield ~finite, "is not a finite number"
        if self.beyond == "refuse":
            z = self._standardised(np.where(finite, values, 0.0))
            # A step of rounding beyond the limit is no other value.
            beyond = finite & (np.abs(z) > self.limits * (1 + 1e-12))
            yield beyond, "lies outside what the model was compiled for"

    def _flags(self, values: Reals) -> Reals:
        """Return 1 or 0 for each row and step, or rule if there are any."""
        places = [place for place, _ in self.steps]
        limits = np.array([limit for _, limit in self.steps])
        taken = (values[:, places] > limits).T
        if not self.rules:
            return taken.T.astype(np.float64)
        # Step by step over all rows: a bit of each is one operation on a run of bytes.
        either = np.ascontiguousarray(np.stack([~taken, taken], axis=1))
        flags = np.empty((len(values), len(self.rules)))
        for column, rule in enumerate(self.rules):
            flags[:, column] = np.logical_and.reduce([either[step, int(yes)] for step, yes in rule])
        return flags

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding as JSON data."""
        told: dict[str, Any] = {
            "columns": list(self.columns),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "limits": self.limits.tolist(),
            "knots": self.knots.tolist(),
            "signed_log": self.signed_log,
            "beyond": self.beyond,
            "steps": [[place, limit] for place, limit in self.steps],
        }
        if self.rules:  # digests of what has none are as they were before there were rules
            told["rules"] = [[[step, yes] for step, yes in rule] for rule in self.rules]
        return told

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Encoding:
        """Rebuild from `to_dict`."""
        if data["beyond"] not in {"refuse", "clip"}:
            raise ValueError(f"encoding.beyond is 'refuse' or 'clip', not {data['beyond']!r}")
        return cls(
            tuple(data["columns"]),
            np.asarray(data["mean"], np.float64),
            np.asarray(data["scale"], np.float64),
            np.asarray(data["limits"], np.float64),
            np.asarray(data["knots"], np.float64),
            bool(data["signed_log"]),
            data["beyond"],
            tuple((int(place), float(limit)) for place, limit in data["steps"]),
            tuple(
                tuple((int(step), bool(yes)) for step, yes in rule)
                for rule in data.get("rules", ())
            ),
        )


def plain_encoding(
    rows: ArrayLike,
    columns: Sequence[str] | None = None,
    *,
    margin: float = 4.0,
    beyond: Beyond = "refuse",
) -> Encoding:
    """Return an encoding that standardises, with limits far beyond the calibration rows.

    Args:
        rows: [n, F] calibration rows.
        columns: Names; default ``x0``, ``x1`` ...
        margin: Limits are so many times the largest standardised value of the calibration rows.
        beyond: What happens to values outside of them.

    Example:
        >>> plain_encoding([[0.0], [2.0]]).encode([[2.0]]).tolist()
        [[1.0]]
    """
    values = np.asarray(rows, np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale[scale < 1e-12] = 1.0
    limits = margin * np.maximum(np.abs((values - mean) / scale).max(axis=0), 1.0)
    names = tuple(columns or (f"x{i}" for i in range(values.shape[1])))
    return Encoding(names, mean, scale, limits, beyond=beyond)
