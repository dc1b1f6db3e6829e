"""JSON schemas of requests and answers, made from the dataset config for the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from connectors.api.labels import BATCH as LABELS
from connectors.api.scoring import BATCH as TRANSACTIONS
from tasks.fraud.ingest.parsing import MAX_AMOUNT
from tasks.fraud.online.parse import MAX_ID_BYTES

if TYPE_CHECKING:
    from tasks.fraud.dataset import DatasetConfig

Schema = dict[str, Any]

_DAY_MS = 86_400_000
_MS = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": _DAY_MS}
_ID: Schema = {
    "description": "text, or a whole number",
    "anyOf": [
        # Four bytes of UTF-8 at most per character.
        {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES // 4, "pattern": r"^[!-~]+$"},
        {"type": "integer", "minimum": 0, "maximum": 2**53 - 1},
    ],
}


def transaction_schema(config: DatasetConfig, now_ms: int) -> Schema:
    """Return the schema of one transaction.

    Args:
        config: What its members mean.
        now_ms: The present; times up to it are valid examples.
    """
    properties: dict[str, Schema] = {
        config.event_id or "event_id": {**_ID, "description": "unique id of the transaction"},
        config.time: time_schema(config, now_ms, "time of the transaction"),
        config.amount: amount_schema(config),
    }
    for entity in config.entities:
        properties[entity.column] = {**_ID, "description": f"id of the {entity.kind}"}
    required = list(properties)
    for name in config.numeric:
        properties[name] = {"type": ["number", "null"], "description": "extra number"}
    for name in config.categorical:
        properties[name] = {
            "type": ["string", "number", "boolean", "null"],
            "description": "extra category",
        }
    return {
        "title": "Transaction",
        "type": "object",
        "properties": properties,
        "required": required,
        "description": "Further members are ignored.",
    }


def score_schema(config: DatasetConfig, now_ms: int, max_batch: int) -> Schema:
    """Return the schema of what may be scored: one transaction, or a batch."""
    batch = {
        "title": "Batch",
        "type": "object",
        "properties": {
            TRANSACTIONS: {
                "type": "array",
                "items": transaction_schema(config, now_ms),
                "minItems": 1,
                "maxItems": max_batch,
            },
            "reasons": {"type": "boolean", "description": "whether to explain every score"},
        },
        "required": [TRANSACTIONS],
        "additionalProperties": False,
    }
    return {"anyOf": [transaction_schema(config, now_ms), batch]}


def explain_schema(config: DatasetConfig, now_ms: int) -> Schema:
    """Return the schema of what may be explained: a transaction, or a past decision by its id."""
    event = config.event_id or "event_id"
    past = {
        "title": "Past decision",
        "type": "object",
        "properties": {event: {**_ID, "description": "id of a transaction that was scored"}},
        "required": [event],
        "additionalProperties": False,
    }
    return {"anyOf": [transaction_schema(config, now_ms), past]}


def label_schema(config: DatasetConfig, now_ms: int, max_batch: int) -> Schema:
    """Return the schema of what may be labelled: one event, or a batch."""
    label = config.label or "label"
    known = config.label_time or "label_time"
    properties: dict[str, Schema] = {
        config.event_id or "event_id": {**_ID, "description": "id of the transaction"},
        label: {"enum": [0, 1, True, False], "description": "1 or true: it was a fraud"},
        known: {
            **time_schema(config, now_ms, "when this became known; now, if left out"),
        },
        config.time: time_schema(config, now_ms, "time of the transaction, if not sent here"),
    }
    for entity in config.entities:
        properties[entity.column] = {
            **_ID,
            "description": f"id of the {entity.kind}, if the transaction was not sent here",
        }
    one = {
        "title": "Label",
        "type": "object",
        "properties": properties,
        "required": [config.event_id or "event_id", label],
    }
    batch = {
        "title": "Labels",
        "type": "object",
        "properties": {
            LABELS: {"type": "array", "items": one, "minItems": 1, "maxItems": max_batch}
        },
        "required": [LABELS],
    }
    return {"anyOf": [one, batch]}


def time_schema(config: DatasetConfig, now_ms: int, text: str) -> Schema:
    """Return the schema of a time as the config's data spell it."""
    if config.time_unit == "auto":
        return {"type": "string", "format": "date-time", "description": f"{text}, ISO 8601"}
    size = _MS[config.time_unit]
    return {
        "type": "integer",
        "minimum": _ceil((config.earliest_ms - config.origin_ms) / size),
        "maximum": int((now_ms - config.origin_ms) / size),
        "description": f"{text}, in {config.time_unit} since {config.time_origin}",
    }


def amount_schema(config: DatasetConfig) -> Schema:
    """Return the schema of an amount."""
    if config.amount_unit == "minor":
        return {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_AMOUNT,
            "description": f"whole minor units, {config.decimals} decimal places",
        }
    return {
        "type": "number",
        "minimum": 0,
        "maximum": MAX_AMOUNT // 10**config.decimals,
        "description": f"major units, rounded to {config.decimals} decimal places",
    }


OBJECT: Schema = {"type": "object"}

PROBLEM: Schema = {
    "title": "Problem",
    "type": "object",
    "description": "Problem details by RFC 9457: what went wrong, where, and how to mend it.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what went wrong"},
        "code": {"type": "string", "description": "stable name for programs"},
        "fix": {"type": "string", "description": "how to mend it"},
        "where": {"type": "string", "description": "member or header at fault"},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "code"],
}

REASON: Schema = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "stable code of the reason catalogue"},
        "text": {"type": "string", "description": "plain words"},
        "share": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "part of what these reasons added, in log-odds",
        },
    },
    "required": ["code", "text", "share"],
}

