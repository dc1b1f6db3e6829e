"""The state of an entity, told: counts and amounts by window, what labels say, its mail.

Nothing is computed here that the model does not read: the same compiled functions read the same
block, as an event of no amount at this moment would see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from connectors.api.entity_states import Column, EntityState
from connectors.api.kept_answers import unpack_answer
from kernels.entity_state import read_mail
from kernels.entity_state.fields import LAST_FIELDS, WINDOW_FIELDS
from kernels.entity_state.layout import NONE, view
from tasks.explain.groups import window_words
from tasks.explain.wording import count, duration

if TYPE_CHECKING:
    from connectors.api.entity_blocks import EntityBlocks
    from tasks.fraud.dataset import DatasetConfig

_FIELDS = len(WINDOW_FIELDS)


def describe_entity(
    state: EntityState, config: DatasetConfig, kind: str, entity: str, now: int
) -> dict[str, Any] | None:
    """Return what is known of an entity, None when it was never seen.

    Args:
        state: Where its block is.
        config: What the columns mean.
        kind: Kind of entity.
        entity: Its id.
        now: Epoch milliseconds.
    """
    columns = [column for column in state.columns if column.kind == kind]
    slot = state.fetch([(kind, entity)])[kind, entity]
    blocks = columns[0].blocks
    sections = view(blocks.block(slot), blocks.spec)["roles"]
    roles = [_role(state, config, column, slot, now) for column in columns]
    if not sections["events"].any() and not any(r["labels"]["waiting"] for r in roles):
        state.forget([(kind, entity)])
        return None
    return {
        "kind": kind,
        "id": entity,
        "as_of": _instant(now),
        "roles": roles,
        "mailbox": _mailbox(blocks, columns, slot, config),
        "summary": [sentence for role in roles for sentence in role["summary"]],
    }


def _role(
    state: EntityState, config: DatasetConfig, column: Column, slot: int, now: int
) -> dict[str, Any]:
    blocks, unit = column.blocks, 10**config.decimals
    section = view(blocks.block(slot), blocks.spec)["roles"][column.role]
    last_time = int(section["last_time"])
    # An event cannot lie before what was seen: streams may replay the past, or run ahead of us.
    at = last_time if last_time != NONE else now
    raw = np.zeros(blocks.width)
    blocks.read(slot, column.role, at, 0, raw)
    windows = []
    for place, window in enumerate(blocks.spec.windows):
        n, total, _, _, most, known, frauds = raw[_FIELDS * place : _FIELDS * (place + 1)].tolist()
        n -= 1  # the event of no amount itself
        windows.append(
            {
                "window": window.name,
                "transactions": int(n),
                "amount": total / unit,
                "mean_amount": total / unit / n if n else None,
                "largest_amount": most / unit if n else None,
                "labels_known": int(known),
                "frauds_known": int(frauds),
            }
        )
    last = dict(zip(LAST_FIELDS, raw[-len(LAST_FIELDS) :].tolist(), strict=True))
    told = {
        "column": column.name,
        "transactions_ever": int(section["events"]),
        "last_transaction": _instant(last_time) if last_time != NONE else None,
        "windows": windows,
        "labels": {
            "last": {1.0: "fraud", 0.0: "genuine"}.get(last["last_label"]),
            "seconds_since_last_fraud": _none_if_negative(last["since_fraud"]),
            "run_of_frauds": int(last["run_length"]),
            "waiting": [
                {"counts_from": _instant(due), "time": _instant(of), "label": label}
                for due, of, _, label in blocks.waiting(slot, column.role)
            ],
        },
        "recent": _recent(state, section, unit),
    }
    several = blocks.spec.roles > 1
    told["summary"] = _sentences(told, column.name.replace("_", " ") if several else "")
    return told


def _recent(state: EntityState, section: Any, unit: int) -> list[dict[str, Any]]:
    """Return the newest events with their decisions, as far as they are kept here."""
    seen = int(section["events"])
    ring = section["recent_ids"].tolist()
    ids = [ring[i % len(ring)] for i in range(seen - 1, max(seen - 1 - len(ring), -1), -1)]
    events: list[dict[str, Any]] = []
    for event_id, content in zip(ids, state.answers(ids), strict=True):
        if content is None:
            events.append({"event_id": str(event_id), "time": None, "answer": None})
            continue
        kept = unpack_answer(content)
        answer = orjson.loads(kept.body)
        events.append(
            {
                "event_id": kept.name,
                "time": _instant(kept.time),
                "amount": kept.amount / unit,
                "entities": list(kept.entities),
                "answer": answer,
            }
        )
    return events


def _mailbox(
    blocks: EntityBlocks, columns: Sequence[Column], slot: int, config: DatasetConfig
) -> list[dict[str, Any]]:
    mail = read_mail(blocks.block(slot), spec=blocks.spec)
    names = [entity.column for entity in config.entities]
    messages = []
    for column in columns:
        for place in np.flatnonzero(mail.present[column.role]).tolist():
            other = int(mail.role[column.role, place])
            messages.append(
                {
                    "as": column.name,
                    "time": _instant(int(mail.time[column.role, place])),
                    "amount": int(mail.amount[column.role, place]) / 10**config.decimals,
                    "counterpart": names[other] if 0 <= other < len(names) else None,
                }
            )
    return sorted(messages, key=lambda message: message["time"], reverse=True)


def _sentences(told: dict[str, Any], role: str) -> list[str]:
    """Say the state of a role in plain words; ``role`` is said first where there are several."""
    first = f"as {role}: " if role else ""
    if not told["transactions_ever"]:
        return [f"{first}no transaction on record"]
    said = []
    for window in told["windows"]:
        what, span = count(window["transactions"], "transaction"), window_words(window["window"])
        said.append(f"{what} within {span}, {window['amount']:,.2f} in all")
    longest = told["windows"][-1]
    known, frauds = longest["labels_known"], longest["frauds_known"]
    verb = "was a fraud" if frauds == 1 else "were frauds"
    said.append(
        f"of {known:,} with known outcome, {frauds:,} {verb}" if known else "no outcome known yet"
    )
    run, since = told["labels"]["run_of_frauds"], told["labels"]["seconds_since_last_fraud"]
    if run:
        said.append(f"the last {run} with known outcome: all frauds")
    if since is not None:
        said.append(f"last known fraud {duration(since)} before the last transaction")
    return [f"{first}{sentence}" for sentence in said]


def _instant(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def _none_if_negative(value: float) -> float | None:
    return None if value < 0 else value
