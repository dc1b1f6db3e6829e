"""The process that writes the online store: ``python -m connectors.online_store.writer``.

It takes state upserts from the state topic or from a folder of files and puts them into LMDB or
Redis. Messages are read at least once and versions never go backwards, so being killed at any time
costs a second of repeated work. A store or broker that is away is waited for; a message that is no
record is set aside with the reason.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from connectors.online_store.errors import StoreError, StoreFullError, StoreUnavailableError
from connectors.online_store.record import Record
from connectors.online_store.shape import Shape, shape_of
from connectors.online_store.state_folder import StateFolder
from connectors.online_store.state_source import StateSource, sort_out
from connectors.online_store.state_topic import StateTopic, TopicSettings
from connectors.online_store.store import STORE_VARIABLE, OnlineStore, open_store
from connectors.online_store.writer_status import WriterStatus, serve_status
from infra.errors import PenstockError

if TYPE_CHECKING:
    from infra.settings import Settings

logger = logging.getLogger(__name__)

STREAM_VARIABLE = "PENSTOCK_STREAM"
COMMIT_SECONDS = 1.0
COUNT_SECONDS = 10.0
RETRY_SECONDS = 0.5


class StoreWriter:
    """Moves records from a source to a store until it is told to stop."""

    def __init__(
        self,
        store: OnlineStore,
        source: StateSource,
        status: WriterStatus,
        *,
        shapes: Mapping[str, Shape] | None = None,
        health_file: Path | None = None,
    ) -> None:
        self._store, self._source, self._status = store, source, status
        self._shapes = shapes or {}
        self._health_file = health_file
        self._stopping = False
        self._next_commit = self._next_count = 0.0

    def stop(self) -> None:
        """End after the batch at hand."""
        self._stopping = True

    def run(self) -> None:
        """Work until `stop`; then make everything durable and commit it.

        Raises:
            StoreError: On a fault that waiting does not mend.
        """
        while not self._stopping:
            if not self.turn():
                return  # what is in hand was not written: it must be read again
        self._commit()

    def turn(self) -> bool:
        """Take what has come, write it, and once a second commit what is durable.

        Returns:
            Whether all of it found its place; False only when stopped while something was away.
        """
        status = self._status
        records, letters, gone = sort_out(self._source.take(), self._shapes)
        if records and not self._persist(lambda: self._write(records)):
            return False
        if letters:
            if not self._persist(lambda: self._source.refuse(letters)):
                return False
            status.records.labels("dead").inc(len(letters))
            rule = letters[0].rule.name
            logger.warning("%d messages set aside, the first for %s", len(letters), rule)
        if gone:
            status.records.labels("tombstone").inc(gone)
        status.turn()
        now = time.monotonic()
        if now >= self._next_commit:
            self._next_commit = now + COMMIT_SECONDS
            self._commit()
        return True

    def _persist(self, work: Callable[[], None]) -> bool:
        """Do ``work``, waiting for a store or broker that is away or full; False when stopped."""
        status = self._status
        while True:
            try:
                work()
            except (StoreUnavailableError, StoreFullError) as error:
                if status.trouble != str(error):
                    logger.error("%s", error)  # noqa: TRY400 - one line says it all
                status.trouble = str(error)
                status.available.set(0)
            else:
                if status.trouble:
                    logger.info("going on")
                status.trouble = ""
                status.available.set(1)
                return True
            status.turn()
            self._report()
            if self._stopping:
                return False
            self._source.wait(RETRY_SECONDS)

    def _write(self, records: Sequence[Record]) -> None:
        status, begun = self._status, time.perf_counter()
        applied = self._store.write(records)
        status.writing.observe(time.perf_counter() - begun)
        status.records.labels("applied").inc(applied)
        status.records.labels("older").inc(len(records) - applied)
        now = time.time()
        for record in records:
            status.freshness.observe(max(now - record.emitted_at / 1000, 0.0))

    def _commit(self) -> None:
        """Make what was written durable, then commit it to the source."""
        status = self._status
        try:
            self._store.flush()
            self._source.commit()
            if time.monotonic() >= self._next_count:
                self._next_count = time.monotonic() + COUNT_SECONDS
                for kind, count in self._store.counts().items():
                    status.entities.labels(kind).set(count)
        except (StoreUnavailableError, StoreFullError) as error:
            status.trouble = str(error)  # a later write says when it is over
        else:
            status.trouble = ""
        self._report()

    def _report(self) -> None:
        self._status.source_ready = self._source.ready
        self._status.lag.set(self._source.lag())
        if self._health_file is not None:
            self._status.save(self._health_file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process; returns its exit code."""
    from infra.logging import configure_logging
    from infra.settings import get_settings

    given = _parser().parse_args(arguments)
    try:
        settings = get_settings()
        configure_logging(settings.log_level)
        return _serve(given, settings)
    except PenstockError as error:
        logger.error("%s", error)  # noqa: TRY400 - people read one line
        return 1


