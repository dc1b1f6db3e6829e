"""The one switch between throughput and latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PresetName = Literal["throughput", "latency"]


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings that trade the delay of one transaction against the cost of all.

    Attributes:
        batch_rows: Rows whose states are fetched from memory together; only with state on the heap.
        bundle_rows: Rows that go to a scoring worker together.
        bundle_ms: Longest wait for them, milliseconds.
        arrow_rows: Rows of one Arrow batch.
        checkpoint_ms: Milliseconds between checkpoints; what a reader of committed messages waits.
        publish_ms: Least milliseconds between upserts of one entity's state.
        linger_ms: Milliseconds a Kafka producer waits to fill a batch.
        batch_bytes: Size of such a batch.
        buffer_ms: Longest time a network buffer between operators may stay open, milliseconds.
        jvm_options: Options of the JVM that runs a job of its own, with state on its heap.
    """

    batch_rows: int
    bundle_rows: int
    bundle_ms: int
    arrow_rows: int
    checkpoint_ms: int
    publish_ms: int
    linger_ms: int
    batch_bytes: int
    buffer_ms: int
    jvm_options: tuple[str, ...]

    def flink_options(self) -> dict[str, str]:
        """Return options of Flink by name."""
        return {"execution.buffer-timeout.interval": f"{self.buffer_ms} ms"}

    def producer_options(self) -> dict[str, str]:
        """Return options of a Kafka producer by name."""
        return {
            "linger.ms": str(self.linger_ms),
            "batch.size": str(self.batch_bytes),
            "compression.type": "lz4",
        }


PRESETS: dict[PresetName, Preset] = {
    "throughput": Preset(
        batch_rows=32,
        bundle_rows=100_000,
        bundle_ms=1_000,
        arrow_rows=5_000,
        checkpoint_ms=30_000,
        publish_ms=60_000,
        linger_ms=200,
        batch_bytes=262_144,
        buffer_ms=100,
        jvm_options=("-XX:+UseParallelGC", "-XX:+UseTransparentHugePages"),
    ),
    "latency": Preset(
        batch_rows=1,
        bundle_rows=500,
        bundle_ms=2,
        arrow_rows=500,
        checkpoint_ms=10_000,
        publish_ms=200,
        linger_ms=0,
        batch_bytes=16_384,
        buffer_ms=1,
        jvm_options=("-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
    ),
}
"""``throughput`` for catching up and backfills, ``latency`` for live traffic."""
