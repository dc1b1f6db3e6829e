"""The demo's live step: payments ask the API, the stream scores the same events, and they agree.

All of it on this machine and without a broker: an API that keeps its state itself and journals what
it accepted, and a stream that watches the journal. Both begin with the same weeks of history.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.flink.history import write_history
from flows.live_traffic import Answer, divided, send
from infra.errors import ServiceError
from infra.services.ports import any_free_port
from infra.services.process import (
    is_healthy,
    is_running,
    last_line,
    spawn,
    stop_group,
    wait_until_ready,
)
from infra.services.service import Service
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.services.state import ServiceState
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.dataset import DatasetConfig
    from tasks.fraud.transactions import Transactions

logger = logging.getLogger(__name__)

PAYMENTS = 1_000
RATE = 100.0
START_SECONDS = 90.0
STREAM_SECONDS = 30.0
EXAMPLES = 5


@dataclass(frozen=True)
class LiveFigures:
    """What was seen.

    Attributes:
        payments: Payments sent, one request each.
        per_s: Rate at which they were sent.
        p50_ms: Median time of an answer, as the client saw it.
        p99_ms: Time within which 99 of 100 were answered.
        decisions: Decision -> how many.
        streamed: Payments whose score the stream wrote, too.
        stream_p50_s: Median time from an answer to that score.
        difference: Largest difference of the two scores.
        examples: The highest scores: payment, score, decision and reasons.
        seconds: Duration of the step.
    """

    payments: int
    per_s: float
    p50_ms: float
    p99_ms: float
    decisions: dict[str, int]
    streamed: int
    stream_p50_s: float
    difference: float
    examples: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def run_live(
    settings: Settings,
    data: Path,
    bundle: Bundle,
    folder: Path,
    *,
    payments: int = PAYMENTS,
    rate: float = RATE,
    tell: Callable[[str], None] = logger.info,
) -> LiveFigures:
    """Send the last payments of a file to an API and a stream that know those before them.

    Args:
        settings: The settings.
        data: File of payments, in order of time.
        bundle: The model.
        folder: Emptied; holds state, journal, the stream's results and ``live.json`` afterwards.
        payments: How many are sent.
        rate: How many a second.
        tell: Called with what is done now.

    Raises:
        ServiceError: API or stream did not start, or the stream did not score every payment.
    """
    began = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tell("starting the stream and the API")
    bank = divided(data, bundle.config, payments)
    journal = folder / "api" / "journal"
    past, _ = write_history(bank.past, journal, lambda _: None)
    local = settings.model_copy(update={"home": folder})
    with _stream(local, bundle, journal) as stream:
        _seed(bank.history, bundle.config, folder / "api" / "store")
        with _api(local, bundle.folder, folder / "api") as (port, token):
            watch = _Scores(journal / "scores", stream)
            tell(f"the stream reads {past:,} payments of the past")
            watch.wait(lambda: len(watch.seen) >= past, START_SECONDS)
            tell(f"{len(bank.live):,} live payments, {rate:.0f} a second")
            answers, per_s = send(port, token, bundle.config, bank.live, rate, watch.look)
            watch.wait(lambda: answers.keys() <= watch.seen.keys(), STREAM_SECONDS)
    figures = _figures(answers, watch, per_s, time.perf_counter() - began)
    (folder / "live.json").write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")
    for name in ("transactions", "labels", "state", "scores"):
        shutil.rmtree(journal / name, ignore_errors=True)  # 100 MB that nobody reads
    return figures


def _seed(history: Transactions, config: DatasetConfig, store: Path) -> None:
    """Give the API the state of the same past."""
    from connectors.online_store.record import epoch_of
    from connectors.online_store.seed import seed_store
    from connectors.online_store.store import open_store

    with open_store(f"lmdb://{store.resolve()}") as opened:
        seed_store(opened, history, config, epoch=epoch_of(int(time.time() * 1_000)))


@contextmanager
def _running(settings: Settings, service: Service) -> Iterator[ServiceState]:
    """A process for the length of a ``with`` block; its whole group ends with it."""
    state, process = spawn(settings, service)
    try:
        yield state
    finally:
        stop_group(state)
        process.wait()


@contextmanager
def _stream(settings: Settings, bundle: Bundle, journal: Path) -> Iterator[ServiceState]:
    """The stream over the API's journal, inside one process."""
    from connectors.api.rules import default_rules
    from connectors.flink.models import place_model
    from connectors.flink.spec import StreamSpec, new_epoch

    placed = place_model(bundle.folder, settings.home / "models")
    spec = StreamSpec(
        name="live-demo",
        models=str(settings.home / "models"),
        model=placed.folder.name,
        rules=default_rules(placed.thresholds, placed.digest).to_dict(),
        folder=str(journal),
        target="local",
        epoch=new_epoch(time.time()),
    )
    path = settings.home / "stream.json"
    spec.save(path)
    service = Service(
        name="live-stream",
        command=(sys.executable, "-m", "connectors.flink.submit", str(path)),
        port=0,
        environment={"PENSTOCK_HOME": str(settings.home)},
    )
    with _running(settings, service) as state:
        yield state


