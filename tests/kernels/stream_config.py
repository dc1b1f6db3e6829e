"""Configurations of the stream's Java module for tests and benchmarks."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from kernels.entity_state import StateSpec
from kernels.entity_state.plan_json import plan_json
from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.graph.mail import mail_layout
from tasks.fraud.ingest.checks import RULES, VERSION

DAY = 86_400_000
_SAME = ("time", "amount", "label", "label_time", "event_id", "numeric", "categorical")
_SAME += ("time_unit", "amount_unit", "decimals")


def stream_config(
    dataset: DatasetConfig, *, spec: StateSpec | None = None, mail: bool = False, **changes: Any
) -> dict[str, Any]:
    """Return the configuration of a job.

    Args:
        dataset: What the columns mean.
        spec: Windows and sizes of every kind; delay and roles come from ``dataset``.
        mail: Whether there is a stage of mail.
        changes: Other members.
    """
    spec = spec or StateSpec()
    plain = dataset.to_dict()
    fields = {name: plain[name] for name in _SAME}
    fields["entities"] = [{"column": e.column, "kind": e.kind} for e in dataset.entities]
    fields |= {
        "origin_ms": dataset.origin_ms,
        "earliest_ms": dataset.earliest_ms,
        "delay_ms": dataset.delay_ms,
        "max_future_ms": round(dataset.max_future_days * DAY),
    }
    config = {
        "mode": "latency",
        "dataset": fields,
        "layouts": {kind: plan_json(with_dataset(spec, dataset, kind)) for kind in dataset.kinds},
        "message": message(dataset) if mail else None,
        "expected": {name: rule.expected for name, rule in RULES.items()},
        "detector_version": VERSION,
        "publish_ms": 1000,
        "epoch": 0,
        "control": {"initial": control_message()},
    }
    return config | changes


def with_dataset(spec: StateSpec, dataset: DatasetConfig, kind: str) -> StateSpec:
    """Return the spec of a kind."""
    from dataclasses import replace

    return replace(spec, delay=dataset.delay_ms, roles=len(dataset.kinds[kind]))


def message(dataset: DatasetConfig) -> dict[str, Any]:
    """Return how the messages of mail are made."""
    layout = mail_layout(dataset)
    each = sum(name.startswith(f"{layout.columns[0]}.") for name in layout.features)
    unit = 10.0**dataset.decimals
    return {"each": each, "width": len(layout.features), "short": 0, "long": 2, "unit": unit}


def control_message(model: str = "model-1", version: str = "rules-1") -> dict[str, Any]:
    """Return a message that puts a model and rules in force."""
    rules = {"version": version, "review_at": 0.5, "block_at": 0.9, "block": {}}
    return {"model": model, "rules": rules}


def framed(rows: Iterable[bytes]) -> bytes:
    """Return rows one after the other, each with its length in front."""
    return b"".join(struct.pack("<I", len(row)) + row for row in rows)
