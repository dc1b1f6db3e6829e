"""The fraud stream as a PyFlink job: Java operators for state, a pandas UDF for scores.

The operators come from ``kernels/entity_state/jvm``; this module tells them what to do, adds the
scoring function, and submits. Live streams, replays and backfills differ in
``StreamJob`` only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from connectors.flink.endpoints import Endpoint
from connectors.flink.presets import PRESETS, Preset

if TYPE_CHECKING:
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.graph.mail import MailLayout
    from tasks.fraud.online.model import OnlineModel

logger = logging.getLogger(__name__)

Mode = Literal["latency", "event-time"]
DETECTOR = "stream-checks/1"
_GIVEN = ("model", "time", "amount", "state")
_KEPT = ("event_name", "time", "late", "model", "rules", "review_at", "block_at", "listed")
"""Columns that the results need beside the score, in the order of Java's ``Results``."""


@dataclass(frozen=True, slots=True)
class StreamJob:
    """What one job reads, does and writes.

    Attributes:
        model: The model whose dataset config and needs shape the job.
        models: Folder of model folders by digest, where workers find them.
        rules: Rules in force at the start, see ``connectors.rules``.
        endpoint: Where it reads and writes.
        mode: ``event-time`` for replays and parity, ``latency`` for live traffic.
        preset: Throughput or latency.
        epoch: Minutes since 2020; raised whenever a job starts without its predecessor's state.
        out_of_order_ms: How far events may come out of order in event-time mode.
        idle_ms: Milliseconds after which a silent partition holds nothing up.
        ttl_ms: Milliseconds after which an entity is forgotten; 0 for never.
        dedup_ms: Milliseconds for which ids are remembered beside the entity's own ring.
        mail: Whether the stage of mail runs; None: when the active head reads mail.
    """

    model: OnlineModel
    models: Path
    rules: Mapping[str, Any]
    endpoint: Endpoint
    mode: Mode = "latency"
    preset: Preset = PRESETS["latency"]
    epoch: int = 0
    out_of_order_ms: int = 5_000
    idle_ms: int = 2_000
    ttl_ms: int = 0
    dedup_ms: int = 0
    mail: bool | None = None

    @property
    def with_mail(self) -> bool:
        """Whether the stage of mail runs."""
        return self.model.needs_mail if self.mail is None else self.mail


def pipeline_config(job: StreamJob) -> dict[str, Any]:
    """Return the configuration of the Java operators."""
    from kernels.entity_state.plan_json import plan_json
    from tasks.fraud.features import FEATURES_VERSION, state_specs
    from tasks.fraud.ingest.checks import RULES

    config = job.model.bundle.config
    layout = job.model.layout
    dataset = {
        name: getattr(config, name)
        for name in ("time", "amount", "label", "label_time", "event_id", "time_unit",
                     "amount_unit", "decimals", "origin_ms", "earliest_ms", "delay_ms")
    }  # fmt: skip
    made: dict[str, Any] = {
        "dataset": dataset
        | {
            "entities": [{"column": e.column, "kind": e.kind} for e in config.entities],
            "numeric": list(config.numeric),
            "categorical": list(config.categorical),
            "max_future_ms": round(config.max_future_days * 86_400_000),
        },
        "layouts": {kind: plan_json(spec) for kind, spec in state_specs(config).items()},
        "mode": job.mode,
        "publish_ms": job.preset.publish_ms,
        "batch_rows": job.preset.batch_rows,
        "epoch": job.epoch,
        "ttl_ms": job.ttl_ms,
        "dedup_ms": job.dedup_ms,
        "out_of_order_ms": job.out_of_order_ms,
        "idle_ms": job.idle_ms,
        "expected": {name: rule.expected for name, rule in RULES.items()},
        "detector_version": DETECTOR,
        "features_version": FEATURES_VERSION,
        "source": job.endpoint.source(),
        "sinks": job.endpoint.sinks(),
        "control": {
            **job.endpoint.control(),
            "initial": {"model": job.model.bundle.folder.name, "rules": dict(job.rules)},
        },
    }
    if job.with_mail:
        made["message"] = _message(layout, config)
    return made


def _message(layout: MailLayout, config: DatasetConfig) -> dict[str, Any]:
    """Return how the operators make the vector of a message."""
    from kernels.entity_state.spec import DEFAULT_WINDOWS

    names = [window.name for window in DEFAULT_WINDOWS]
    return {
        "each": len(layout.features) // len(layout.columns),
        "width": len(layout.features),
        "short": names.index("1d"),
        "long": names.index("30d"),
        "unit": 10**config.decimals,
    }


def optional_columns(job: StreamJob) -> tuple[str, ...]:
    """Return the columns the scoring function needs beside those of every row."""
    config, model = job.model.bundle.config, job.model
    wanted = {
        "numeric": bool(config.numeric),
        "categorical": bool(config.categorical),
        "keys": model.needs_keys,
        "mail": model.needs_mail,
    }
    return tuple(name for name, needed in wanted.items() if needed)


def build_job(environment: StreamExecutionEnvironment, job: StreamJob) -> StreamTableEnvironment:
    """Add the whole job to an environment; it is started by ``environment.execute_async``.

    Args:
        environment: Of ``connectors.flink.remote``, whose JVM knows our jar.
        job: The job.
    """
    from pyflink.java_gateway import get_gateway
    from pyflink.table import DataTypes, StreamTableEnvironment, Table
    from pyflink.table.udf import udf

    from connectors.flink.scoring import Score

    tables = StreamTableEnvironment.create(environment)
    package, config = get_gateway().jvm.io.penstock.stream, json.dumps(pipeline_config(job))
    java = package.Pipeline.build(tables._j_tenv, config)  # noqa: SLF001
    tables.create_temporary_view("rows", Table(java, tables))
    columns = optional_columns(job)
    function = Score(str(job.models), columns)
    tables.create_temporary_function(
        "score", udf(function, result_type=DataTypes.DOUBLE(), func_type="pandas")
    )
    kept, given = (
        ", ".join(f"`{name}`" for name in names) for names in (_KEPT, (*_GIVEN, *columns))
    )
    scored = tables.sql_query(f"SELECT {kept}, score({given}) AS p FROM `rows`")  # noqa: S608 - our own names
    package.Results.attach(tables._j_tenv, scored._j_table, config)  # noqa: SLF001
    return tables
