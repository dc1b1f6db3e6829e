"""Splits, folds and label draws that never tear a group apart.

Every function takes a frame with the columns ``name``, ``group``, ``label`` (``ok``, ``ng``, null)
and ``kind``, as datasets have it, and gives the same answer for the same seed, whatever the order
of the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

NEEDED = ("name", "group", "label", "kind")


class SplitError(ValueError):
    """A split that cannot be made, or one that leaks; says why and what is missing."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Images that stay together: their names, and how many there are of each stratum."""

    names: tuple[str, ...]
    counts: Counter[str]

    @property
    def stratum(self) -> str:
        """The rarest use: what is labelled counts before what is not, defects before good ones."""
        return min(self.counts, key=lambda s: (s == "", s == "ok", -self.counts[s], s))


def split_groups(frame: pl.DataFrame, shares: Mapping[str, float], seed: int = 0) -> pl.DataFrame:
    """Split a dataset by groups, stratified by label and type as far as groups allow.

    Groups of each type are shuffled and go, the larger ones first, to the part that lacks most
    images of it. A part with a share above 0 gets a group of every type that has as many groups as
    there are such parts.

    Args:
        frame: A dataset's frame.
        shares: Part of the split -> share of the images; they sum to 1.
        seed: Of the shuffle.

    Returns:
        ``name`` and ``split``, by name.

    Raises:
        SplitError: When the shares do not sum to 1, or there are fewer groups than parts.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise SplitError(f"shares {dict(shares)}: give each part a positive share, 1 in all")
    groups = _groups(frame)
    if len(groups) < len(shares):
        raise SplitError(f"{len(groups)} groups for {len(shares)} parts; a group stays together")
    rng = np.random.default_rng(seed)
    totals: Counter[str] = Counter()
    for group in groups:
        totals += group.counts
    lacking = {part: {s: share * n for s, n in totals.items()} for part, share in shares.items()}
    chosen: dict[str, str] = {}
    for stratum in sorted(totals, key=lambda s: (totals[s], s)):
        own = _shuffled([g for g in groups if g.stratum == stratum], rng)
        own.sort(key=lambda g: -g.counts.total())  # stable: equal sizes stay shuffled
        empty = set(shares)
        for place, group in enumerate(own):
            # The last groups go to parts that would stay without this type.
            allowed = empty if empty and len(own) - place <= len(empty) else set(shares)
            part = max(
                sorted(allowed), key=lambda p: (lacking[p][stratum] / totals[stratum], shares[p])
            )
            empty.discard(part)
            for s, n in group.counts.items():
                lacking[part][s] -= n
            chosen |= dict.fromkeys(group.names, part)
    return _split_frame(chosen)


def k_folds(frame: pl.DataFrame, k: int, seed: int = 0) -> pl.DataFrame:
    """Return ``name`` and ``split`` (``0`` to ``k - 1``) of a cross-validation by groups.

    Raises:
        SplitError: When ``k`` is below 2 or above the number of groups.
    """
    if k < 2:
        raise SplitError(f"k is {k}; give 2 or more folds")
    return split_groups(frame, {str(fold): 1 / k for fold in range(k)}, seed)


def draw_labels(
    frame: pl.DataFrame, per_kind: int, ok: int = 0, extra: int = 0, seed: int = 0
) -> list[str]:
    """Draw the few images that a person would label, one of a group.

    Args:
        frame: A dataset's frame, or that of a part of its split.
        per_kind: Defective images of each type; those without a type are one type.
        ok: Good images.
        extra: Further defective images, of whatever type comes.
        seed: Of the draw.

    Returns:
        Names, sorted. Groups of the drawn ones that hold further images are the caller's to leave
        out of any test: `rest_of` does it.

    Raises:
        SplitError: When a type or the good ones have too few groups; names it and both numbers.
    """
    if min(per_kind, ok, extra) < 0:
        raise SplitError(f"per_kind {per_kind}, ok {ok}, extra {extra}: give 0 or more")
    rng = np.random.default_rng(seed)
    known = frame.filter(pl.col("label").is_not_null()).sort("name")
    strata: dict[str, list[tuple[int, str]]] = {}
    for name, group, label, kind in known.select(NEEDED).iter_rows():
        strata.setdefault("\0ok" if label == "ok" else kind, []).append((group, name))
    wanted = [(kind, per_kind) for kind in strata if kind != "\0ok"] + [("\0ok", ok)]
    # Rare types choose first: a group that holds two of them is used up by one.
    wanted.sort(key=lambda one: (len({g for g, _ in strata.get(one[0], ())}), one[0]))
    drawn: list[str] = []
    used: set[int] = set()
    for kind, number in wanted:
        free = _one_of_each(strata.get(kind, ()), used, rng)
        if len(free) < number:
            what = "good images" if kind == "\0ok" else f"type {kind or '(none)'}"
            raise SplitError(
                f"{what}: {number} wanted, but only {len(free)} groups are left; ask for fewer"
            )
        used |= {group for group, _ in free[:number]}
        drawn += [name for _, name in free[:number]]
    rest = [one for kind, each in sorted(strata.items()) if kind != "\0ok" for one in each]
    free = _one_of_each(rest, used, rng)
    if len(free) < extra:
        raise SplitError(f"extra: {extra} wanted, but only {len(free)} groups are left")
    return sorted([*drawn, *(name for _, name in free[:extra])])


def rest_of(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return the rows of all groups that none of the names belongs to.

    Raises:
        SplitError: When a name is not in the frame.
    """
    taken = frame.filter(pl.col("name").is_in(list(names)))
    if taken.height < len(set(names)):
        missing = min(set(names) - set(taken["name"]))
        raise SplitError(f"{missing} is not in the dataset")
    return frame.filter(~pl.col("group").is_in(taken["group"].unique().to_list()))


