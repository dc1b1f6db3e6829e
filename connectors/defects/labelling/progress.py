"""How far the labelling is, and what can be promised with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from connectors.defects.labelling.history import Decision, History
from tasks.defects.active.draw import random_sample
from tasks.defects.promise.bounds import needed

CONFIDENCE = 0.95
ALPHAS = (0.1, 0.05, 0.01)


@dataclass(frozen=True, slots=True)
class Promise:
    """What the labels drawn at random can promise.

    Attributes:
        what: ``defects escape`` or ``good parts are rejected``.
        have: Labels of such parts; several images of one part count once.
        alpha: Share that can be promised next; None where all of ``ALPHAS`` can.
        need: Parts for it.
        now: Share that can be promised already, None where none can.
    """

    what: str
    have: int
    alpha: float | None
    need: int
    now: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the labelling is.

    Attributes:
        images: That can be looked at.
        copies: Of them, near-duplicates that are not asked for.
        ok: Labels.
        ng: Labels.
        unsure: Images that somebody left.
        kinds: Type -> labels, most first.
        drawn: Labels of the random sample.
        promises: For defects and for good parts.
        parts: Physical parts of the images; None where every image counts as one.
    """

    images: int
    copies: int
    ok: int
    ng: int
    unsure: int
    kinds: Sequence[tuple[str, int]]
    drawn: int
    promises: tuple[Promise, Promise]
    parts: int | None = None

    @property
    def labelled(self) -> int:
        """Images with a label."""
        return self.ok + self.ng

    @property
    def open(self) -> int:
        """Images that are still to be looked at."""
        return max(self.images - self.copies - self.labelled - self.unsure, 0)


def progress_of(
    names: Sequence[str], copies: int, history: History, parts: Mapping[str, str] | None = None
) -> Progress:
    """Return how far it is.

    Args:
        names: Images that can be looked at, near-duplicates left out.
        copies: Near-duplicates left out.
        history: What was said.
        parts: Physical parts of the images of which one is known; the others are each their own.
    """
    parts = parts or {}
    holding = history.holding()
    said = Counter(one.said for one in holding.values())
    kinds = Counter(one.kind for one in holding.values() if one.said == "ng" and one.kind)
    sample = random_sample(names, _labelled(holding), history.drawn())
    # As in training: a part is defective when one of its images is.
    bad = {parts.get(name, f"\0{name}") for name in sample if holding[name].said == "ng"}
    good = {parts.get(name, f"\0{name}") for name in sample if holding[name].said == "ok"} - bad
    return Progress(
        len(names) + copies, copies, said["ok"], said["ng"], said["unsure"], kinds.most_common(),
        len(sample),
        (
            _promise("defects escape", len(bad)),
            _promise("good parts are rejected", len(good)),
        ),
        len({parts.get(name, f"\0{name}") for name in names}) if parts else None,
    )  # fmt: skip


def _labelled(holding: Mapping[str, Decision]) -> set[str]:
    return {name for name, one in holding.items() if one.said != "unsure"}


def _promise(what: str, have: int) -> Promise:
    needs = [needed(alpha, CONFIDENCE) for alpha in ALPHAS]
    now = next((a for a, n in zip(ALPHAS[::-1], needs[::-1], strict=True) if have >= n), None)
    following = ((a, n) for a, n in zip(ALPHAS, needs, strict=True) if have < n)
    alpha, need = next(following, (None, needs[-1]))
    return Promise(what, have, alpha, need, now)
