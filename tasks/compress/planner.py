"""From a model, a device and a budget to what is tried, in which order.

Size, time and memory of a file do not depend on how well its weights were trained. So each recipe
is sketched first, without training, and measured: what cannot meet the budget is known within a
minute or two, before any long work, and the nearest that can is told. What is lost is known only
when a recipe was carried out; recipes that usually lose less come first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.compress.budget import Budget, distance
from tasks.compress.device import CompressError, Device
from tasks.compress.footprint import Footprint, TimingConfig, footprints
from tasks.compress.recipe import Recipe, recipes
from tasks.compress.subject import Say, Subject

logger = logging.getLogger(__name__)
WHOLE = "as trained"
_SPARE = 0.2
"""Share of the size that 8 bits must leave: in the file that is made some layers stay float."""


class BudgetError(CompressError):
    """A budget that no recipe meets; says which comes nearest, and what it reaches."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """A recipe measured before its training.

    Attributes:
        recipe: What would be done.
        footprint: What the file will cost.
        over: Limits it does not keep: name -> (reached, limit).
    """

    recipe: Recipe
    footprint: Footprint
    over: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried.

    Attributes:
        subject: Name of the model.
        family: Its kind.
        device: Where it shall run.
        budget: What it may cost.
        whole: Cost of the float file.
        sketches: All recipes that are worth trying, in the order of their risk.
        chosen: Those that are tried, in order.
        ruled_out: Recipe -> why it cannot be carried out, or would bring nothing.
    """

    subject: str
    family: str
    device: Device
    budget: Budget
    whole: Footprint
    sketches: tuple[Sketch, ...]
    chosen: tuple[Recipe, ...]
    ruled_out: Mapping[str, str]


def make_plan(
    subject: Subject,
    device: Device,
    budget: Budget,
    *,
    most: int = 4,
    timing: TimingConfig | None = None,
    say: Say = logger.debug,
) -> Plan:
    """Return what to try for a budget.

    Args:
        subject: The model and its data.
        device: Where it shall run.
        budget: What it may cost.
        most: Recipes that are tried.
        timing: How times are taken.
        say: Told what begins.

    Raises:
        BudgetError: When no recipe meets it; names the nearest.
        CompressError: When the budget asks for what cannot be known here.
    """
    if budget.ms is not None and not device.timed_here:
        raise CompressError(
            f"ms={budget.ms:g}: times of {device.name} cannot be measured on this machine; give "
            "faster= (a ratio), and measure on the device by penstock-lite bench"
        )
    files, ruled_out = {WHOLE: subject.whole()}, {}
    possible: list[Recipe] = []
    for recipe, why in recipes(subject.can(), device):
        if reason := why or _needless(recipe, files, budget):
            ruled_out[recipe.name] = reason
            continue
        say(f"sketching {recipe.name}")
        try:
            files[recipe.name] = subject.sketch(recipe)
            possible.append(recipe)
        except CompressError as error:
            ruled_out[recipe.name] = str(error)
    if not possible:
        raise CompressError(f"{subject.name} cannot be compressed: {_reasons(ruled_out)}")
    say(f"measuring {len(files)} files")
    measured = footprints(files, subject.example(), device, timing)
    whole = measured[WHOLE]
    sketches = [
        Sketch(one, measured[one.name], budget.excess(measured[one.name], whole, device))
        for one in sorted(possible, key=lambda one: one.risk)
    ]
    fitting = [sketch.recipe for sketch in sketches if not sketch.over]
    if not fitting:
        raise BudgetError(_nearest(sketches, whole, budget))
    return Plan(
        subject.name,
        subject.family,
        device,
        budget,
        whole,
        tuple(sketches),
        tuple(_spread(fitting, most)),
        ruled_out,
    )


def _needless(recipe: Recipe, files: Mapping[str, bytes], budget: Budget) -> str:
    """Return why 4 bits bring nothing: they save bytes and no time, the kernels are those of 8."""
    eight = files.get(replace(recipe, bits="int8").name) if recipe.bits == "int8+int4" else None
    limit = budget.size(len(files[WHOLE]))
    enough = eight is not None and (not limit or len(eight) <= limit * (1 - _SPARE))
    return "8 bits are small enough" if enough else ""


def _spread(fitting: Sequence[Recipe], most: int) -> list[Recipe]:
    """Return the least risky ones, and the first of each further share that is taken out."""
    chosen = list(fitting[: max(1, most - 1)])
    taken = {one.prune for one in chosen}
    others = [one for one in fitting if one.prune not in taken]
    return (chosen + others + [one for one in fitting if one not in chosen])[:most]


def _nearest(sketches: Sequence[Sketch], whole: Footprint, budget: Budget) -> str:
    near = min(sketches, key=lambda one: distance(one.over))
    found = near.footprint
    over = "; ".join(
        f"{name} {reached:.3g} where {limit:.3g} is asked"
        for name, (reached, limit) in near.over.items()
    )
    return (
        f"no plan meets {budget.words()}: the nearest is {near.recipe.name} with {found.mb:.2f} MB "
        f"({whole.mb / found.mb:.2f} times smaller), {found.ms:.2f} ms "
        f"({whole.ms / found.ms:.2f} times faster) and {found.memory_mb:.0f} MB of memory ({over})"
    )


def _reasons(ruled_out: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in list(ruled_out.items())[:4])
