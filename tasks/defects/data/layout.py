"""What the names in a folder say of its images: good or defective, which type, which mask.

Layouts that people have are told from names alone, so that the same names always give the same
answer; what was concluded is said in sentences, and `LayoutOptions` overrule it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from tasks.defects.data.pairing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    SPLIT_FOLDERS,
    Lookup,
    folders_of,
    mask_ending,
    stem_of,
)
from tasks.defects.samples import Label

TypesFrom = Literal["auto", "folder", "name", "none"]
MasksFrom = Literal["auto", "none", "folder", "ending", "beside"]
NORMAL = frozenset(
    {"normal", "normals", "good", "ok", "okay", "free", "pass", "passed", "fine", "perfect", "io"}
    | {"no defect", "no defects", "non defective", "nondefective", "defect free", "defectfree"}
    | {"without defect", "without defects", "nodefect", "anomaly free", "i o", "gut", "golden"}
)
"""Folders of good images, also of German lines (i.O.)."""
DEFECTIVE = frozenset(
    {"ng", "nok", "not ok", "not good", "bad", "defect", "defects", "defective", "faulty", "fail"}
    | {"failed", "reject", "rejects", "rejected", "anomaly", "anomalies", "anomalous", "abnormal"}
    | {"nio", "n i o", "scrap"}
)
"""Folders of defective images that name no type."""
UNSEEN = frozenset({"unlabelled", "unlabeled", "unsorted", "unknown", "inbox", "new", "todo"})
FILLERS = frozenset({"images", "image", "imgs", "parts", "part", "samples", "pieces", "pictures"})


class LayoutError(ValueError):
    """A folder whose layout cannot be told; says what was found and which option decides."""


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """What the person says of the layout, where names would mislead.

    Attributes:
        types_from: Where labels and types come from: names of ``folder``s, the ``name`` of the
            file up to its number (``crazing_12.jpg``), ``none`` (annotations alone), or ``auto``:
            folders where there are some.
        masks: Which files are masks: those in a mask ``folder``, with an ``ending`` such as
            ``_mask``, the PNG ``beside`` an image of the same stem, ``none``, or ``auto``: all
            three.
        normal: Further names of folders that hold good images.
    """

    types_from: TypesFrom = "auto"
    masks: MasksFrom = "auto"
    normal: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse choices that do not exist."""
        for name, choices in (("types_from", TypesFrom), ("masks", MasksFrom)):
            if getattr(self, name) not in get_args(choices):
                allowed = ", ".join(get_args(choices))
                raise LayoutError(f"{name} is {getattr(self, name)!r}; choose of {allowed}")


@dataclass(frozen=True, slots=True)
class Place:
    """What names say of one image.

    Attributes:
        image: Path within the folder.
        label: ``ok``, ``ng``, or None.
        kind: Type of the defect, "".
        mask: Path of its mask, "".
        split: ``train``, ``val`` or ``test`` by a folder of that name, "".
    """

    image: str
    label: Label | None = None
    kind: str = ""
    mask: str = ""
    split: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the names in a folder say.

    Attributes:
        places: One per image, in the order of the names.
        lost: Masks that belong to no image, or to several -> why.
        findings: What was concluded, for people.
    """

    places: tuple[Place, ...]
    lost: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


def find_layout(names: Sequence[str], options: LayoutOptions | None = None) -> Layout:
    """Find out what names say.

    Args:
        names: Paths of all image files within the folder, masks among them, with ``/``.
        options: What the person says.

    Raises:
        LayoutError: When every image would be a mask.
    """
    options = options or LayoutOptions()
    masks, lost, findings = _masks(names, options.masks)
    others = set(masks.values()) | set(lost)
    images = [name for name in names if name not in others]
    if names and not images:
        raise LayoutError("every image file looks like a mask; --masks none takes them as images")
    labels, said = _labels(images, options)
    places = tuple(
        Place(name, *labels[name], mask=masks.get(name, ""), split=_split(name)) for name in images
    )
    findings = [*said, *findings]
    splits = Counter(place.split for place in places if place.split)
    if splits:
        each = ", ".join(f"{n:,} in {name}" for name, n in sorted(splits.items()))
        findings.append(f"folders of a split: {each}; it is kept as the column split")
    return Layout(places, lost, tuple(findings))


def _split(name: str) -> str:
    return next(
        (SPLIT_FOLDERS[f] for f in map(str.lower, folders_of(name)) if f in SPLIT_FOLDERS), ""
    )


def _masks(
    names: Sequence[str], wanted: MasksFrom
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return image -> mask, masks without an image -> why, and sentences."""
    ways: dict[str, dict[str, str]] = {}  # way -> mask -> ending
    if wanted in {"auto", "folder"}:
        ways["folder"] = {
            name: mask_ending(name)
            for name in names
            if any(folder.lower() in MASK_FOLDERS for folder in folders_of(name))
        }
    if wanted in {"auto", "ending"}:
        ways["ending"] = {
            name: end
            for name in names
            if (end := mask_ending(name)) and name not in ways.get("folder", ())
        }
    marked = {name for way in ways.values() for name in way}
    images = [name for name in names if name not in marked]
    if wanted == "auto" and not images:
        return {}, {}, []  # a folder named labels that holds the images themselves
    found: dict[str, str] = {}
    lost: dict[str, str] = {}
    lookup = Lookup(images)
    findings = []
    for way, masks in ways.items():
        number = 0
        for mask, ending in masks.items():
            owners = lookup.of(mask, ending)
            if len(owners) == 1 and owners[0] not in found:
                found[owners[0]] = mask
                number += 1
            elif not owners:
                lost[mask] = "no image has its name"
            else:
                lost[mask] = (
                    f"{owners[0]} has a mask already"
                    if len(owners) == 1
                    else (f"{len(owners)} images have its name: {', '.join(owners[:3])}")
                )
        if number:
            where = "folders of masks" if way == "folder" else "files with an ending such as _mask"
            findings.append(f"masks: {number:,} in {where}")
    if wanted in {"auto", "beside"}:
        beside = _beside([name for name in images if name not in found], wanted == "beside")
        found |= beside
        if beside:
            findings.append(f"masks: {len(beside):,} PNG beside an image of the same name")
    return found, lost, findings


