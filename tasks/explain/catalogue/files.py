"""Catalogues as TOML: read with errors that name entry and fix, written in one form."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tasks.explain.catalogue.model import Catalogue, Entry, Text, check_entries, check_text
from tasks.explain.catalogue.phrases import phrase_keys
from tasks.explain.catalogue.template import FIXED, NUMBERS
from tasks.explain.errors import CatalogueError
from tasks.explain.languages import LANGUAGES, Language

FORMAT = 1
"""Version of the form of the file."""
MAX_BYTES = 256_000
"""Twenty times the whole catalogue of the house."""
MAX_PARTS = 16
"""Parts of a dotted key, of which the parser's time is a square; a catalogue needs four."""
HOUSE = "house"

LETTER: Mapping[str, frozenset[str]] = {
    "body": frozenset({"creditor", "creditor_address", "date", "recipient", "action", "reasons",
                       "notice", "reference"}),
    **{f"{act}-{what}": frozenset({"subject"})
       for act in ("decline", "hold") for what in ("application", "transaction")},
    "notice": frozenset({"regulator", "regulator_address"}),
    "reference": frozenset({"event_id", "model_version", "background_sha256", "catalogue_sha256",
                            "codes"}),
}  # fmt: skip
"""Part of the letter -> its fields, all of which its text must use."""

_TOP = ("format", "name", "extends", "max_reasons", "fallback", "entry", "columns", "fields",
        "phrase", "letter")  # fmt: skip
