"""Scorecards as text that people read, as ANSI SQL, as Flink SQL, and as JSON that people edit.

The queries add two columns: ``rule_points`` and ``rule_decision``. Columns must be DOUBLE; NULL,
NaN and infinity add nothing, as in `run_scorecard`.
"""

from __future__ import annotations

import json
from typing import Any

from tasks.explain.rules.export import LARGEST, Quote, ansi_name, flink_name, sql_double
from tasks.explain.rules.files import FORMAT, checked_keys, parsed
from tasks.explain.rules.model import RuleSetError
from tasks.explain.rules.scorecard import GradedRule, Ramp, Scorecard

ADDED = ("rule_points", "rule_decision")
_CARD = {"format", "name", "version", "features", "base", "review_at", "block_at", "rules"}
_DIGESTS = {"data_digest", "model_digest"}


def scorecard_text(card: Scorecard) -> str:
    """Return a scorecard as plain text, one rule a paragraph."""
    lines = [
        f"{card.name}, version {card.version}: {len(card.rules)} rules and 2 cutoffs",
        f"data {card.data_digest or 'unknown'}",
        f"model {card.model_digest or 'unknown'}",
        f"base {card.base}, review from {card.review_at}, block from {card.block_at} points",
    ]
    for rule in card.rules:
        lines += ["", f"{rule.id}: {rule.points:+d} for", f"  {rule}"]
        if rule.note:
            lines.append(f"  ({' '.join(rule.note.split())})")
    return "\n".join(lines) + "\n"


def scorecard_ansi_sql(card: Scorecard, table: str) -> str:
    """Return a query in ANSI SQL over a table that has a column for every feature.

    Raises:
        RuleSetError: On names that SQL cannot quote, or features named like an added column.
    """
    return _query(card, table, ansi_name)


def scorecard_flink_sql(card: Scorecard, table: str) -> str:
    """Return a query in Flink SQL over a table that has a column for every feature.

    Raises:
        RuleSetError: On names that SQL cannot quote, or features named like an added column.
    """
    return _query(card, table, flink_name)


def scorecard_json(card: Scorecard) -> str:
    """Return a scorecard as JSON text; the same scorecard gives the same text."""
    data = {
        "format": FORMAT,
        "name": card.name,
        "version": card.version,
        "data_digest": card.data_digest,
        "model_digest": card.model_digest,
        "features": list(card.features),
        "base": card.base,
        "review_at": card.review_at,
        "block_at": card.block_at,
        "rules": [
            {
                "id": rule.id,
                "if": [[one.feature, one.empty_at, one.full_at] for one in rule.conditions],
                "points": rule.points,
                **({"note": rule.note} if rule.note else {}),
            }
            for rule in card.rules
        ],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def scorecard_from_json(text: str) -> Scorecard:
    """Read a scorecard.

    Raises:
        RuleSetError: On text that is none; says where and how to mend it.
    """
    data = parsed(text)
    checked_keys(data, _CARD | _DIGESTS, _CARD, "the scorecard")
    if data["format"] != FORMAT or isinstance(data["format"], bool):
        raise RuleSetError(
            f"format {data['format']!r} is unknown; this version of Penstock reads format {FORMAT}"
        )
    texts = {key: data.get(key, "") for key in ("name", "version", *sorted(_DIGESTS))}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise RuleSetError(f"{key} is {value!r}: write it as a text in quotes")
    features = data["features"]
    if not isinstance(features, list) or not all(isinstance(one, str) for one in features):
        raise RuleSetError("features must be a list of names: write the model's own")
    if not isinstance(data["rules"], list):
        raise RuleSetError("rules must be a list: write [] for none")
    return Scorecard(
        features=tuple(features),
        rules=tuple(_rule(one, place) for place, one in enumerate(data["rules"], 1)),
        base=data["base"],
        review_at=data["review_at"],
        block_at=data["block_at"],
        **texts,
    )


def _rule(data: Any, place: int) -> GradedRule:
    where = f"rule number {place}"
    checked_keys(data, {"id", "if", "points", "note"}, {"if", "points"}, where)
    listed, note = data["if"], data.get("note", "")
    if not isinstance(listed, list) or not all(
        isinstance(one, list) and len(one) == 3 and isinstance(one[0], str) for one in listed
    ):
        raise RuleSetError(f'{where}: "if" must list conditions such as ["amount", 100, 200]')
    if not isinstance(note, str):
        raise RuleSetError(f"{where}: note must be a text in quotes")
    try:
        rule = GradedRule(tuple(Ramp(*one) for one in listed), data["points"], note)
    except RuleSetError as error:
        raise type(error)(f"{where}: {error}") from error
    if "id" in data and data["id"] != rule.id:
        raise RuleSetError(
            f"{where}: id {data['id']!r} does not belong to its conditions (they give {rule.id}); "
            "after an edit remove the id, it is computed anew"
        )
    return rule


def _query(card: Scorecard, table: str, quote: Quote) -> str:
    taken = sorted(set(ADDED) & {one.lower() for one in card.features})
    if taken:
        raise RuleSetError(f"feature {taken[0]!r} has the name of an added column; rename it")
    terms = [
        " * ".join([sql_double(rule.points), *(_degree(one, quote) for one in rule.conditions)])
        for rule in card.rules
    ]
    total = " + ".join([sql_double(card.base), *terms])
    points, decision = map(quote, ADDED)
    # Names are quoted, and numbers are made of what was read, not pasted.
    return (
        f"SELECT *, CASE WHEN {points} >= {sql_double(card.block_at)} THEN 'block' "  # noqa: S608
        f"WHEN {points} >= {sql_double(card.review_at)} THEN 'review' ELSE 'approve' END "
        f"AS {decision} FROM (SELECT *, {total} AS {points} FROM {quote(table)}) "
        f"AS {quote('scored')}"
    )


def _degree(one: Ramp, quote: Quote) -> str:
    column, empty, full = quote(one.feature), sql_double(one.empty_at), sql_double(one.full_at)
    beyond, within = (">=", ">") if one.rises else ("<=", "<")
    finite = f"{column} >= {sql_double(-LARGEST)} AND {column} <= {sql_double(LARGEST)}"
    return (
        f"(CASE WHEN {finite} AND {column} {beyond} {full} THEN 1E0 "
        f"WHEN {finite} AND {column} {within} {empty} "
        f"THEN ({column} - ({empty})) * ({sql_double(one.rate)}) ELSE 0E0 END)"
    )
