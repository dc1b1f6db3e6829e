"""A line's watch: all that is watched together, alarms in words, one small state.

Every number that is watched has its own evidence. With d of them, each alarms at d times the
``arl`` asked for, so the chance that any alarms by chance within t parts is at most t / ``arl``,
however they depend on each other, and the mean time to a false alarm is at least half of ``arl``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.defects.promise.bounds import bound
from tasks.defects.samples import Pixels
from tasks.defects.watch.camera import CameraReference, Placement
from tasks.defects.watch.evidence import Evidence
from tasks.defects.watch.exposure import PERCENTILES
from tasks.defects.watch.ranks import RankWatch
from tasks.defects.watch.rates import RateWatch
from tasks.defects.watch.view import View

VERSION = 1
KEPT = 15
"""Placements and names of unknown defects that are remembered for the words of an alarm."""
LEAST = 40
"""Parts that a watch learns from."""
MAX_STATE = 1 << 20
"""Characters of a state that is read."""


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """What is promised of a watch.

    Attributes:
        arl: The chance of a false alarm of any kind within t parts is at most t / ``arl``.
        unknown_limit: Share of parts that may have a defect of unknown type as long as no new type
            has come: the false-unknown rate promised by the open-set detector.
        seed: Halves the reference and orders equal numbers.
    """

    arl: float = 10_000.0
    unknown_limit: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 100 <= self.arl < math.inf:
            raise ValueError(f"arl is {self.arl}; give at least 100 parts to a false alarm")


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something has changed.

    Attributes:
        about: ``scores``, ``brightness``, ``camera`` or ``unknown``.
        what: What was watched, e.g. ``brightness_p50``.
        at: Parts seen since the reference.
        message: In words, with what to do.
        evidence: That something changed.
        needed: What is enough for an alarm: of one number the mean parts to a false one, at least.
    """

    about: str
    what: str
    at: int
    message: str
    evidence: float
    needed: float