_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+"""
_DEEP = re.compile(rf"(?<![\w\\-])(?:{_PART}\.[ \t]*+){{{MAX_PARTS},}}")

_ENTRY = ("code", "groups", "customer", "analyst", "prohibited")


@cache
def house_catalogue() -> Catalogue:
    """Return the catalogue that ships with Penstock."""
    path = Path(__file__).parent / "house.toml"
    read = from_toml(path.read_bytes(), source="the house catalogue")
    return replace(
        read,
        entries=tuple(replace(entry, house=True) for entry in read.entries),
        house_names=frozenset(_places(read.columns)),
    )


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue's file.

    Raises:
        CatalogueError: When there is none, or it is no catalogue.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CatalogueError(f"catalogue {path} cannot be read: {error.strerror}") from None
    return from_toml(content, source=f"catalogue {path}")


def from_toml(content: bytes | str, *, source: str = "catalogue") -> Catalogue:
    """Read a catalogue.

    With ``extends = "house"`` only what differs from the house's catalogue stands in it: an entry
    takes the place of the one of its code, and its groups leave the others.

    Args:
        content: TOML, see ``docs/reference/reasons.md``.
        source: What messages call it.

    Raises:
        CatalogueError: With the line or the entry at fault.
    """
    try:
        raw = content.encode() if isinstance(content, str) else content
        return _catalogue(_parsed(raw))
    except UnicodeError as error:
        raise CatalogueError(f"{source} is no UTF-8: {error}; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CatalogueError(f"{source} is no TOML: {error}; mend the text there") from None
    except CatalogueError as error:
        raise CatalogueError(f"{source}: {error}") from None
    except ValueError:
        # Python neither reads nor writes a whole number of more than 4,300 digits.
        raise CatalogueError(f"{source} holds a number that is too long; shorten it") from None


def to_toml(catalogue: Catalogue) -> str:
    """Write a whole catalogue; equal catalogues give equal text."""
    lines = [f"format = {FORMAT}", f"name = {_string(catalogue.name)}"]
    lines += [f"max_reasons = {catalogue.max_reasons}", f"fallback = {_string(catalogue.fallback)}"]
    for entry in catalogue.entries:
        lines += ["", "[[entry]]", f"code = {_string(entry.code)}"]
        lines.append(f"groups = [{', '.join(_string(group) for group in entry.groups)}]")
        lines += ["prohibited = true"] if entry.prohibited else []
        for name, text in (("customer", entry.customer), ("analyst", entry.analyst)):
            lines += _text(f"entry.{name}", text) if text is not None else []
    for table, names in (("columns", catalogue.columns), ("fields", catalogue.fields)):
        for language in LANGUAGES:
            given = names.get(language, {})
            lines += ["", f"[{table}.{language}]"] if given else []
            lines += [f"{_string(key)} = {_string(given[key])}" for key in sorted(given)]
    for key in phrase_keys():
        lines += _text(f"phrase.{key}", catalogue.phrases[key])
    for key in LETTER:
        lines += _text(f"letter.{key}", catalogue.letter[key])
    return "\n".join(lines) + "\n"


def catalogue_digest(catalogue: Catalogue) -> str:
    """Return the SHA-256 of the catalogue as ``to_toml`` writes it."""
    return hashlib.sha256(to_toml(catalogue).encode()).hexdigest()


def _parsed(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise CatalogueError(f"larger than {MAX_BYTES:,} bytes; shorten its texts")
    text = raw.decode("utf-8-sig")  # editors may mark a file as UTF-8
    deep = _DEEP.search(text)
    if deep is not None:
        line = text.count("\n", 0, deep.start()) + 1
        raise CatalogueError(
            f"line {line}: more than {MAX_PARTS} parts in a dotted key; a key has at most four"
        )
    return tomllib.loads(text)


def _catalogue(data: Mapping[str, Any]) -> Catalogue:
    _known(data, _TOP, "the catalogue")
    if data.get("format") != FORMAT or isinstance(data["format"], bool):
        raise CatalogueError(f"format = {data.get('format')!r}; write format = {FORMAT}")
    base = None
    if "extends" in data:
        if data["extends"] != HOUSE:
            raise CatalogueError(f'extends = {data["extends"]!r}; write extends = "{HOUSE}"')
        base = house_catalogue()
    most = data.get("max_reasons", base.max_reasons if base else 4)
    if type(most) is not int:
        raise CatalogueError(f"max_reasons = {most!r} must be a whole number")
    fallback = _words(data.get("fallback", base.fallback if base else "X-{column}"), "fallback")
    own = _entries(data.get("entry", []))
    check_entries(own, fallback)
    return Catalogue(
        name=_words(data.get("name"), "name"),
        entries=_over(base.entries if base else (), own),
        phrases=_phrases(data, base),
        letter=_letter(data, base),
        columns=_names(data, "columns", base.columns if base else {}),
        fields=_names(data, "fields", base.fields if base else {}),
        fallback=fallback,
        max_reasons=most,
        house_names=(base.house_names if base else frozenset()) - _places(data.get("columns", {})),
    )


def _places(columns: Mapping[Language, Mapping[str, str]]) -> set[tuple[Language, str]]:
    return {(language, column) for language, names in columns.items() for column in names}


def _entries(given: object) -> tuple[Entry, ...]:
    if not isinstance(given, list):
        raise CatalogueError("entry stands in doubled brackets: [[entry]]")
    return tuple(_entry(item, number) for number, item in enumerate(given, 1))


def _entry(item: object, number: int) -> Entry:
    where = f"[[entry]] {number}"
    if not isinstance(item, dict):
        raise CatalogueError(f"{where} must be a table")
    where += f" ({item['code']})" if isinstance(item.get("code"), str) else ""
    _known(item, _ENTRY, where)
    groups = item.get("groups")
    if not isinstance(groups, list) or not all(isinstance(g, str) for g in groups):
        raise CatalogueError(f'{where}: groups must be a list of texts: groups = ["*/labels"]')
    prohibited = item.get("prohibited", False)
    if not isinstance(prohibited, bool):
        raise CatalogueError(f"{where}: prohibited = {prohibited!r} must be true or false")
    try:
        texts = {n: _both(item[n], n) for n in ("customer", "analyst") if n in item}
        code = _words(item.get("code"), "code")
        customer, analyst = texts.get("customer"), texts.get("analyst")
        return Entry(code, tuple(groups), customer, analyst, prohibited=prohibited)
    except CatalogueError as error:
        raise CatalogueError(f"{where}: {error}") from None


def _over(base: tuple[Entry, ...], own: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Lay entries over those of the house: codes and groups of the file's own win."""
    stems, groups = {e.stem for e in own}, {g for e in own for g in e.groups}
    kept = []
    for entry in base:
        left = tuple(group for group in entry.groups if group not in groups)
        if left and entry.stem not in stems:
            kept.append(replace(entry, groups=left))
    return (*kept, *own)


