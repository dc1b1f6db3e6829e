"""Strangers' texts on a page: short, every character visible, what differs marked."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher

from markupsafe import Markup, escape

MAX_TEXT = 200
"""Characters of a value on the page."""
CONTEXT = 24
"""Characters before the first and after the last that differs, where a text is shortened."""
ALIKE = 0.5
"""Share of characters in common from which on single ones are marked."""
WHITE = {"\n": "↵", "\r": "␍", "\t": "⇥", "\0": "␀"}
HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}


def shown(text: str | None) -> Markup:
    """Return a text as markup: shortened, characters without a shape of their own written as codes.

    >>> shown("a" + chr(0x202E) + "b")
    Markup('a<i class="sign">U+202E</i>b')
    """
    if not text:
        return Markup('<i class="none">{}</i>').format("missing" if text is None else "empty")
    if len(text) <= MAX_TEXT:
        return visible(text)
    return visible(text[:MAX_TEXT]) + _left_out(len(text) - MAX_TEXT)


def visible(text: str) -> Markup:
    """Return a text as markup in which no character is hidden or changes the order of others."""
    return Markup().join(_signs(text))


def difference(before: str | None, after: str | None) -> tuple[Markup, Markup]:
    """Return two texts as markup, with what differs marked character by character.

    Long texts are shortened to the part that differs and what stands beside it.

    >>> difference("5 kg", "5")[0]
    Markup('5<mark> kg</mark>')
    """
    if not before or not after:
        return shown(before), shown(after)
    start = _alike(before, after)
    end = _alike(before[start:][::-1], after[start:][::-1])
    head, tail = before[:start], before[len(before) - end :]
    inner = _edits(before[start : len(before) - end], after[start : len(after) - end])
    if len(head) + len(tail) > MAX_TEXT:
        cut = head[: max(len(head) - CONTEXT, 0)], tail[CONTEXT:]
        head, tail = head[len(cut[0]) :], tail[:CONTEXT]
        around = _left_out(len(cut[0])) + visible(head), visible(tail) + _left_out(len(cut[1]))
    else:
        around = visible(head), visible(tail)
    return around[0] + inner[0] + around[1], around[0] + inner[1] + around[1]


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def _edits(one: str, other: str) -> tuple[Markup, Markup]:
    """Return two texts marked where they differ; all of them where they have little in common."""
    if max(len(one), len(other)) > MAX_TEXT:
        return _mark(shown(one) if one else ""), _mark(shown(other) if other else "")
    match = SequenceMatcher(None, one, other, autojunk=False)
    if match.ratio() < ALIKE:
        return _mark(visible(one)), _mark(visible(other))
    left, right = Markup(), Markup()
    for kind, i, j, k, m in match.get_opcodes():
        if kind == "equal":
            left, right = left + visible(one[i:j]), right + visible(other[k:m])
        else:
            left, right = left + _mark(visible(one[i:j])), right + _mark(visible(other[k:m]))
    return left, right


def _mark(text: str) -> Markup:
    return Markup("<mark>{}</mark>").format(text) if text else Markup()


def _left_out(number: int) -> Markup:
    if not number:
        return Markup()
    return Markup('<i class="none"> … {} characters … </i>').format(f"{number:,}")


def _signs(text: str) -> Iterator[Markup]:
    for kind, part in _runs(text):
        if not kind:
            yield escape(part)
            continue
        for sign in part:
            name = WHITE.get(sign, f"U+{ord(sign):04X}")
            yield Markup('<i class="sign">{}</i>').format(name)


def _runs(text: str) -> Iterable[tuple[bool, str]]:
    """Return runs of signs that are shown as they are, and of those that are not."""
    start = 0
    hidden = [sign != " " and unicodedata.category(sign) in HIDDEN for sign in text]
    for at in range(1, len(text) + 1):
        if at == len(text) or hidden[at] != hidden[start]:
            yield hidden[start], text[start:at]
            start = at