@dataclass(slots=True)
class LineWatch:
    """A line, watched; give it one image of each part.

    Attributes:
        ranks: Numbers watched, by name.
        unknown: Rate of defects of unknown type.
        camera: What images are held against, None where the camera cannot be judged.
        not_judged: What is not watched, and why.
        seen: Parts since the reference.
        placements: The last of them.
        names: Of the last images with an unknown defect.
    """

    ranks: dict[str, RankWatch]
    unknown: RateWatch
    camera: CameraReference | None
    not_judged: dict[str, str]
    seen: int = 0
    placements: list[Placement] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @classmethod
    def learn(
        cls, images: Sequence[Pixels], scores: Sequence[float], config: WatchConfig | None = None
    ) -> LineWatch:
        """Learn from good days of the line, with as many defects among the parts as are usual.

        Args:
            images: One of each part, at least `LEAST`.
            scores: The model's, of the same images, none of which it has learnt from.
            config: What is promised.

        Raises:
            ValueError: Too few images, or not one score each.
        """
        if len(images) != len(scores):
            raise ValueError(f"{len(images)} images and {len(scores)} scores; give one score each")
        return cls.learn_from(list(map(View.of, images, scores)), config)

    @classmethod
    def learn_from(cls, views: Sequence[View], config: WatchConfig | None = None) -> LineWatch:
        """Learn from views of at least `LEAST` parts, of which pixels need not be kept.

        Raises:
            ValueError: Too few.
        """
        config = config or WatchConfig()
        if len(views) < LEAST:
            raise ValueError(f"{len(views)} images; give one of each of at least {LEAST} parts")
        order = np.random.default_rng(config.seed).permutation(len(views))
        views = [views[i] for i in order]
        numbers = {name: [one.brightness[name] for one in views] for name in views[0].brightness}
        numbers["score"] = [one.score for one in views]
        camera, lying, why = CameraReference.learn([one.small for one in views])
        if not why:
            for name in Placement._fields:
                numbers[f"camera_{name}"] = [float(getattr(one, name)) for one in lying]
        each = config.arl * (len(numbers) + 1)
        ranks = {
            name: RankWatch.learn(values, each, config.seed + place)
            for place, (name, values) in enumerate(numbers.items())
        }
        usual = _usual(sum(one.unknown for one in views), len(views), config.unknown_limit)
        unknown = RateWatch.start(usual, each)
        return cls(ranks, unknown, None if why else camera, {"camera": why} if why else {})

    def look(
        self, pixels: Pixels, score: float, *, unknown: bool = False, name: str = ""
    ) -> list[Alarm]:
        """Take in the next part; return alarms, most often none.

        Args:
            pixels: One image of it, uint8 [h, w] or [h, w, 3].
            score: The model's.
            unknown: Whether a defect of unknown type was found.
            name: Of the image, for the words of an alarm.
        """
        return self.look_at(View.of(pixels, score, unknown=unknown), name)

    def look_at(self, view: View, name: str = "") -> list[Alarm]:
        """Take in the view of the next part; return alarms, most often none."""
        self.seen += 1
        numbers = {"score": view.score, **view.brightness}
        if self.camera is not None:
            placement = self.camera.place(view.small)
            self.placements = [*self.placements[1 - KEPT :], placement]
            numbers |= {f"camera_{key}": value for key, value in placement._asdict().items()}
        alarms = []
        for key, value in numbers.items():
            if move := self.ranks[key].look(value):
                alarms.append(self._alarm(key, move, self.ranks[key].evidence))
        if view.unknown:
            self.names = [*self.names[1 - KEPT :], name]
        if self.unknown.look(hit=view.unknown):
            alarms.append(self._alarm("unknown", "", self.unknown.evidence))
        return alarms

    def _alarm(self, key: str, move: str, evidence: Evidence) -> Alarm:
        about = key.split("_", maxsplit=1)[0]
        if about == "score":
            text = f"scores have changed ({move}): check light and parts, then calibrate anew"
        elif about == "brightness":
            text = (
                f"exposure has changed ({key.removeprefix('brightness_')} {move}): check the lamp"
            )
        elif about == "camera":
            right, down, turn, zoom = np.median(np.array(self.placements), axis=0)
            text = (
                f"the camera or the part has moved: {right:+.1%} of the width to the right, "
                f"{down:+.1%} of the height down, turned by {turn:+.1f} degrees, things "
                f"{np.expm1(zoom):+.1%} larger"
            )
        else:
            last = ", ".join(one for one in self.names if one)
            text = (
                f"more unknown defects than the {self.unknown.limit:.2%} promised or usual "
                f"({self.unknown.hits} of {self.unknown.seen}): a new type? "
                f"look at {last or 'them'}"
            )
        about = "scores" if about == "score" else about
        return Alarm(about, key, self.seen, text, evidence.reached, evidence.arl)

    def to_json(self) -> str:
        """Return the state, a few tens of kilobytes, whatever was seen."""
        return json.dumps(self.state(), allow_nan=False)

    def state(self) -> dict[str, Any]:
        """Return what `restored` needs, as plain JSON values; ``camera`` is most and stays."""
        return {
            "version": VERSION,
            "ranks": {name: one.state() for name, one in self.ranks.items()},
            "unknown": self.unknown.state(),
            "camera": self.camera.state() if self.camera else None,
            "not_judged": self.not_judged,
            "seen": self.seen,
            "placements": [list(one) for one in self.placements],
            "names": self.names,
        }

    @classmethod
    def from_json(cls, text: str) -> LineWatch:
        """Return the watch of a state; it goes on as if it had never stopped.

        Raises:
            ValueError: No state of this version.
        """
        if len(text) > MAX_STATE:
            raise ValueError(f"{len(text):,} characters are no state of a watch")
        return cls.restored(json.loads(text))

    @classmethod
    def restored(cls, state: dict[str, Any]) -> LineWatch:
        """Return the watch of a state.

        Raises:
            ValueError: No state of this version.
        """
        try:
            if state["version"] != VERSION:
                raise ValueError(f"version {state['version']} of a watch; this is {VERSION}")
            made = cls(
                {str(name): RankWatch.restored(one) for name, one in state["ranks"].items()},
                RateWatch.restored(state["unknown"]),
                CameraReference.restored(state["camera"]) if state["camera"] else None,
                {str(k): str(v) for k, v in state["not_judged"].items()},
                int(state["seen"]),
                [Placement(*(float(v) for v in one)) for one in state["placements"][-KEPT:]],
                [str(one) for one in state["names"][-KEPT:]],
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"no state of a watch ({error!r}); learn the watch anew") from error
        if set(made.ranks) != set(_watched(camera=made.camera is not None)):
            raise ValueError(f"a watch of {', '.join(made.ranks)} alone; learn the watch anew")
        return made


def _usual(unknown: int, parts: int, promised: float) -> float:
    """Return the rate of unknown defects that is no alarm: what was promised, if that can be so.

    Of a model that called more unknown on good days, only what is above that is news.
    """
    if not unknown or 1 - bound(parts, parts - unknown + 1, 0.99) <= promised:
        return promised
    return min(bound(parts, min(unknown + 1, parts), 0.95), 0.99)


def _watched(*, camera: bool) -> list[str]:
    """Return the names of the numbers that are watched."""
    lying = [f"camera_{name}" for name in Placement._fields] if camera else []
    return [*(f"brightness_p{q:02d}" for q in PERCENTILES), "score", *lying]
