"""After the chaos: what came out, against the batch over what went in."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.online_store.record import Record
from connectors.online_store.seed import history_state, state_records
from connectors.online_store.store import OnlineStore
from connectors.online_store.view import EntityView, read_views
from tasks.fraud.bundle import Bundle
from tasks.fraud.features import build_features, state_specs
from tasks.fraud.ingest.checks import check
from tasks.fraud.online.head import FastHead
from tasks.fraud.transactions import Transactions
from tests.benchmarks._chaos_traffic import Traffic, payment_of
from tests.benchmarks._kafka import committed_messages

AT_ONCE = 500
VERSION = slice(16, 24)
"""Bytes of a block that hold its version."""


def history(bundle: Bundle, traffic: Traffic) -> Transactions:
    """Return what was sent, as the batch reads it."""
    table = pa.Table.from_pylist(traffic.rows)
    return check(table, bundle.config, "chaos").transactions


def scores_proof(
    servers: str, stream: str, bundle: Bundle, tx: Transactions, traffic: Traffic
) -> dict[str, Any]:
    """Compare committed scores and dead letters with the batch."""
    values = FastHead.load(bundle).score(build_features(tx, bundle.config).values)
    wanted = dict(zip(map(str, tx.event_id.tolist()), values.tolist(), strict=True))
    got: dict[str, list[dict[str, Any]]] = {}
    for message in committed_messages(servers, f"penstock.{stream}.scores"):
        got.setdefault(message["event_id"], []).append(message)
    differences = [
        abs(got[event][0]["score"] - score) / max(abs(score), 1e-300)
        for event, score in wanted.items()
        if event in got
    ]
    letters = Counter(
        letter["rule"] for letter in committed_messages(servers, f"penstock.{stream}.dead-letters")
    )
    return {
        "transactions": len(wanted),
        "lost": sum(event not in got for event in wanted),
        "duplicated": sum(len(found) - 1 for found in got.values()),
        "late": sum(found[0]["late"] for found in got.values()),
        "max_rel_diff": max(differences, default=float("nan")),
        "poison": traffic.poison,
        "poison_letters": letters["not-json"],
        "repeated": len(traffic.repeated),
        "repeated_letters": letters["duplicate-of"],
    }


def states_proof(store: OnlineStore, bundle: Bundle, tx: Transactions) -> dict[str, int]:
    """Count entities whose state in the store is not, bit by bit, that of the batch."""
    compared = differing = 0
    last, event = int(tx.time[-1]), int(tx.event_id.max())
    specs = state_specs(bundle.config)
    for kind, spec in specs.items():
        ids = tx.index[kind]
        state = history_state(tx, bundle.config.kinds[kind], spec, len(ids))
        records: dict[str, list[Record]] = {}
        for record in state_records(state, kind, ids, 0, mail=False):
            records.setdefault(record.id, []).append(record)
        names = sorted(records)
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]
            found = read_views(store, [(kind, name) for name in part], specs)
            for name, view in zip(part, found, strict=True):
                wanted = EntityView(kind, name, spec, records[name])
                for each in (view, wanted):
                    each.release(last, event)
                    each.block[VERSION] = 0  # counts publications, not events
                compared += 1
                differing += not np.array_equal(view.block, wanted.block)
    return {"states": compared, "states_differing": differing}


def answers_proof(traffic: Traffic) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Ask the API once more for all it answered; return what it answers otherwise now."""
    api = traffic.api
    rows = {str(row["tx_id"]): row for row in traffic.rows}
    changed = []
    for event, (first, _) in list(api.answered.items()):
        again = api.call(payment_of(rows[event]))
        if again != first:
            changed.append((first, again))
    return changed
