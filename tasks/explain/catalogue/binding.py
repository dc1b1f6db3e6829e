"""A catalogue held against a model's features: which reasons the model can give at all."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.explain.catalogue.files import catalogue_digest
from tasks.explain.catalogue.model import Catalogue, Entry
from tasks.explain.catalogue.template import fields, fill
from tasks.explain.errors import CatalogueError
from tasks.explain.groups import FeatureGroups, FeatureMeaning
from tasks.explain.languages import LANGUAGES, Language, window_words


@dataclass(frozen=True, slots=True)
class BoundCatalogue:
    """A catalogue and the groups of one model.

    Attributes:
        catalogue: The catalogue.
        used: What of it the model may take: all, or only what its file itself writes.
        groups: The model's groups, those of one code made one: their values are summed.
        codes: Code of each of them, same order.
        entries: Their entries, same order; None: the fallback.
        without_entry: Keys of groups that only the fallback names.
        unused: Codes of entries that no group of the model has.
    """

    catalogue: Catalogue
    used: Catalogue
    groups: FeatureGroups
    codes: tuple[str, ...]
    entries: tuple[Entry | None, ...]
    without_entry: tuple[str, ...]
    unused: tuple[str, ...]
    _place: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find codes fast."""
        object.__setattr__(self, "_place", {code: n for n, code in enumerate(self.codes)})

    @property
    def digest(self) -> str:
        """SHA-256 of the catalogue as ``files.to_toml`` writes it."""
        return catalogue_digest(self.catalogue)

    def unnamed(self, language: Language) -> tuple[str, ...]:
        """Return the columns that have no name in a language and are said as they are spelled."""
        names = (self.used.columns, self.used.fields)
        named = {name for table in names for name in table.get(language, {})}
        used = {m.entity or m.column for m in self.groups.meanings}
        return tuple(sorted(used - named))

    def customer(self, code: str, language: Language) -> str:
        """Return the words of a reason for the customer.

        Raises:
            CatalogueError: For a code that the model cannot give, and for the fallback, which
                names a column and no reason.
        """
        place = self._place.get(code)
        if place is None:
            raise CatalogueError(
                f"the model scores nothing of code {code!r}; it gives {', '.join(self.codes)}"
            )
        entry = self.entries[place]
        if entry is None or entry.customer is None:
            raise CatalogueError(
                f"reason {code!r} has no words for customers; add an [[entry]] for the group "
                f"{self.groups.keys[place]!r} to the catalogue"
            )
        meaning = self.groups.meanings[self.groups.members[place][0]]
        return fill(entry.customer.of(language), _known(self.used, meaning, language))


def bind(
    catalogue: Catalogue, groups: FeatureGroups, *, written_only: bool = False
) -> BoundCatalogue:
    """Bind a catalogue to a model's groups.

    Args:
        catalogue: The catalogue.
        groups: The model's groups.
        written_only: Whether entries and names of columns that the file only inherits are left
            out: the house's are true of its own features, not of a stranger's of the same name.

    Raises:
        CatalogueError: When the model scores what the catalogue prohibits, two entries make the
            same code, or a text for customers would not be true of every group of its code.
    """
    used = catalogue.written() if written_only else catalogue
    places: dict[str, list[int]] = {}
    of_code: dict[str, Entry | None] = {}
    without = []
    for place, members in enumerate(groups.members):
        meaning, key = groups.meanings[members[0]], groups.keys[place]
        entry = used.entry_of(meaning, key)
        if entry is None:
            without.append(key)
        else:
            _check(entry, key, meaning, [groups.meanings[m].name for m in members])
        code = _code(entry.code if entry else used.fallback, meaning, key)
        if of_code.setdefault(code, entry) is not entry:
            raise CatalogueError(f"two entries give the code {code!r}; change one of them")
        places.setdefault(code, []).append(place)
    for code, part in places.items():
        _one_text(used, of_code[code], groups, part)
    told = {id(entry) for entry in of_code.values()}
    return BoundCatalogue(
        catalogue,
        used,
        _merged(groups, list(places.values())),
        tuple(places),
        tuple(of_code.values()),
        tuple(without),
        tuple(entry.code for entry in used.entries if id(entry) not in told),
    )


def _check(entry: Entry, key: str, meaning: FeatureMeaning, names: list[str]) -> None:
    if entry.prohibited:
        raise CatalogueError(
            f"the model scores {', '.join(names)} ({key}), which entry {entry.code!r} prohibits; "
            "train without, or take the entry out of the catalogue if the law allows it"
        )
    texts = [entry.customer.of(language) for language in LANGUAGES] if entry.customer else []
    windowless = meaning.theme == "activity" and not meaning.window
    if windowless and any("window" in fields(text) for text in texts):
        raise CatalogueError(
            f"entry {entry.code!r} tells the {{window}} of {key!r}, which has none; give that "
            "group an entry of its own"
        )


def _one_text(
    catalogue: Catalogue, entry: Entry | None, groups: FeatureGroups, places: list[int]
) -> None:
    """Refuse a code of several groups whose words would be true of one of them only."""
    if entry is None or entry.customer is None:
        return
    meanings = [groups.meanings[groups.members[place][0]] for place in places]
    for language in LANGUAGES:
        text = entry.customer.of(language)
        if len({fill(text, _known(catalogue, m, language)) for m in meanings}) > 1:
            keys = ", ".join(groups.keys[place] for place in places)
            raise CatalogueError(
                f"entry {entry.code!r} makes {keys} one reason, but its customer text differs "
                "between them; add -{entity} or -{window} to the code, or leave the field out of "
                "the text"
            )


def _code(template: str, meaning: FeatureMeaning, key: str) -> str:
    # The key is one group's alone; two players may have a column in common.
    return fill(template, {"entity": meaning.entity, "window": meaning.window or "last",
                           "column": key.removeprefix("transaction/")})  # fmt: skip


def _known(catalogue: Catalogue, meaning: FeatureMeaning, language: Language) -> dict[str, str]:
    return {
        "who": catalogue.column_name(meaning.entity, language),
        "window": window_words(meaning.window, language),
        "column": catalogue.column_name(meaning.column, language),
    }


def _merged(groups: FeatureGroups, parts: list[list[int]]) -> FeatureGroups:
    """Return the groups with those of each part made one."""
    return FeatureGroups(
        groups.meanings,
        tuple(" + ".join(groups.keys[p] for p in part) for part in parts),
        tuple(" + ".join(groups.labels[p] for p in part) for part in parts),
        tuple(tuple(m for p in part for m in groups.members[p]) for part in parts),
    )
