"""What is searched: names, and the values that each may take.

A space is plain data: it can be written to a journal, drawn from, laid out as a grid and, for a
population, wandered through.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Value = float | int | str | bool
Parameters = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Uniform:
    """A real number.

    Attributes:
        low: Least value.
        high: Largest value.
        log: Every factor is as likely as any other: for rates and decays.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        _require_range(self.low, self.high, log=self.log)

    def at(self, share: float) -> float:
        """Return the value at a share of the way from low to high."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return min(max(math.exp(low + share * (high - low)), self.low), self.high)
        return self.low + share * (self.high - self.low)

    def nearest(self, value: Value) -> float:
        """Return the allowed value nearest to a number.

        Raises:
            TypeError: When it is no number.
        """
        return min(max(_number(value), self.low), self.high)


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number.

    Attributes:
        low: Least value.
        high: Largest value.
        log: Every factor is as likely as any other: for widths and sizes.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not isinstance(self.low, int) or not isinstance(self.high, int):
            raise TypeError(f"Integer({self.low}, {self.high}): give whole numbers, or use Uniform")
        _require_range(self.low, self.high, log=self.log)

    def at(self, share: float) -> int:
        """Return the value at a share of the way from low to high."""
        return round(Uniform(self.low, self.high, self.log).at(share))

    def nearest(self, value: Value) -> int:
        """Return the allowed value nearest to a number.

        Raises:
            TypeError: When it is no number.
        """
        return round(min(max(_number(value), self.low), self.high))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values; give them in their order, if they have one.

    Attributes:
        options: The values.
    """

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not isinstance(self.options, tuple) or len(set(self.options)) < 2:
            raise ValueError(f"Choice needs a tuple of two values or more, got {self.options!r}")
        if not all(isinstance(o, float | int | str | bool) for o in self.options):
            raise ValueError(
                f"Choice takes numbers, texts and truth values, got {self.options!r}; "
                "name other things by a text and look them up where the model is built"
            )

    def at(self, share: float) -> Value:
        """Return the option at a share of the way through them."""
        return self.options[min(int(share * len(self.options)), len(self.options) - 1)]

    def nearest(self, value: Value) -> Value:
        """Return the option equal to a value.

        Raises:
            ValueError: When none is.
        """
        for option in self.options:
            if option == value and isinstance(option, bool) == isinstance(value, bool):
                return option
        raise ValueError(f"{value!r} is none of {self.options!r}")


Dimension = Uniform | Integer | Choice


@dataclass(frozen=True, slots=True)
class Space:
    """All that is searched.

    Attributes:
        dimensions: Dimension of each hyper-parameter, by name.
    """

    dimensions: Mapping[str, Dimension]

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.dimensions:
            raise ValueError("the space is empty; name at least one hyper-parameter")
        for name, dimension in self.dimensions.items():
            if not isinstance(dimension, Uniform | Integer | Choice):
                raise TypeError(
                    f"dimension {name!r} is {dimension!r}; take Uniform, Integer or Choice"
                )

    def draw(self, generator: np.random.Generator) -> Parameters:
        """Return parameters drawn at random."""
        return {n: d.at(float(generator.random())) for n, d in self.dimensions.items()}

    def grid(self, points: Mapping[str, int]) -> list[Parameters]:
        """Return a full grid, the last name changing fastest.

        Args:
            points: How many values to take of each dimension, in even distances from low to high;
                of a choice all are taken when it is left out.
        """
        values: list[Sequence[Value]] = []
        for name, dimension in self.dimensions.items():
            if isinstance(dimension, Choice) and name not in points:
                values.append(dimension.options)
                continue
            count = points[name]
            shares = [(i / (count - 1) if count > 1 else 0.5) for i in range(count)]
            values.append([dimension.at(share) for share in shares])
        return [
            dict(zip(self.dimensions, each, strict=True)) for each in itertools.product(*values)
        ]

    def checked(self, parameters: Mapping[str, Value]) -> Parameters:
        """Return parameters as they were given.

        Raises:
            ValueError: When a name is missing or unknown, or a value not allowed.
            TypeError: When a text stands for a number.
        """
        differing = set(parameters) ^ set(self.dimensions)
        if differing:
            raise ValueError(
                f"parameters and space differ in {', '.join(sorted(differing))}; "
                f"the space has {', '.join(self.dimensions)}"
            )
        for name, dimension in self.dimensions.items():
            if dimension.nearest(parameters[name]) != parameters[name]:
                raise ValueError(f"{name}={parameters[name]!r} lies outside of {dimension}")
        return dict(parameters)

    def describe(self) -> dict[str, Any]:
        """Return the space as JSON can hold it; equal for equal spaces."""
        found: dict[str, Any] = {}
        for name, dimension in self.dimensions.items():
            kind = type(dimension).__name__
            if isinstance(dimension, Choice):
                found[name] = [kind, *dimension.options]
            else:
                found[name] = [kind, dimension.low, dimension.high, dimension.log]
        return found


def _require_range(low: float, high: float, *, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"a range needs low < high, got {low} and {high}; fix a value instead")
    if log and low <= 0:
        raise ValueError(f"a range with log=True needs low above 0, got {low}")


def _number(value: Value) -> float:
    if isinstance(value, bool | str):
        raise TypeError(f"{value!r} is no number")
    return value