def _beside(names: Sequence[str], certain: bool) -> dict[str, str]:  # noqa: FBT001
    """Return image -> the mask of the same folder and stem.

    Unless told so, only where most PNG have such an image: else they are copies of some.
    """
    stems: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for name in names:
        stems.setdefault((folders_of(name), stem_of(name)), []).append(name)
    found: dict[str, str] = {}
    for alike in stems.values():
        masks = [name for name in alike if name.lower().endswith(".png")]
        images = [name for name in alike if name not in masks]
        if len(masks) == len(images) == 1:
            found[images[0]] = masks[0]
    every = sum(name.lower().endswith(".png") for name in names)
    return found if certain or 2 * len(found) > every else {}


def _labels(
    images: Sequence[str], options: LayoutOptions
) -> tuple[dict[str, tuple[Label | None, str]], list[str]]:
    """Return image -> label and type, and sentences."""
    normal = NORMAL | {_phrase(name) for name in options.normal}
    nothing: dict[str, tuple[Label | None, str]] = dict.fromkeys(images, (None, ""))
    if options.types_from == "none":
        return nothing, ["labels: none from names, as told"]
    if options.types_from == "name":
        named = {image: _name_class(stem_of(image)) for image in images}
        return _judged(named, normal, "names of the files, as told")
    folders = {image: _class_folders(image) for image in images}
    depth = _depth(list(folders.values()), normal, certain=options.types_from == "folder")
    if depth is None:
        return nothing, ["labels: none, no folders of good or of defective images were found"]
    classes = {i: f[depth] if len(f) > depth else "" for i, f in folders.items()}
    return _judged(classes, normal, "names of folders")


def _class_folders(image: str) -> tuple[str, ...]:
    skip = IMAGE_FOLDERS | SPLIT_FOLDERS.keys()
    return tuple(folder for folder in folders_of(image) if folder.lower() not in skip)


def _name_class(stem: str) -> str:
    return re.sub(r"[\s_.\-]*\(?[0-9]*\)?$", "", stem)


def _depth(
    folders: Sequence[tuple[str, ...]], normal: frozenset[str], *, certain: bool
) -> int | None:
    """Return at which depth folders are classes: where good ones lie, else the first to differ."""
    deepest = max(map(len, folders), default=0)
    levels = [sorted({f[d] for f in folders if len(f) > d}) for d in range(deepest)]
    for known in (normal, normal | DEFECTIVE):
        counts = [_how_many(level, known) for level in levels]
        if any(counts):
            return counts.index(max(counts))
    several = (d for d, level in enumerate(levels) if len(level) > 1)
    return next(several, 0 if certain and levels else None)


def _how_many(classes: Sequence[str], known: frozenset[str]) -> int:
    prefix = _common_prefix(classes, known)
    return sum(_phrase(name.removeprefix(prefix)) in known for name in classes)


def _common_prefix(classes: Sequence[str], normal: frozenset[str]) -> str:
    """Return what all classes begin with, where without it one of them is a good one (MT_Free)."""
    match = re.match(r"[^_\-\s]+[_\-\s]+", classes[0]) if len(classes) > 1 else None
    if match is None or not all(name.startswith(match[0]) for name in classes):
        return ""
    rest = [name.removeprefix(match[0]) for name in classes]
    return match[0] if all(rest) and any(_phrase(name) in normal for name in rest) else ""


def _judged(
    classes: Mapping[str, str], normal: frozenset[str], source: str
) -> tuple[dict[str, tuple[Label | None, str]], list[str]]:
    names = sorted({name for name in classes.values() if name})
    prefix = _common_prefix(names, normal)
    meanings = {name: _meaning(name.removeprefix(prefix), normal) for name in names}
    meanings[""] = None, ""
    counts = Counter(classes.values())
    said = [f"labels: by {source}"]
    for name in [*names, *([""] if counts[""] else [])]:
        label, kind = meanings[name]
        means = {"ok": "good", "ng": f"type {kind}" if kind else "defective, of no type"}
        said.append(
            f"  {name or '(no folder)'}: {counts[name]:,}, "
            f"{means[label] if label else 'nobody looked'}"
        )
    if not any(label == "ok" for label, _ in meanings.values()):
        said.append("  none of them is known as good; --normal NAME names one")
    return {image: meanings[name] for image, name in classes.items()}, said


def _meaning(name: str, normal: frozenset[str]) -> tuple[Label | None, str]:
    phrase = _phrase(name)
    if phrase in normal:
        return "ok", ""
    if phrase in DEFECTIVE:
        return "ng", ""
    return (None, "") if phrase in UNSEEN else ("ng", name)


def _phrase(name: str) -> str:
    """Return a name as lower-case words with a blank between, without words that say nothing."""
    words = [word for word in re.split(r"[\s_.\-]+", name.casefold()) if word]
    while len(words) > 1 and words[-1] in FILLERS:
        words.pop()
    return " ".join(words)
