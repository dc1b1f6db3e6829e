"""The flow that has a table scored by someone who never sees it.

The owner's side of encrypted scoring, on a schedule or by hand: seal, send, check, open. Token and
passphrase come from PENSTOCK_TOKEN and PENSTOCK_PRIVATE_PASSPHRASE, never from parameters, which
Prefect keeps.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from prefect import flow

from connectors.private import steps
from connectors.tracking import RunRequest, tracked_run
from flows.artifacts import publish_private_batch
from infra.settings import get_settings

MOST_ROWS = 16_384 - 3
"""Rows of a request; three canaries come with each, and scorers take 16,384 by default."""


@flow(name="encrypted-batch", timeout_seconds=4 * 3_600)
def encrypted_batch(
    rows: str,
    out: str,
    offer: str,
    key: str,
    url: str,
    *,
    authority: str = "",
    scores: bool = False,
    most_rows: int = MOST_ROWS,
) -> dict[str, Any]:
    """Have a table scored encrypted.

    Args:
        rows: CSV, ``.npy`` or Parquet file with the columns that the offer names.
        out: CSV for what came back.
        offer: The scorer's offer, a file.
        key: Key file, registered with the scorer.
        url: Address of the scorer.
        authority: Certificates to trust instead of the system's (PEM).
        scores: Write scores, which stay with the key's owner; else bands alone.
        most_rows: Rows of a request.

    Returns:
        JSON record: rows, refused, bands, receipts, bytes, seconds, file, run.
    """
    work = get_settings().home / "work"
    work.mkdir(parents=True, exist_ok=True)
    request = RunRequest(
        dataset="encrypted-scoring",
        name=Path(rows).stem,
        params={"url": url, "offer": Path(offer).name, "scores": scores, "most_rows": most_rows},
    )
    with (
        tracked_run(request) as run,
        tempfile.TemporaryDirectory(dir=work, prefix="sealed-") as folder,
    ):
        sealed = steps.seal_rows(rows, offer, key, folder, most_rows)
        answers = [steps.score_sealed(file, offer, key, url, authority) for file in sealed["files"]]
        opened = steps.open_answers(answers, sealed, offer, key, out, values=scores)
        record: dict[str, Any] = {
            "rows": sealed["rows"],
            "refused": len(sealed["refused"]),
            "bands": opened["bands"],
            "receipts": [one["receipt"] for one in answers],
            "up_bytes": sealed["up_bytes"],
            "down_bytes": sum(one["down_bytes"] for one in answers),
            "seal_cpu_seconds": sealed["cpu_seconds"],
            "scorer_seconds": sum(one["seconds"] for one in answers),
            "out": opened["out"],
            "run_page": run.page,
        }
        figures = {name: value for name, value in record.items() if isinstance(value, int | float)}
        run.log_metrics(figures | {f"band.{k}": n for k, n in record["bands"].items()})
        run.log_text("\n".join(record["receipts"]) + "\n", "receipts.txt")
    publish_private_batch(record)
    return record