@contextmanager
def _api(settings: Settings, model: Path, home: Path) -> Iterator[tuple[int, str]]:
    """The API with its own state; yields port and token."""
    port, token = any_free_port(), secrets.token_urlsafe(24)
    service = Service(
        name="live-api",
        command=(sys.executable, "-m", "connectors.api.server"),
        port=port,
        health="/health/ready",
        environment={
            "PENSTOCK_API_HOME": str(home),
            "PENSTOCK_API_MODEL": str(model),
            "PENSTOCK_API_PORT": str(port),
            "PENSTOCK_API_TOKENS": f"demo:score:{token}",
            "PENSTOCK_API_RELOAD_SECONDS": "0",
        },
    )
    with _running(settings, service) as state:
        wait_until_ready(state, lambda: is_healthy(port, service.health), START_SECONDS)
        yield port, token


class _Scores:
    """What the stream has written so far.

    Attributes:
        seen: Event id -> score and moment at which it was found.
    """

    def __init__(self, folder: Path, stream: ServiceState) -> None:
        self._folder, self._stream = folder, stream
        self._read: set[Path] = set()
        self.seen: dict[str, tuple[float, float]] = {}

    def look(self) -> None:
        """Read the files that are new; a file shows once it is committed."""
        for path in self._folder.rglob("part-*"):
            if path in self._read or ".inprogress" in path.name:
                continue
            self._read.add(path)
            now = time.perf_counter()
            for line in path.read_bytes().splitlines():
                found = json.loads(line)
                self.seen.setdefault(found["event_id"], (found["score"], now))

    def wait(self, done: Callable[[], bool], seconds: float) -> None:
        """Look until it is done.

        Raises:
            ServiceError: It takes too long, or the stream has ended.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.look()
            if done():
                return
            if not is_running(self._stream) or time.monotonic() > deadline:
                raise ServiceError(
                    f"the stream did not score the payments: {last_line(Path(self._stream.log))}",
                    f"Read {self._stream.log}",
                )
            time.sleep(0.1)


def _figures(
    answers: Mapping[str, Answer], watch: _Scores, per_s: float, seconds: float
) -> LiveFigures:
    import numpy as np

    took = np.array([answer.took for answer in answers.values()]) * 1_000
    later = [watch.seen[event][1] - answer.at for event, answer in answers.items()]
    apart = [abs(watch.seen[e][0] - answer.content["score"]) for e, answer in answers.items()]
    highest = sorted(answers.values(), key=lambda answer: -answer.content["score"])[:EXAMPLES]
    return LiveFigures(
        payments=len(answers),
        per_s=per_s,
        p50_ms=float(np.percentile(took, 50)),
        p99_ms=float(np.percentile(took, 99)),
        decisions=dict(Counter(answer.content["decision"] for answer in answers.values())),
        streamed=sum(event in watch.seen for event in answers),
        stream_p50_s=float(np.median(later)),
        difference=max(apart),
        examples=[
            {
                "payment": answer.payment,
                "score": answer.content["score"],
                "decision": answer.content["decision"],
                "reasons": [reason["text"] for reason in answer.content.get("reasons") or []],
            }
            for answer in highest
        ],
        seconds=seconds,
    )