def check_split(frame: pl.DataFrame, split: pl.DataFrame) -> None:
    """Make sure that a split fits to a dataset and leaks nothing.

    Args:
        frame: A dataset's frame.
        split: ``name`` and ``split``; images of the dataset may be missing in it.

    Raises:
        SplitError: When a name occurs twice or is of no image, or a group straddles; names both
            images.
    """
    if not {"name", "split"} <= set(split.columns):
        raise SplitError(f"columns {split.columns}: a split has name and split")
    if split["name"].n_unique() < split.height:
        twice = split["name"].filter(split["name"].is_duplicated())[0]
        raise SplitError(f"{twice} occurs twice in the split")
    joined = split.join(frame.select("name", "group"), on="name", how="left").sort("name")
    strange = joined.filter(pl.col("group").is_null())["name"]
    if len(strange):
        raise SplitError(
            f"{strange[0]} and {len(strange) - 1} more of the split are not in the dataset"
        )
    first: dict[int, tuple[str, str]] = {}
    for name, part, group in joined.select("name", "split", "group").iter_rows():
        other, held = first.setdefault(group, (name, part))
        if held != part:
            raise SplitError(
                f"group {group} straddles: {other} is in {held}, {name} in {part}; they show one "
                "part or are nearly the same picture"
            )


def _groups(frame: pl.DataFrame) -> list[_Group]:
    """Return the groups by their first name, so that the order of rows does not count."""
    lacking = [name for name in NEEDED if name not in frame.columns]
    if lacking:
        raise SplitError(f"the frame lacks the columns {', '.join(lacking)}")
    held: dict[int, list[tuple[str, str]]] = {}
    for name, group, label, kind in frame.select(NEEDED).sort("name").iter_rows():
        stratum = "" if label is None else "ok" if label == "ok" else f"ng {kind}"
        held.setdefault(group, []).append((name, stratum))
    return [
        _Group(tuple(name for name, _ in each), Counter(stratum for _, stratum in each))
        for each in held.values()
    ]


def _shuffled(groups: list[_Group], rng: np.random.Generator) -> list[_Group]:
    return [groups[i] for i in rng.permutation(len(groups))]


def _one_of_each(
    images: Sequence[tuple[int, str]], used: set[int], rng: np.random.Generator
) -> list[tuple[int, str]]:
    """Return an image of each group that is not used up, both drawn at random."""
    free: dict[int, list[str]] = {}
    for group, name in images:
        if group not in used:
            free.setdefault(group, []).append(name)
    each = list(free.items())
    order = rng.permutation(len(each))
    return [(each[i][0], str(rng.choice(each[i][1]))) for i in order]


def _split_frame(chosen: Mapping[str, str]) -> pl.DataFrame:
    rows = sorted(chosen.items())
    return pl.DataFrame(rows, schema={"name": pl.String, "split": pl.String}, orient="row")
