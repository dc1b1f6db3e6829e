"""What each labelled image is used for: to train, to set the thresholds, or to test.

Parts never straddle. With few defective parts all of them train, because a handful can promise
nothing; as soon as a promise can be kept, so many are held out as it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from tasks.defects.data.splits import SplitError, split_groups
from tasks.defects.promise.bounds import average_needed, needed
from tasks.defects.promise.thresholds import Promise, TooFewPartsError

ROLES = ("train", "calibration", "test")


@dataclass(frozen=True, slots=True)
class PlanConfig:
    """Shares of the parts of each side.

    Attributes:
        calibration: Share that sets the thresholds; more where a promise needs more.
        test: Share that is only looked at in the end.
        least: Fewest defective parts to train on before any are held out.
        seed: Of the shuffle.
    """

    calibration: float = 0.3
    test: float = 0.2
    least: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.calibration, self.test) <= 0 or self.calibration + self.test >= 1:
            raise ValueError(
                f"calibration {self.calibration}, test {self.test}: give shares above 0 that leave "
                "some to train on"
            )
        if self.least < 1:
            raise ValueError(f"least is {self.least}; give at least 1 part")


def plan_roles(
    frame: pl.DataFrame, promise: Promise | None = None, config: PlanConfig | None = None
) -> pl.DataFrame:
    """Return ``name`` and ``split`` (one of `ROLES`) of the labelled images.

    Args:
        frame: A dataset's frame; a group with a defective image counts as defective.
        promise: What is to be promised; None: nothing.
        config: Shares.

    Raises:
        TooFewPartsError: A promise of escapes that so few defective parts cannot carry.
        SplitError: Fewer than two good groups.
    """
    config = config or PlanConfig()
    known = frame.filter(pl.col("label").is_not_null())
    bad = known.filter(pl.col("label") == "ng")["group"].unique()
    sides = {
        "ng": known.filter(pl.col("group").is_in(bad.implode())),
        "ok": known.filter(~pl.col("group").is_in(bad.implode())),
    }
    count = len(bad)
    wanted = _held_out(promise, count, config)
    parts = [_split(sides["ok"], _shares(sides["ok"]["group"].n_unique(), config), config.seed)]
    if count:
        parts.append(_split(sides["ng"], wanted, config.seed))
    return pl.concat(parts).sort("name")


def _held_out(promise: Promise | None, count: int, config: PlanConfig) -> dict[str, float]:
    """Return the shares of the defective parts."""
    most = count - config.least
    if promise is None or promise.max_escape is None:
        return _shares(count, config) if most > config.least // 2 else {"train": 1.0}
    least = (
        average_needed(promise.max_escape)
        if promise.average
        else needed(promise.max_escape, promise.confidence)
    )
    if least > most:
        raise TooFewPartsError(
            f"max_escape={promise.max_escape:g} needs {least:,} defective parts held out and "
            f"{config.least} to train on, and {count:,} are there: label {least - most:,} more, "
            "or promise less",
            {"defective parts": least - most},
        )
    shares = _shares(count, config)
    # A margin of one part, as groups of several images are dealt out whole.
    calibration = min(max(shares["calibration"], (least + 1) / count), most / count)
    left = 1.0 - calibration
    test = min(shares.get("test", 0.0), max(left - config.least / count, 0.0))
    found = {"train": left - test, "calibration": calibration, "test": test}
    return {name: share for name, share in found.items() if share * count >= 1}


def _shares(count: int, config: PlanConfig) -> dict[str, float]:
    """Return shares that leave no role without a part."""
    if count < 2:
        return {"train": 1.0}
    found = {
        "train": 1.0 - config.calibration - config.test,
        "calibration": config.calibration,
        "test": config.test,
    }
    if count * config.test < 1:
        found["calibration"] = found["calibration"] + found.pop("test")
    return found


def _split(frame: pl.DataFrame, shares: Mapping[str, float], seed: int) -> pl.DataFrame:
    if not frame.height:
        raise SplitError("no good image; label at least two parts as ok")
    total = sum(shares.values())
    return split_groups(frame, {name: share / total for name, share in shares.items()}, seed)
