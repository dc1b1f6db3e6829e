"""What a reason catalogue holds, checked on construction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tasks.explain.catalogue.template import FIXED, NUMBERS, fields, split
from tasks.explain.errors import CatalogueError
from tasks.explain.groups import FeatureMeaning
from tasks.explain.languages import LANGUAGES, Language

MOST_REASONS = 4
"""The commentary on 12 CFR 1002.9(b)(2) calls more reasons not likely to be helpful."""

_CODE = re.compile(r"[A-Z][A-Z0-9]{0,7}((?:-\{(?:entity|window|column)\})*)")
_ANY = "*"
_FORMS = "ENTITY/activity/WINDOW, ENTITY/labels, transaction/COLUMN or all/embedding"


@dataclass(frozen=True, slots=True)
class Text:
    """One text in each language."""

    en: str
    zh: str

    def of(self, language: Language) -> str:
        """Return the text in one language."""
        return self.zh if language == "zh" else self.en


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which groups an entry is for; ``*`` stands for any entity, window or column.

    Attributes:
        text: As written, for example ``"*/activity/7d"``.
        theme: Kind of evidence.
        entity: Entity column, ``*``, or empty for the transaction and the graph network.
        what: Window (``last`` for none), column or ``*``; empty for labels and embeddings.
    """

    text: str
    theme: str
    entity: str
    what: str

    @classmethod
    def read(cls, text: str) -> Pattern:
        """Read a pattern.

        Raises:
            CatalogueError: When no group can have this key.

        >>> Pattern.read("*/activity/7d").theme
        'activity'
        """
        head, _, rest = text.partition("/")
        if text == "all/embedding":
            return cls(text, "embedding", "", "")
        if head == "transaction" and rest:
            return cls(text, "transaction", "", rest)
        if head and rest == "labels":
            return cls(text, "labels", head, "")
        window = rest.removeprefix("activity/")
        if head and window != rest and re.fullmatch(r"\*|last|\d+(?:s|min|m|h|d|w)", window):
            return cls(text, "activity", head, window)
        raise CatalogueError(f"unknown group {text!r}; a group is {_FORMS}, each name or *")

    def matches(self, meaning: FeatureMeaning) -> bool:
        """Tell whether the feature's group is meant."""
        what = {"activity": meaning.window or "last", "transaction": meaning.column}
        return (
            self.theme == meaning.theme
            and self.entity in {_ANY, meaning.entity}
            and self.what in {_ANY, what.get(meaning.theme, "")}
        )

    @property
    def exactness(self) -> tuple[bool, bool]:
        """Order in which patterns are tried: who before over which window."""
        return self.entity != _ANY, self.what != _ANY

    @property
    def names(self) -> frozenset[str]:
        """What is known of a group that matches: fields for the code."""
        known = {"entity"} if self.entity else set()
        return frozenset(known | {"activity": {"window"}, "transaction": {"column"}}.get(
            self.theme, set()))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One reason.

    Attributes:
        code: Stable code: a capital letter, up to seven more letters or digits, then fields that
            tell apart the groups a ``*`` stands for: ``"L-{entity}"``. Groups of one code are one
            reason.
        groups: Patterns of the feature groups.
        customer: Words for a letter; no number of the row may be told.
        analyst: Words with the row's numbers; None: the phrases of the fields.
        prohibited: Whether a model may not score these groups at all.
        house: Whether it came with Penstock; not so, what a file itself writes.
    """

    code: str
    groups: tuple[str, ...]
    customer: Text | None = None
    analyst: Text | None = None
    prohibited: bool = False
    house: bool = field(default=False, compare=False)
    patterns: tuple[Pattern, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the patterns and check every text."""
        if not self.groups:
            raise CatalogueError(f"no groups; name some: {_FORMS}")
        object.__setattr__(self, "patterns", tuple(Pattern.read(g) for g in self.groups))
        known = frozenset.intersection(*(pattern.names for pattern in self.patterns))
        _check_code(self.code, known)
        if self.prohibited:
            return
        if self.customer is None:
            raise CatalogueError("no customer text; write [entry.customer] with en and zh")
        allowed = {"who": "entity"}
        usable = {name for name in ("who", "window", "column") if allowed.get(name, name) in known}
        check_text(self.customer, usable, "customer")
        if self.analyst is not None:
            check_text(self.analyst, FIXED | NUMBERS, "analyst")

    @property
    def stem(self) -> str:
        """The code without its fields; unique in a catalogue."""
        return self.code.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Codes and words of reasons in every language; made by ``files.py``.

    Attributes:
        name: For records.
        entries: The reasons.
        phrases: ``field.case`` -> words for analysts.
        letter: Part of the letter -> its text.
        columns: Names of columns (entities and others) by language; missing: as spelled.
        fields: Names of the fields of entity state by language; missing: as spelled.
        fallback: Code of columns without an entry.
        max_reasons: Most reasons given, 1 to 4.
        house_names: Language and column of the names in ``columns`` that came with Penstock.
    """

    name: str
    entries: tuple[Entry, ...]
    phrases: Mapping[str, Text]
    letter: Mapping[str, Text]
    columns: Mapping[Language, Mapping[str, str]]
    fields: Mapping[Language, Mapping[str, str]]
    fallback: str = "X-{column}"
    max_reasons: int = MOST_REASONS
    house_names: frozenset[tuple[Language, str]] = field(
        default=frozenset(), compare=False, repr=False
    )

    def __post_init__(self) -> None:
        """Reject codes and groups that stand twice."""
        if not 1 <= self.max_reasons <= MOST_REASONS:
            raise CatalogueError(
                f"max_reasons = {self.max_reasons}; give 1 to {MOST_REASONS}: more are no help to "
                "their reader (commentary on 12 CFR 1002.9)"
            )
        _check_code(self.fallback, frozenset({"column"}))
        if "{column}" not in self.fallback:
            raise CatalogueError(f"fallback = {self.fallback!r} must end in -{{column}}")
        check_entries(self.entries, self.fallback)

    def entry_of(self, meaning: FeatureMeaning, key: str = "") -> Entry | None:
        """Return the entry of a feature's group; None: the fallback.

        The group's very ``key`` comes first, then the most exact pattern.
        """
        found = [
            ((p.text == key, *p.exactness), e)
            for e in self.entries
            for p in e.patterns
            if p.text == key or p.matches(meaning)
        ]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def written(self) -> Catalogue:
        """Return what the file itself writes: without entries and names of the house's columns."""
        columns = {
            language: {c: n for c, n in names.items() if (language, c) not in self.house_names}
            for language, names in self.columns.items()
        }
        own = tuple(entry for entry in self.entries if not entry.house)
        return replace(self, entries=own, columns=columns, house_names=frozenset())

    def column_name(self, column: str, language: Language) -> str:
        """Return how a column is said."""
        return self.columns.get(language, {}).get(column) or column.replace("_", " ").strip()

    def field_name(self, name: str, language: Language) -> str:
        """Return how a field of the house is said."""
        return self.fields.get(language, {}).get(name) or name.replace("_", " ").strip()


