"""What labelled corrections say about how values were spoilt, put to use on other cells.

Three kinds, each learned from pairs of a wrong text and the right one: a text that was always
corrected to the same; what was cut off an end or added to it (" oz", perhaps with zeros after a
point); characters that stand in for others ("x" for any letter), for which the column's own texts
and words are looked up. (Corrections as value transformations: Baran, Mahdavi and Abedjan, VLDB
2020.)
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
WORD = re.compile(r"[^\s_/,;-]+")
CLEAR = 5  # times as often as all other candidates together
LEAST_STANDINS = 3  # corrections that show a character in the place of others
LEAST_REPLACED = 2  # different characters that it stood for

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Cut:
    """A text cut off one end, another put there.

    Attributes:
        old: What stood there.
        new: What belongs there.
        tail: Whether it is the end; else the beginning.
        tidy: Whether zeros after a point go, too.
    """

    old: str
    new: str = ""
    tail: bool = True
    tidy: bool = False

    def __call__(self, text: str) -> str | None:
        """Return the rewritten text, None where it does not apply."""
        if not (text.endswith(self.old) if self.tail else text.startswith(self.old)):
            return None
        kept = text[: len(text) - len(self.old)] if self.tail else text[len(self.old) :]
        if self.tidy:
            if not NUMBER.fullmatch(kept):
                return None
            kept = tidied(kept)
        made = kept + self.new if self.tail else self.new + kept
        return made if kept and made != text else None


def tidied(number: str) -> str:
    """Return a number without zeros that end its fraction.

    >>> tidied("12.0"), tidied("0.50"), tidied("30")
    ('12', '0.5', '30')
    """
    return number.rstrip("0").rstrip(".") if "." in number else number


def cut_of(before: str, after: str) -> Cut | None:
    """Return the smallest cut at one end that makes one text of another.

    >>> cut_of("16.0 oz. can", "16")
    Cut(old=' oz. can', new='', tail=True, tidy=True)
    >>> cut_of("0.05%", "0.05")
    Cut(old='%', new='', tail=True, tidy=False)
    """
    for end in range(len(before) - 1, 0, -1):
        head = before[:end]
        if NUMBER.fullmatch(head) and after in {head, tidied(head)}:
            return Cut(before[end:], tidy=after != head)
    same = _common(before, after)
    behind = _common(before[::-1], after[::-1])
    if max(same, behind) < max(1, min(len(before), len(after)) // 2):
        return None
    if same >= behind:
        return Cut(before[same:], after[same:])
    n = len(before) - behind, len(after) - behind
    return Cut(before[: n[0]], after[: n[1]], tail=False)


def _common(a: str, b: str) -> int:
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def standins(pairs: Iterable[Pair]) -> frozenset[str]:
    """Return the characters that corrections show in the place of several others."""
    replaced: dict[str, set[str]] = defaultdict(set)
    seen: Counter[str] = Counter()
    for before, after in set(pairs):
        if len(before) != len(after):
            continue
        put = {(a, b) for a, b in zip(before, after, strict=True) if a != b}
        if 2 * sum(a != b for a, b in zip(before, after, strict=True)) > len(before):
            continue  # another text, not a spoilt one
        for a, b in put:
            replaced[a].add(b)
        seen.update({a for a, _ in put})
    return frozenset(
        c for c, others in replaced.items()
        if seen[c] >= LEAST_STANDINS and len(others) >= LEAST_REPLACED
    )  # fmt: skip


@dataclass(slots=True)
class Rewrites:
    """What was learned for one column.

    Attributes:
        exact: Text -> the one text that it was always corrected to.
        cuts: Cuts, the most specific first.
        standins: See :func:`standins`.
        texts: Texts of the column that are taken for right, with their counts.
    """

    exact: Mapping[str, str]
    cuts: Sequence[Cut]
    standins: frozenset[str]
    texts: Mapping[str, int]
    _words: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Count the words of the texts."""
        for text in self.texts:
            self._words.update(set(WORD.findall(text)))

    def suggest(self, text: str) -> tuple[str, str] | None:
        """Return a rule and what the text should be, None where nothing that was learned fits."""
        if text in self.exact:
            return "same-text", self.exact[text]
        for cut in self.cuts:
            made = cut(text)
            if made is not None:
                return "cut", made
        found = self._filled_in(text)
        return ("stand-in", found) if found is not None and found != text else None

    def _filled_in(self, text: str) -> str | None:
        """Return the text with characters looked up where stand-ins are."""
        if not self.standins & set(text):
            return None
        found = self._clear(text, self.texts)
        if found is not None:
            return found
        failed = False

        def word(match: re.Match[str]) -> str:
            nonlocal failed
            part = match.group()
            # A digit that was lost is not found again in other numbers.
            if not self.standins & set(part) or part in self._words:
                return part
            known = None if re.search(r"\d", part) else self._clear(part, self._words)
            failed |= known is None
            return part if known is None else known

        made = WORD.sub(word, text)
        return None if failed else made

    def _clear(self, text: str, known: Mapping[str, int]) -> str | None:
        """Return the known text that fits; of several the one that is far more common."""
        shape = re.compile(
            "".join("." if c in self.standins else re.escape(c) for c in text), re.DOTALL
        )
        fits = {one: n for one, n in known.items() if one != text and shape.fullmatch(one)}
        if not fits:
            return None
        best = max(sorted(fits), key=fits.__getitem__)
        others = sum(fits.values()) - fits[best]
        return best if fits[best] >= CLEAR * others else None


def learned(
    corrections: Sequence[Pair],
    kept: Iterable[str],
    shared: frozenset[str],
    texts: Mapping[str, int],
) -> Rewrites:
    """Learn a column's rewrites.

    Args:
        corrections: Wrong and right texts of labelled cells.
        kept: Texts of labelled cells that were right; nothing that would change one is learned.
        shared: Stand-ins of the whole table.
        texts: Texts of the column taken for right, with counts.
    """
    right = set(kept)
    by_text: dict[str, set[str]] = defaultdict(set)
    for before, after in corrections:
        by_text[before].add(after)
    # What stands in for others was lost: the same text need not have been the same twice.
    exact = {
        a: min(b)
        for a, b in by_text.items()
        if len(b) == 1 and a not in right and not shared & set(a)
    }
    cuts = {cut for pair in corrections if (cut := cut_of(*pair)) is not None}
    good = [
        cut
        for cut in cuts
        if cut.old
        and not shared & set(cut.old)
        and all(cut(before) in {None, after} for before, after in corrections)
        and not any(cut(text) for text in right)
    ]
    good.sort(key=lambda cut: (-len(cut.old), cut.old, cut.new))
    return Rewrites(exact, good, shared, texts)