_MODEL: Schema = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("name", "version", "digest", "head")},
    "required": ["name", "version", "digest", "head"],
}

_BESIDE: dict[str, Schema] = {
    "approved_rules": {
        "type": "string",
        "description": "name, version and digest of the rules beside the model; absent: none",
    },
    "overruled": {
        "type": ["object", "null"],
        "properties": {
            "kind": {"enum": ["flag", "veto"]},
            "model": {
                "type": ["string", "null"],
                "description": "what the model alone decides; null: none scored",
            },
            "rules": {"type": ["string", "null"]},
            "final": {"type": "string"},
            "by": {"type": "array", "items": {"type": "string"}},
            "reason": {"type": "string"},
        },
        "description": "how approved rules changed the model's decision; null: they did not",
    },
}

ANSWER: Schema = {
    "title": "Answer",
    "type": "object",
    "properties": {
        "event_id": {"type": "string"},
        "score": {
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "description": "calibrated probability of fraud; null where only rules decided",
        },
        "decision": {"enum": ["approve", "review", "block"]},
        "reasons": {
            "type": ["array", "null"],
            "items": REASON,
            "maxItems": 4,
            "description": "what raised the score, strongest first; exact contributions of the "
            "head that scored, against the bundle's background; null where none were made",
        },
        "model": _MODEL,
        "features_version": {"type": "integer"},
        "rules": {"type": "string", "description": "version of the rules that decided"},
        **_BESIDE,
        "request_id": {"type": "string"},
        "degraded": {
            "type": "array",
            "items": {"enum": ["no-reasons", "fallback-head", "no-model"]},
            "description": "what was left out to answer in time",
        },
        "latency_us": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "microseconds per stage and transaction, until the answer was written",
        },
    },
    "required": ["event_id", "score", "decision", "reasons", "model", "request_id", "degraded"],
}

_ITEM_PROBLEM: Schema = {
    "type": "object",
    "properties": {"index": {"type": "integer"}, "problem": PROBLEM},
    "required": ["index", "problem"],
}

SCORE_ANSWER: Schema = {
    "anyOf": [
        ANSWER,
        {
            "title": "Answers",
            "type": "object",
            "properties": {
                "request_id": {"type": "string"},
                "answers": {
                    "type": "array",
                    "items": {"anyOf": [ANSWER, _ITEM_PROBLEM]},
                    "description": "one per transaction, in their order",
                },
            },
            "required": ["request_id", "answers"],
        },
    ]
}

_LOG_ODDS: Schema = {"type": "number", "description": "log-odds"}

EXPLANATION: Schema = {
    "title": "Explanation",
    "type": "object",
    "properties": {
        "event_id": {"type": "string"},
        "past": {
            "type": "boolean",
            "description": "true: a decision that was made, from what its head read then; false: "
            "what would be decided now, nothing is counted",
        },
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "decision": {"enum": ["approve", "review", "block"]},
        "log_odds": {"type": "number", "description": "the score before calibration"},
        "base": {"type": "number", "description": "mean log-odds of the background"},
        "groups": {
            "type": "array",
            "description": "every group of features, from what raised the score most to what "
            "lowered it most; with base they add up to log_odds",
            "items": {
                "type": "object",
                "properties": {
                    "group": {"type": "string", "description": "stable group of features"},
                    "label": {"type": "string"},
                    "contribution": _LOG_ODDS,
                    "error": {
                        **_LOG_ODDS,
                        "minimum": 0,
                        "description": "standard error, log-odds: over the head's models, and over "
                        "backgrounds of this size",
                    },
                    "tie": {
                        "type": "boolean",
                        "description": "the next one is as good within the errors of both",
                    },
                },
                "required": ["group", "label", "contribution", "error", "tie"],
            },
        },
        "reasons": {"type": "array", "items": OBJECT, "maxItems": 4},
        "additivity_gap": {"type": "number", "minimum": 0},
        "method": {"enum": ["interventional", "path"]},
        "background_sha256": {"type": "string"},
        "background_rows": {"type": "integer", "minimum": 0},
        "models": {"type": "integer", "minimum": 1},
        "model": _MODEL,
        "features_version": {"type": "integer"},
        "rules": {"type": "string"},
        **_BESIDE,
        "decided_by": {
            "anyOf": [REASON, {"type": "null"}],
            "description": "a block list or an approved rule that decided; null: the score did",
        },
        "request_id": {"type": "string"},
    },
}
EXPLANATION["required"] = [name for name in EXPLANATION["properties"] if name not in _BESIDE]

_LABEL_ANSWER: Schema = {
    "type": "object",
    "properties": {
        "event_id": {"type": "string"},
        "status": {"enum": ["accepted", "repeated"]},
        "counts_from": {"type": "string", "format": "date-time"},
    },
    "required": ["event_id", "status", "counts_from"],
}

LABEL_ANSWER: Schema = {
    "anyOf": [
        _LABEL_ANSWER,
        {
            "type": "object",
            "properties": {
                "answers": {
                    "type": "array",
                    "items": {"anyOf": [_LABEL_ANSWER, _ITEM_PROBLEM]},
                }
            },
            "required": ["answers"],
        },
    ]
}

RULES: Schema = {
    "title": "Rules",
    "type": "object",
    "properties": {
        "version": {"type": "string", "minLength": 1, "maxLength": 64},
        "review_at": {"type": "number", "minimum": 0, "maximum": 1},
        "block_at": {"type": "number", "minimum": 0, "maximum": 1},
        "block": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
            "description": "kind of entity -> ids that are blocked whatever the score",
        },
    },
    "required": ["version", "review_at", "block_at"],
    "additionalProperties": False,
}


def _ceil(value: float) -> int:
    return -int(-value // 1)