def check_entries(entries: Sequence[Entry], fallback: str) -> None:
    """Reject codes and groups that stand twice.

    Raises:
        CatalogueError: With the number of the entry, counted from 1.
    """
    stems = {fallback.partition("-")[0]: "the fallback"}
    groups: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        where = f"[[entry]] {number}"
        if entry.stem in stems:
            raise CatalogueError(
                f"{where} ({entry.code}): code {entry.stem!r} is that of {stems[entry.stem]}; "
                "choose another, or list the groups of both in one entry to make them one reason"
            )
        stems[entry.stem] = where
        for group in entry.groups:
            if group in groups:
                raise CatalogueError(
                    f"{where} ({entry.code}): group {group!r} belongs to {groups[group]} already; "
                    "take it out of one of them"
                )
            groups[group] = entry.code


def check_text(text: Text, allowed: frozenset[str] | set[str], where: str) -> frozenset[str]:
    """Check a text in every language; return the fields that all of them use.

    Raises:
        CatalogueError: On an empty text or a field that does not exist here.
    """
    for language in LANGUAGES:
        split(text.of(language), allowed, f"{where}.{language}")
    return frozenset.intersection(*(fields(text.of(language)) for language in LANGUAGES))


def _check_code(code: str, known: frozenset[str]) -> None:
    if _CODE.fullmatch(code) is None:
        raise CatalogueError(
            f"code {code!r} must be a capital letter and up to seven capital letters or digits, "
            "then perhaps -{entity}, -{window} or -{column}; for example V07 or L-{entity}"
        )
    unknown = sorted(fields(code) - known)
    if unknown:
        raise CatalogueError(
            f"code {code!r}: its groups have no {{{unknown[0]}}}; "
            f"they have {', '.join(sorted(known)) or 'none'}"
        )
