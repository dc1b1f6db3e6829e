"""What people said of images, decision by decision: one JSON line each, none is ever taken out.

A decision says all that holds of one image from then on. One that is undone stays in the history,
and what was said of the image before holds again.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast, get_args

from tasks.defects.judgement import UNKNOWN
from tasks.defects.samples import Box, SampleError

Said = Literal["ok", "ng", "unsure"]
MAX_LINE = 1 << 16
MAX_BOXES = 64
MAX_KIND = 60
MAX_SIDE = 1 << 20


class LabelError(ValueError):
    """A label that cannot be; says what, where and how to mend it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What one person said of one image.

    Attributes:
        id: Unique in the history.
        image: Path within the dataset.
        said: ``ok``, ``ng`` or ``unsure``.
        kind: Type of the defect, "" where it has none or nobody named it.
        boxes: Rectangles of defects.
        who: User name.
        when: In UTC, to the second.
        drawn: Whether the image was shown because a random draw came to it.
    """

    id: str
    image: str
    said: Said
    kind: str = ""
    boxes: tuple[Box, ...] = ()
    who: str = ""
    when: str = ""
    drawn: bool = False

    def __post_init__(self) -> None:
        """Reject what contradicts itself, naming the fix."""
        if self.said not in get_args(Said):
            raise LabelError(f"{self.image}: {self.said!r} is no decision")
        if self.said != "ng" and (self.kind or self.boxes):
            raise LabelError(
                f"{self.image}: {self.said} with a type or a box; take those away, or say NG"
            )
        if len(self.boxes) > MAX_BOXES:
            raise LabelError(f"{self.image}: more than {MAX_BOXES} boxes; draw one around many")
        for kind in (self.kind, *(box.kind for box in self.boxes)):
            checked_kind(kind)
        for box in self.boxes:
            if not 0 <= min(box.left, box.top) <= max(box.right, box.bottom) <= MAX_SIDE:
                raise LabelError(f"{self.image}: a box lies outside of the image; draw it again")

    def line(self) -> str:
        """Return it as a line of the history."""
        boxes = [[box.left, box.top, box.right, box.bottom, box.kind] for box in self.boxes]
        names = ("id", "image", "said", "kind", "who", "when", "drawn")
        facts = {name: getattr(self, name) for name in names}
        return json.dumps({**facts, "boxes": boxes}, ensure_ascii=True) + "\n"


@dataclass(frozen=True, slots=True)
class Undo:
    """A decision taken back.

    Attributes:
        undone: Id of the decision.
        who: User name.
        when: In UTC, to the second.
    """

    undone: str
    who: str = ""
    when: str = ""

    def line(self) -> str:
        """Return it as a line of the history."""
        return json.dumps({"undone": self.undone, "who": self.who, "when": self.when}) + "\n"


@dataclass(slots=True)
class History:
    """All decisions in order, and what holds of each image by them.

    Attributes:
        decisions: By id, in order, those that were undone among them.
        undone: Ids of the decisions taken back.
    """

    decisions: dict[str, Decision] = field(default_factory=dict)
    undone: set[str] = field(default_factory=set)
    _by_image: dict[str, list[str]] = field(default_factory=dict)

    def add(self, entry: Decision | Undo) -> None:
        """Add what was said next.

        Raises:
            LabelError: When the id was used before, or what is undone never was said or was
                undone before.
        """
        if isinstance(entry, Undo):
            if entry.undone not in self.decisions or entry.undone in self.undone:
                raise LabelError("nothing to undo: that decision is not there, or undone already")
            self.undone.add(entry.undone)
            self._by_image[self.decisions[entry.undone].image].remove(entry.undone)
            return
        if entry.id in self.decisions:
            raise LabelError(f"two decisions have the id {entry.id!r}")
        self.decisions[entry.id] = entry
        self._by_image.setdefault(entry.image, []).append(entry.id)

    def holds(self, image: str) -> Decision | None:
        """Return what holds of an image, None where nobody said anything."""
        ids = self._by_image.get(image)
        return self.decisions[ids[-1]] if ids else None

    def holding(self) -> Mapping[str, Decision]:
        """Return what holds by image, in the order in which images were first looked at."""
        return {image: self.decisions[ids[-1]] for image, ids in self._by_image.items() if ids}

    def copy(self) -> History:
        """Return a history of its own that says the same."""
        by_image = {image: list(ids) for image, ids in self._by_image.items()}
        return History(dict(self.decisions), set(self.undone), by_image)

    def by_time(self) -> list[Decision]:
        """Return what holds, in the order in which it was said."""
        holding = self.holding()
        return [one for one in self.decisions.values() if holding.get(one.image) is one]

    def drawn(self) -> set[str]:
        """Return the images that were labelled because a draw came to them."""
        held = (self.decisions[one] for ids in self._by_image.values() for one in ids)
        return {one.image for one in held if one.drawn}

    def last(self) -> Decision | None:
        """Return the last decision that was not undone, None where there is none."""
        ids = (one for one in reversed(self.decisions) if one not in self.undone)
        return self.decisions[found] if (found := next(ids, None)) else None

    def kinds(self) -> list[str]:
        """Return the types of what holds, in the order in which they were first named."""
        found: dict[str, None] = {}
        for decision in self.holding().values():
            for kind in (decision.kind, *(box.kind for box in decision.boxes)):
                if kind:
                    found.setdefault(kind)
        return list(found)


def checked_kind(kind: str) -> str:
    """Return the name of a type, without blanks around it.

    Raises:
        LabelError: When it is too long, holds signs that do not print, or means something else.
    """
    name = kind.strip()
    if len(name) > MAX_KIND or any(unicodedata.category(sign)[0] == "C" for sign in name):
        raise LabelError(f"a type's name has at most {MAX_KIND} characters, all of which print")
    if name.lower() in {UNKNOWN, "ok", "ng"} or name.startswith(("=", "+", "-", "@")):
        raise LabelError(f"{name!r} cannot be the name of a type; choose another word")
    return name


def parsed(data: bytes, source: str) -> Iterator[Decision | Undo]:
    """Yield the entries of a history's bytes; all lines of it must be whole.

    Raises:
        LabelError: With the number of the line that is none.
    """
    for number, line in enumerate(data.splitlines(), 1):
        try:
            if len(line) > MAX_LINE:
                raise LabelError(f"longer than {MAX_LINE:,} bytes")
            yield _entry(json.loads(line))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise LabelError(
                f"{source}, line {number}: no decision ({what}); put back the file's last copy, "
                "or take that line out"
            ) from error


def _entry(said: Any) -> Decision | Undo:
    if not isinstance(said, dict):
        raise LabelError("no JSON object")
    who, when = _text(said.get("who", "")), _text(said.get("when", ""))
    if when:
        datetime.fromisoformat(when)
    if "undone" in said:
        return Undo(_text(said["undone"]), who, when)
    boxes = said.get("boxes", [])
    if not isinstance(boxes, list):
        raise LabelError("boxes are no list")
    return Decision(
        _text(said["id"]), _text(said["image"]), cast("Said", _text(said["said"])),
        _text(said.get("kind", "")), tuple(_box(*box) for box in boxes),
        who, when, said.get("drawn") is True,
    )  # fmt: skip


def _box(left: Any, top: Any, right: Any, bottom: Any, kind: Any) -> Box:
    box = Box(float(left), float(top), float(right), float(bottom), _text(kind))
    if not math.isfinite(box.left + box.top + box.right + box.bottom):
        raise SampleError("a corner of a box is no finite number")
    return box


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
