"""Broken and repeated files as quarantine records, in the parts that every cleaning run writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from connectors.defects.inspect.journal import DUPLICATE, Journal, Result
from connectors.defects.inspect.sink import SinkError


class QuarantineSink:
    """Writes ``YYYY-MM-DD/part-JOURNAL-EVENT.parquet``.

    Journal and first event name a part, so a repetition after a crash replaces it, and nothing else
    does.
    """

    name = "quarantine"
    batch = 50
    position = None

    def __init__(self, target: Path, journal: Journal, source: Path) -> None:
        self._target, self._journal, self._source = target, journal, source

    def write(self, results: Sequence[Result]) -> None:
        """Write the refused ones of some results as one part."""
        refused = [result for result in results if result.body["quarantine"] is not None]
        if not refused:
            return
        # Those of former parts; of this one they are needed until the journal knows of it.
        self._journal.drop_payloads(refused[0].seq - 1)
        import pyarrow as pa

        from connectors.files import write_table
        from tasks.cleaning.quarantine import QUARANTINE_SCHEMA

        records = [
            {
                "payload": self._journal.payload(result.seq),
                "source": f"{self._source.name}/{result.body['image']}",
                "row": result.seq,
                "rule": result.body["quarantine"]["rule"],
                "column": "",
                "observed": result.body["quarantine"]["observed"],
                "expected": result.body["quarantine"]["expected"],
                "severity": (
                    "warning" if result.body["quarantine"]["rule"] == DUPLICATE else "error"
                ),
                "detector_version": "inspect/1",
                "confidence": 1.0,
                "time": datetime.fromisoformat(result.body["time"]),
            }
            for result in refused
        ]
        table = pa.Table.from_pylist(records, schema=QUARANTINE_SCHEMA)
        day = str(refused[0].body["time"])[:10]
        part = f"part-{self._journal.id}-{refused[0].event:012d}.parquet"
        try:
            write_table(table, self._target / day / part)
        except OSError as error:
            raise SinkError(f"{self._target}: {error.strerror or error}") from error

    def close(self) -> None:
        """Nothing is held."""
