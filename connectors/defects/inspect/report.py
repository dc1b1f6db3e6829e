"""What a line did: verdicts, the share sent, errors before and after the central model."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors.defects.inspect.journal import QUARANTINED

LABELS = {"ok": "ok", "good": "ok", "normal": "ok", "0": "ok", "ng": "ng", "bad": "ng", "1": "ng"}
ENDLESS = 3.4e38
"""Thresholds from here on are infinite ones, which JSON has no number for."""
MAX_LABEL_BYTES = 256 * 2**20


class LabelsError(ValueError):
    """A file of labels that cannot be used; says which line, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Errors:
    """How often verdicts were wrong.

    Attributes:
        missed: Defective images called OK.
        rejected: Good images called NG.
        undecided: Images left to a person.
        ng: Defective images in all.
        ok: Good images in all.
    """

    missed: int = 0
    rejected: int = 0
    undecided: int = 0
    ng: int = 0
    ok: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return counts and shares; a share of nothing is null."""
        return {
            "missed": self.missed,
            "rejected": self.rejected,
            "undecided": self.undecided,
            "ng": self.ng,
            "ok": self.ok,
            "miss_share": self.missed / self.ng if self.ng else None,
            "reject_share": self.rejected / self.ok if self.ok else None,
        }


@dataclass(frozen=True, slots=True)
class LineReport:
    """Everything that is told of a line.

    Attributes:
        images: All files in: ``edge`` sums to it.
        edge: Verdict of the edge -> images, quarantined ones among them.
        final: Final verdict -> images.
        quarantined: Rule -> files.
        sent: Images that the edge leaves to the central model, or to a person where there is none.
        edge_alone: Errors if the edge decided all, its doubtful band parted in the middle.
        cascade: Errors of the final verdicts.
    """

    images: int
    edge: dict[str, int]
    final: dict[str, int]
    quarantined: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    edge_alone: Errors | None = None
    cascade: Errors | None = None

    @property
    def sent_share(self) -> float:
        """Share of the judged images for which the edge asks."""
        judged = self.images - self.edge.get(QUARANTINED, 0)
        return self.sent / judged if judged else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "images": self.images,
            "edge": self.edge,
            "final": self.final,
            "quarantined": self.quarantined,
            "sent": self.sent,
            "sent_share": self.sent_share,
            "edge_alone": self.edge_alone and self.edge_alone.to_json(),
            "cascade": self.cascade and self.cascade.to_json(),
        }


def line_report(
    rows: Iterable[Mapping[str, Any]],
    labels: Mapping[str, str] | None = None,
    forgotten: Iterable[tuple[str, str, str, int]] = (),
) -> LineReport:
    """Sum a journal up.

    Args:
        rows: As `Journal.rows` gives them.
        labels: Name of an image -> ``ok`` or ``ng``, of those that people looked at.
        forgotten: As `Journal.forgotten` gives them; counted, but their errors are not known.
    """
    edge: Counter[str] = Counter()
    final: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    alone: Counter[tuple[str, str]] = Counter()
    cascade: Counter[tuple[str, str]] = Counter()
    for verdict, last, rule, images in forgotten:
        edge[verdict] += images
        final[last] += images
        rules.update({rule: images} if rule else {})
    for row in rows:
        edge[row["verdict"]] += 1
        final[row["final"]] += 1
        if row["refusal"]:
            rules[row["refusal"]["rule"]] += 1
        label = (labels or {}).get(row["name"])
        if label is not None and row["edge"]:
            alone[label, decided_alone(row["edge"])] += 1
            cascade[label, row["final"]] += 1
    return LineReport(
        edge.total(),
        dict(edge),
        dict(final),
        dict(rules),
        edge["REVIEW"],
        None if labels is None else errors_of(alone),
        None if labels is None else errors_of(cascade),
    )


def decided_alone(edge: Mapping[str, Any]) -> str:
    """Return what the edge would say without a third verdict: the middle of its band decides.

    Where the band has no end, its other end decides: what is not OK is NG, or the reverse.
    """
    if edge["verdict"] != "REVIEW":
        return str(edge["verdict"])
    low, high = edge["thresholds"]
    if high >= ENDLESS:
        return "NG"
    if low <= -ENDLESS:
        return "OK"
    return "NG" if edge["score"] >= low + (high - low) / 2 else "OK"


def errors_of(seen: Mapping[tuple[str, str], int]) -> Errors:
    """Sum up how often each (label, verdict) was seen."""
    return Errors(
        missed=seen.get(("ng", "OK"), 0),
        rejected=seen.get(("ok", "NG"), 0),
        undecided=seen.get(("ng", "REVIEW"), 0) + seen.get(("ok", "REVIEW"), 0),
        ng=sum(n for (label, _), n in seen.items() if label == "ng"),
        ok=sum(n for (label, _), n in seen.items() if label == "ok"),
    )


def read_labels(path: Path) -> dict[str, str]:
    """Read a CSV with the columns ``image`` and ``label`` (ok or ng, in any of `LABELS`).

    Raises:
        LabelsError: It is none.
    """
    if not path.is_file():
        raise LabelsError(f"there is no file {path}; name a CSV of labels")
    if path.stat().st_size > MAX_LABEL_BYTES:
        raise LabelsError(f"{path}: larger than {MAX_LABEL_BYTES >> 20} MiB; name a CSV of labels")
    labels: dict[str, str] = {}
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
        lines = csv.DictReader(handle)
        try:
            if not {"image", "label"} <= set(lines.fieldnames or ()):
                raise LabelsError(f"{path}: give it the columns 'image' and 'label'")
            for line in lines:
                label = LABELS.get(str(line["label"]).strip().lower())
                name, where = str(line["image"]), f"{path}, line {lines.line_num}"
                if label is None:
                    raise LabelsError(f"{where}: label {line['label']!r}; say ok or ng")
                if labels.setdefault(name, label) != label:
                    raise LabelsError(f"{where}: {name} is both ok and ng; decide")
        except csv.Error as error:
            raise LabelsError(f"{path}, line {lines.line_num + 1}: {error}; mend it") from error
    return labels
