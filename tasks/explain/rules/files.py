"""Rule sets as JSON that people edit: written in one form, read with errors that name the fix.

Ids are for reading. Who edits a rule removes its id: an id that no longer belongs to the conditions
is refused, so that a rule never goes by the name of another one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tasks.explain.rules.model import Condition, Rule, RuleSet, RuleSetError

FORMAT = 1
"""Version of the form of the file."""

MOST_DIGITS = 18
"""Of a whole number: more fit no feature and no sum of points."""

_SET = {"format", "name", "version", "features", "rules", "data_digest", "model_digest"}
_RULE = {"id", "if", "then", "note"}


def to_json(rules: RuleSet) -> str:
    """Return a set as JSON text; the same set gives the same text."""
    data = {
        "format": FORMAT,
        "name": rules.name,
        "version": rules.version,
        "data_digest": rules.data_digest,
        "model_digest": rules.model_digest,
        "features": list(rules.features),
        "rules": [
            {
                "id": rule.id,
                "if": [[one.feature, one.operator, one.value] for one in rule.conditions],
                "then": rule.decision,
                **({"note": rule.note} if rule.note else {}),
            }
            for rule in rules.rules
        ],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> RuleSet:
    """Read a set.

    Raises:
        RuleSetError: On text that is no such set; its kinds tell unknown features, contradictions,
            duplicates and unknown decisions apart.
    """
    data = parsed(text)
    checked_keys(data, _SET, {"format", "name", "version", "features", "rules"}, "the set")
    if data["format"] != FORMAT or isinstance(data["format"], bool):
        raise RuleSetError(
            f"format {data['format']!r} is unknown; this version of Penstock reads format {FORMAT}"
        )
    texts = {key: data.get(key, "") for key in ("name", "version", "data_digest", "model_digest")}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise RuleSetError(f"{key} is {value!r}: write it as a text in quotes")
    features = data["features"]
    if not isinstance(features, list) or not all(isinstance(one, str) for one in features):
        raise RuleSetError("features must be a list of names: write the model's own")
    if not isinstance(data["rules"], list):
        raise RuleSetError("rules must be a list: write [] for none")
    rules = tuple(_rule(one, place) for place, one in enumerate(data["rules"], 1))
    return RuleSet(features=tuple(features), rules=rules, **texts)


def _rule(data: Any, place: int) -> Rule:
    where = f"rule number {place}"
    checked_keys(data, _RULE, {"if", "then"}, where)
    listed, note = data["if"], data.get("note", "")
    if not isinstance(listed, list) or not all(
        isinstance(one, list) and len(one) == 3 and isinstance(one[0], str) for one in listed
    ):
        raise RuleSetError(f'{where}: "if" must list conditions such as ["amount", ">", 100]')
    if not isinstance(note, str):
        raise RuleSetError(f"{where}: note must be a text in quotes")
    try:
        rule = Rule(tuple(Condition(*one) for one in listed), data["then"], note)
    except RuleSetError as error:
        raise type(error)(f"{where}: {error}") from error
    if "id" in data and data["id"] != rule.id:
        raise RuleSetError(
            f"{where}: id {data['id']!r} does not belong to its conditions (they give {rule.id}); "
            "after an edit remove the id, it is computed anew"
        )
    return rule


def parsed(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        RuleSetError: On text that is no JSON, says a key twice, or holds what no number or text of
            an edition can be.
    """
    try:
        data = json.loads(text, object_pairs_hook=_once, parse_int=_whole)
        json.dumps(data, ensure_ascii=False).encode()
    except (json.JSONDecodeError, RecursionError) as error:
        raise RuleSetError(f"no JSON: {error}; mend the text there") from error
    except UnicodeEncodeError as error:
        raise RuleSetError(
            f"the text holds half of a character, {error.object[error.start]!a}: write it whole"
        ) from error
    return data


def checked_keys(data: Any, known: set[str], needed: set[str], where: str) -> None:
    """Check that an object has the keys it needs and no others.

    Raises:
        RuleSetError: Naming the key and where it is.
    """
    if not isinstance(data, Mapping):
        raise RuleSetError(f"{where} must be an object with {', '.join(sorted(needed))}")
    for key in sorted(needed - data.keys()):
        raise RuleSetError(f"{where} lacks {key!r}: add it")
    for key in sorted(data.keys() - known):
        raise RuleSetError(f"{where}: unknown key {key!r}; known: {', '.join(sorted(known))}")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise RuleSetError(
            f"the number {text[:20]}... has {len(text)} digits, at most {MOST_DIGITS} are read: "
            "shorten it, or write it with an exponent"
        )
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key, count in Counter(names).items() if count > 1)
        raise RuleSetError(f"key {twice!r} stands twice in one object: remove one")
    return found
