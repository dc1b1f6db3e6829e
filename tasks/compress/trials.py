"""A plan carried out: every recipe made and judged, and the one that is taken."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.compress.device import CompressError
from tasks.compress.footprint import Footprint, TimingConfig, footprints
from tasks.compress.planner import WHOLE, BudgetError, Plan
from tasks.compress.recipe import Recipe
from tasks.compress.subject import Lost, Made, Say, Subject

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe that was carried out.

    Attributes:
        recipe: What was done.
        made: What came of it.
        lost: What it loses.
        footprint: What it costs; measured again, in turns with all others.
        seconds: That making it took.
    """

    recipe: Recipe
    made: Made
    lost: Lost
    footprint: Footprint
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a plan.

    Attributes:
        whole: Cost of the float file, measured beside the trials.
        trials: In the order in which they were made.
        front: Names of those that no other beats in size, time and loss at once.
        taken: The trial that is taken.
    """

    whole: Footprint
    trials: tuple[Trial, ...]
    front: frozenset[str]
    taken: Trial


def carry_out(
    plan: Plan,
    subject: Subject,
    *,
    minutes: float = 20.0,
    timing: TimingConfig | None = None,
    say: Say = logger.info,
) -> Outcome:
    """Make and judge the recipes of a plan, and take the fastest that keeps every limit.

    Args:
        plan: What is tried, in order.
        subject: The same model.
        minutes: After which no further recipe is begun, as soon as one keeps every limit of loss.
        timing: How times are taken.
        say: Told what begins.

    Raises:
        BudgetError: When all lose too much, or cost more than their sketches, or none can be made;
            names the nearest, or why.
    """
    began, whole_file = time.monotonic(), subject.whole()
    failed: dict[str, str] = {}
    done: list[tuple[Recipe, Made, Lost, float]] = []
    for recipe in plan.chosen:
        kept = any(_bears(lost, plan) for _, _, lost, _ in done)
        spent = (time.monotonic() - began) / 60
        longest = max((one[3] for one in done), default=0.0) / 60
        if kept and spent + longest > minutes:
            logger.info("%s and what follows is left out after %.1f minutes", recipe.name, spent)
            break
        say(f"making {recipe.name}")
        start = time.monotonic()
        try:
            made = subject.make(recipe, say, plan.budget.size(len(whole_file)))
        except CompressError as error:
            say(f"{recipe.name} cannot be made: {error}")
            failed[recipe.name] = str(error)
            continue
        done.append((recipe, made, subject.lost(made), time.monotonic() - start))
    if not done:
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise BudgetError(f"no file keeps {plan.budget.words()}: {told}")
    files = {WHOLE: whole_file} | {one[0].name: one[1].model for one in done}
    measured = footprints(files, subject.example(), plan.device, timing)
    trials = tuple(
        Trial(recipe, made, lost, measured[recipe.name], seconds)
        for recipe, made, lost, seconds in done
    )
    whole = measured[WHOLE]
    kept_all = [
        trial
        for trial in trials
        if _bears(trial.lost, plan) and not plan.budget.excess(trial.footprint, whole, plan.device)
    ]
    if not kept_all:
        raise BudgetError(_nearest(trials, whole, plan))
    taken = min(kept_all, key=lambda one: one.footprint.ms)
    return Outcome(whole, trials, front_of(trials), taken)


def front_of(trials: Sequence[Trial]) -> frozenset[str]:
    """Return the names of the trials that no other is better than in every respect."""
    costs = [(one.footprint.mb, one.footprint.ms, max(one.lost.loss, 0.0)) for one in trials]
    return frozenset(
        trial.recipe.name
        for trial, own in zip(trials, costs, strict=True)
        if not any(
            other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in costs
        )
    )


def _bears(lost: Lost, plan: Plan) -> bool:
    return lost.loss <= plan.budget.loss and not lost.beyond


def _nearest(trials: Sequence[Trial], whole: Footprint, plan: Plan) -> str:
    near = min(trials, key=lambda one: (one.lost.beyond, one.lost.loss))
    lost, found = near.lost, near.footprint
    return (
        f"no file keeps {plan.budget.words()}: the nearest is {near.recipe.name}, which loses "
        f"{lost.loss:+.4f} of {lost.figure} [{lost.low:+.4f}, {lost.high:+.4f}] with "
        f"{lost.beyond} wrong decisions beyond the promise, {whole.mb / found.mb:.2f} times "
        f"smaller, {whole.ms / found.ms:.2f} times faster; allow a larger loss, ask for less, or "
        "give more images to repair with"
    )
