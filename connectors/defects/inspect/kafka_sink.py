"""Results as Kafka messages, keyed by image so that those of one stay in order."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from connectors.api.outbox import Producer, kafka_producer
from connectors.defects.inspect.journal import Result
from connectors.defects.inspect.sink import SinkError

FLUSH_SECONDS = 35.0
"""A little more than librdkafka tries by itself."""


class KafkaSink:
    """Writes to one topic; a batch is done when the broker has acknowledged all of it."""

    batch = 200
    position = None

    def __init__(self, servers: str, topic: str) -> None:
        self.name = f"kafka:{servers}/{topic}"
        self._servers, self._topic = servers, topic
        self._producer: Producer | None = None

    def write(self, results: Sequence[Result]) -> None:
        """Send results and wait until the broker has them."""
        producer = self._producer = self._producer or kafka_producer(self._servers)
        failed: list[str] = []
        done = 0

        def delivered(error: Any, _: Any) -> None:
            nonlocal done
            done += 1
            if error is not None:
                failed.append(str(error))

        for result in results:
            line = json.dumps(result.body, ensure_ascii=False, allow_nan=False).encode()
            key = (result.body["digest"] or result.body["image"]).encode()
            try:
                producer.produce(self._topic, line, key, on_delivery=delivered)
            except BufferError as error:
                raise SinkError(f"{self._servers}: too many messages wait") from error
        deadline = time.monotonic() + FLUSH_SECONDS
        while done < len(results) and time.monotonic() < deadline:
            producer.poll(0.1)
        if failed or done < len(results):
            why = failed[0] if failed else "no acknowledgement"
            raise SinkError(f"{self._servers}: {why}")

    def close(self) -> None:
        """Let go of the client; what was not acknowledged is sent again from the journal."""
        self._producer = None
