"""A stream job as a small JSON file: what the submitter, the watchdog and a person start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from connectors.flink.endpoints import Endpoint, FileEndpoint, KafkaEndpoint
from connectors.flink.presets import PRESETS, Preset, PresetName
from infra.errors import ConfigurationError
from infra.files import write_atomically

if TYPE_CHECKING:
    from connectors.flink.job import Mode, StreamJob
    from connectors.flink.remote import JobOptions

Target = Literal["remote", "local", "application"]

EPOCH_START = 26_297_280
"""Minutes from 1970 to 2020, when epochs begin."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """Everything that defines a stream job.

    Attributes:
        name: Name of the stream; part of topic names and of the job's name.
        models: Folder of model folders.
        model: Stamp of the model at the start.
        rules: Rules at the start.
        kafka: Brokers; empty: files.
        folder: Folder of the streams' folders, without brokers.
        target: ``remote`` (our session cluster), ``local`` (inside the submitter) or
            ``application`` (Flink's driver runs the submitter: Kubernetes). There the deployment
            decides on parallelism, state and what is restored.
        mode: ``latency`` or ``event-time``.
        preset: ``latency`` or ``throughput``.
        parallelism: Parallel instances of every operator.
        bounded: Read to the present end and stop.
        batch: Bounded input by Flink's batch runtime: one key after the other, no checkpoints.
        start: Where a job without state begins in Kafka.
        labels: Whether labels come as a stream of their own.
        epoch: Minutes since 2020 at which the state was begun.
        restore: Savepoint or checkpoint to go on from.
        out_of_order_ms: How far events may come out of order in event-time mode.
        idle_ms: Milliseconds after which a silent partition holds nothing up.
        ttl_days: Days after which an entity is forgotten; 0 for never.
        dedup_hours: Hours for which event ids are remembered beside the entity's own ring.
        mail: Whether the stage of mail runs; None: when the model's head reads mail.
        checkpoint_s: Seconds between checkpoints; 0: those of the preset, for files at most 1,
            since a file cannot be read before it is committed.
    """

    name: str
    models: str
    model: str
    rules: dict[str, Any] = field(default_factory=dict)
    kafka: str = ""
    folder: str = ""
    target: Target = "remote"
    mode: Mode = "latency"
    preset: PresetName = "latency"
    parallelism: int = 1
    bounded: bool = False
    batch: bool = False
    start: Literal["committed", "earliest", "latest"] = "committed"
    labels: bool = True
    epoch: int = 0
    restore: str = ""
    out_of_order_ms: int = 5_000
    idle_ms: int = 2_000
    ttl_days: float = 0.0
    dedup_hours: float = 0.0
    mail: bool | None = None
    checkpoint_s: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if bool(self.kafka) == bool(self.folder):
            raise ConfigurationError(
                f"stream {self.name!r}: give brokers or a folder",
                "Set either kafka or folder, not both",
            )
        if self.preset not in PRESETS:
            raise ConfigurationError(
                f"preset {self.preset!r} does not exist", f"Choose from {', '.join(PRESETS)}"
            )
        if self.mode not in ("latency", "event-time") or self.target not in get_args(Target):
            raise ConfigurationError(
                f"mode {self.mode!r}, target {self.target!r}",
                f"Modes are latency and event-time, targets {', '.join(get_args(Target))}",
            )
        if self.target == "application" and self.restore:
            raise ConfigurationError(
                "target application: the deployment says what is restored, not the spec",
                "Set job.initialSavepointPath of the FlinkDeployment, and leave restore out",
            )
        if self.start not in get_args(Literal["committed", "earliest", "latest"]):
            raise ConfigurationError(
                f"start {self.start!r} does not exist", "Choose committed, earliest or latest"
            )
        if self.batch and not (self.bounded and self.mode == "event-time"):
            raise ConfigurationError(
                "the batch runtime needs bounded input in event-time mode",
                "Set bounded and mode='event-time', or leave batch out",
            )
        if not 0 <= self.checkpoint_s <= 300:  # half of what a transaction may last
            raise ConfigurationError(f"checkpoint_s {self.checkpoint_s}", "Give 0 to 300 seconds")
        if not 1 <= self.parallelism <= 720:
            raise ConfigurationError(f"parallelism {self.parallelism}", "Give 1 to 720")

    @property
    def job_name(self) -> str:
        """Name under which Flink lists the job."""
        return f"penstock-{self.name}"

    @property
    def model_folder(self) -> str:
        """Folder of the model at the start."""
        return str(Path(self.models) / self.model)

    @property
    def prefix(self) -> str:
        """Prefix of the topics."""
        return f"penstock.{self.name}"

    def endpoint(self) -> Endpoint:
        """Return where the job reads and writes."""
        if not self.kafka:
            return FileEndpoint(Path(self.folder), bounded=self.bounded, labels=self.labels)
        return KafkaEndpoint(
            self.kafka,
            self.prefix,
            bounded=self.bounded,
            start=self.start,
            labels=self.labels,
            producer=PRESETS[self.preset].producer_options(),
        )

    def job(self) -> StreamJob:
        """Return the job; loads the model.

        Raises:
            BundleError: When the model is broken.
        """
        from connectors.flink.job import StreamJob
        from tasks.fraud.bundle import Bundle
        from tasks.fraud.online.model import OnlineModel

        return StreamJob(
            model=OnlineModel(Bundle.load(Path(self.models) / self.model)),
            models=Path(self.models),
            rules=self.rules,
            endpoint=self.endpoint(),
            mode=self.mode,
            preset=PRESETS[self.preset],
            epoch=self.epoch,
            out_of_order_ms=self.out_of_order_ms,
            idle_ms=self.idle_ms,
            ttl_ms=round(self.ttl_days * 86_400_000),
            dedup_ms=round(self.dedup_hours * 3_600_000),
            mail=self.mail,
        )

    def options(self) -> JobOptions:
        """Return what the job asks of Flink."""
        from connectors.flink.remote import JobOptions
        from infra.jars import stream_jar

        preset = PRESETS[self.preset]
        extra = preset.flink_options()
        if self.batch:
            extra["execution.runtime-mode"] = "BATCH"
        if self.target == "local" and not self.bounded:
            # Nobody waits for its end: it tries again, as on the cluster, until the cause is gone.
            extra |= {
                "restart-strategy.type": "exponential-delay",
                "restart-strategy.exponential-delay.initial-backoff": "500 ms",
                "restart-strategy.exponential-delay.max-backoff": "10 s",
            }
        return JobOptions(
            name=self.job_name,
            parallelism=self.parallelism,
            checkpoint_ms=self._checkpoint_ms(preset),
            bundle_rows=preset.bundle_rows,
            bundle_ms=preset.bundle_ms,
            arrow_rows=preset.arrow_rows,
            restore=self.restore or None,
            # A deployment has it on the class path of its image.
            jars=() if self.target == "application" else (stream_jar(),),
            extra=extra,
        )

    def _checkpoint_ms(self, preset: Preset) -> int:
        if self.checkpoint_s:
            return round(self.checkpoint_s * 1_000)
        return preset.checkpoint_ms if self.kafka else min(preset.checkpoint_ms, 1_000)

    def with_changes(self, **changes: Any) -> StreamSpec:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def save(self, path: Path) -> None:
        """Write the file whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> StreamSpec:
        """Read a file.

        Raises:
            ConfigurationError: When it is missing or holds something else.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"no stream is described in {path}", "Start one: penstock stream start"
            ) from error
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{path}: {error}", "Start the stream anew") from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StreamSpec:
        """Build from plain data; unknown fields are refused."""
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigurationError(f"a stream has no {unknown[0]!r}", "Remove the field")
        return cls(**data)


def new_epoch(now_s: float) -> int:
    """Return the epoch of a state begun now, minutes since 2020."""
    return int(now_s // 60) - EPOCH_START