def _phrases(data: Mapping[str, Any], base: Catalogue | None) -> dict[str, Text]:
    found = dict(base.phrases) if base else {}
    known = phrase_keys()
    for name, cases in _table(data.get("phrase", {}), "[phrase]").items():
        for case, given in _table(cases, f"[phrase.{name}]").items():
            key = f"{name}.{case}"
            if key not in known:
                near = [k for k in known if k.startswith(f"{name}.")] or sorted(
                    {k.partition(".")[0] for k in known}
                )
                raise CatalogueError(f"no phrase [phrase.{key}]; known: {', '.join(near)}")
            found[key] = _both(given, f"[phrase.{key}]")
            naming = {"who", "window", "field"}
            check_text(found[key], naming if name == "name" else FIXED | NUMBERS, f"phrase.{key}")
    _complete(found, known, "phrase")
    return found


def _letter(data: Mapping[str, Any], base: Catalogue | None) -> dict[str, Text]:
    found = dict(base.letter) if base else {}
    for key, given in _table(data.get("letter", {}), "[letter]").items():
        if key not in LETTER:
            raise CatalogueError(f"no part [letter.{key}]; known: {', '.join(LETTER)}")
        found[key] = _both(given, f"[letter.{key}]")
        used = check_text(found[key], LETTER[key], f"letter.{key}")
        left = sorted(LETTER[key] - used)
        if left:
            raise CatalogueError(f"letter.{key} must say {{{left[0]}}} in every language")
    _complete(found, LETTER, "letter")
    return found


def _complete(found: Mapping[str, Text], known: Any, table: str) -> None:
    missing = [key for key in known if key not in found]
    if missing:
        raise CatalogueError(
            f'[{table}.{missing[0]}] is missing; write it, or extends = "{HOUSE}" at the top'
        )


def _names(
    data: Mapping[str, Any], table: str, base: Mapping[Language, Mapping[str, str]]
) -> dict[Language, dict[str, str]]:
    given = _table(data.get(table, {}), f"[{table}]")
    _known(given, LANGUAGES, f"[{table}]")
    found = {language: dict(base.get(language, {})) for language in LANGUAGES}
    for language in LANGUAGES:
        own = _table(given.get(language, {}), f"[{table}.{language}]")
        found[language] |= {k: _words(v, f"{table}.{language}.{k}") for k, v in own.items()}
    return found


def _both(given: object, where: str) -> Text:
    table = _table(given, where)
    _known(table, LANGUAGES, where)
    for language in LANGUAGES:
        if language not in table:
            raise CatalogueError(f'{where} lacks {language}; write {language} = "..."')
    return Text(**{lang: _words(table[lang], f"{where}.{lang}").strip() for lang in LANGUAGES})


def _table(given: object, where: str) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise CatalogueError(f"{where} must be a table")
    return given


def _words(given: object, where: str) -> str:
    if not isinstance(given, str):
        raise CatalogueError(f"{where} must be a text in quotes, got {given!r}")
    if not given.strip():
        raise CatalogueError(f"{where} is empty; write the text")
    return given


def _known(given: Mapping[str, Any], known: Any, where: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise CatalogueError(f"{where} has no {unknown[0]!r}; known: {', '.join(known)}")


def _text(table: str, text: Text) -> list[str]:
    both = [f"{language} = {_string(text.of(language))}" for language in LANGUAGES]
    return ["", f"[{table}]", *both]


def _string(text: str) -> str:
    """Return a TOML string: one of JSON, but for a character that TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