def _serve(given: argparse.Namespace, settings: Settings) -> int:
    health = Path(given.health) if given.health else settings.home / "store-writer.health.json"
    url = given.store or os.environ.get(STORE_VARIABLE) or f"lmdb://{settings.home}/online-store"
    status = WriterStatus()
    status.turn()
    server = serve_status(status, given.port)
    try:
        with open_store(url) as store, closing(_source(given, settings, store)) as source:
            status.available.set(1)
            writer = StoreWriter(
                store, source, status, shapes=_shapes(given.config), health_file=health
            )

            def stop(number: int, _: FrameType | None) -> None:
                logger.info("%s: ending", signal.Signals(number).name)
                writer.stop()

            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, stop)
            logger.info("writing %s", store.place)
            writer.run()
    finally:
        server.shutdown()
        server.server_close()
        health.unlink(missing_ok=True)
    return 0


def _source(given: argparse.Namespace, settings: Settings, store: OnlineStore) -> StateSource:
    if given.folder:
        return StateFolder(Path(given.folder), store)
    return StateTopic(
        TopicSettings(
            given.kafka or kafka_servers(settings),
            dataset=given.dataset or os.environ.get(STREAM_VARIABLE, ""),
            group=given.group,
            from_beginning=given.from_beginning,
        )
    )


def kafka_servers(settings: Settings) -> str:
    """Return the brokers: PENSTOCK_KAFKA_SERVERS, else the local service.

    Raises:
        StoreError: When there is neither.
    """
    from infra.services.state import load_state
    from infra.settings import HOST

    named = os.environ.get("PENSTOCK_KAFKA_SERVERS", "")
    if named:
        return named
    state = load_state(settings, "kafka")
    if state is None:
        raise StoreError("no Kafka broker was named", "Run: penstock up --stream, or give --kafka")
    return f"{HOST}:{state.port}"


def _shapes(config: str) -> dict[str, Shape]:
    """Return what records must look like by the dataset config, if one was named."""
    if not config:
        return {}
    from tasks.fraud.dataset import ConfigError, find_config
    from tasks.fraud.features import state_specs

    try:
        specs = state_specs(find_config(config))
    except ConfigError as error:
        raise StoreError(str(error), "Name another by --config") from error
    return {kind: shape_of(spec) for kind, spec in specs.items()}


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m connectors.online_store.writer",
        description="Write the state that a stream publishes into the online store.",
    )
    made.add_argument("--store", default="", help=f"URL of the store (default: {STORE_VARIABLE})")
    made.add_argument("--folder", default="", help="folder of state files instead of Kafka")
    made.add_argument("--kafka", default="", help="brokers, host:port (default: the local service)")
    made.add_argument(
        "--dataset", default="", help=f"stream whose state topic is read (or {STREAM_VARIABLE})"
    )
    made.add_argument("--group", default="penstock-store-writer", help="keeps the offsets")
    made.add_argument("--from-beginning", action="store_true", help="read everything once more")
    made.add_argument("--config", default="", help="dataset config that the state must fit")
    made.add_argument("--port", type=int, default=8002, help="loopback port of metrics and health")
    made.add_argument("--health", default="", help="health file (default: in the home folder)")
    return made


if __name__ == "__main__":
    sys.exit(main())
