"""A run over a folder: the line, its sinks and the uplink together, until all is told."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from connectors.cleaning.image_files import list_images
from connectors.defects.annotation_files import INDEX, OtherFiles, find_index
from connectors.defects.inspect.camera import CameraFolder, CameraTiming
from connectors.defects.inspect.delivery import Delivery
from connectors.defects.inspect.file_sinks import JsonLinesSink
from connectors.defects.inspect.http_link import HttpLink
from connectors.defects.inspect.inspector import Decoder, Inspector
from connectors.defects.inspect.journal import Journal
from connectors.defects.inspect.line import Line
from connectors.defects.inspect.monitor import Monitor, MonitorConfig, WatchReport
from connectors.defects.inspect.quarantine_sink import QuarantineSink
from connectors.defects.inspect.report import LineReport, line_report
from connectors.defects.inspect.retention import KEEP_DAYS, Retention, check_days
from connectors.defects.inspect.review_queue import QueueLimits, QueueState
from connectors.defects.inspect.sink import Sink
from connectors.defects.inspect.sinks import open_sink
from connectors.defects.inspect.uplink import Uplink
from connectors.files import atomic_path
from infra.errors import ConfigurationError
from tasks.cleaning.images.limits import ImageLimits
from tasks.cleaning.images.sandbox import Sandbox
from tasks.defects.data.annotation import AnnotationError

logger = logging.getLogger(__name__)

JOURNAL, REPORT, RESULTS, QUARANTINE = "line.db", "run.json", "results.jsonl", "quarantine"
ALARMS = "alarms.jsonl"
DECODER_MIB = 768
"""Of one decoder beside the model, both within 2 GiB; enough for 30 million pixels in colour."""

Told = Callable[[Counter[str], int], None]


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How a folder is inspected.

    Attributes:
        sinks: Texts as `open_sink` takes them, beside ``results.jsonl`` in the folder of the run.
        central: Address of the central machine, "" where doubtful images go to a person.
        token: What it knows this line by.
        watch: Go on until stopped.
        wait: Seconds that decisions and sinks are waited for at the end.
        queue: Bounds of the review queue.
        timing: How long files are waited for.
        keep_days: For so long images are remembered whose files are gone; 0 for good.
        decoder_mib: Memory of the decoder; images that need more are set aside.
        monitor: How changes of the line are watched for.
    """

    sinks: tuple[str, ...] = ()
    central: str = ""
    token: str = field(default="", repr=False)
    watch: bool = False
    wait: float = 30.0
    queue: QueueLimits = field(default_factory=QueueLimits)
    timing: CameraTiming = field(default_factory=CameraTiming)
    keep_days: float = KEEP_DAYS
    decoder_mib: int = DECODER_MIB
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        check_days(self.keep_days)
        self.limits()
        if not self.wait >= 0:
            raise ValueError(f"wait is {self.wait}; give 0 for not at all, or more")

    def limits(self) -> ImageLimits:
        """Return the limits of the decoder; `ValueError` for too little memory."""
        return ImageLimits(memory_mib=self.decoder_mib)


@dataclass(frozen=True, slots=True)
class InspectionRun:
    """What a run did.

    Attributes:
        counts: Files of this run by verdict.
        report: Of the line, with the runs before.
        queue: What still waits for the central machine.
        review_refused: Images that it refused -> why.
        undelivered: Sink -> results that it has not got, and what is wrong with it.
        refused: Sink -> results that it will never take.
        unfinished: Files that were still being written.
        central_trouble: What is wrong with the central machine, "" where nothing is.
        watch: Changes of the line, None where it is not watched.
    """

    counts: Counter[str]
    report: LineReport
    queue: QueueState
    review_refused: dict[str, str]
    undelivered: dict[str, tuple[int, str]]
    refused: dict[str, int]
    unfinished: tuple[str, ...]
    central_trouble: str
    watch: WatchReport | None = None


def inspect_folder(
    folder: Path,
    out: Path,
    inspector: Inspector,
    config: RunConfig | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    told: Told = lambda _counts, _found: None,
    stop: threading.Event | None = None,
    decoder: Decoder | None = None,
) -> InspectionRun:
    """Judge the images of a folder that were not judged yet, and tell everyone concerned.

    It can be killed at any moment and started again; Ctrl-C ends a watch.

    Args:
        folder: Images, or where a camera puts them.
        out: Folder of the run: journal, results, quarantine, report.
        inspector: The edge model.
        config: How.
        labels: What people say of images, for the errors in the report.
        told: Called with the counts and the files found so far.
        stop: Ends a watch.
        decoder: Decodes the files; a sandbox of this run if None.

    Raises:
        ImageFolderError: The folder cannot be read.
        ConfigurationError: A sink or the central machine is named wrongly.
        JournalError: Decisions cannot be kept, or another process works on ``out``.
        ModelFailedError: The model fails on every image.
    """
    config, stop = config or RunConfig(), stop or threading.Event()
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(out / JOURNAL, config.queue))
        deliveries, uplink = _threads(stack, config, journal, folder, out)
        threads = [*deliveries, *([uplink] if uplink else [])]
        for thread in threads:
            thread.start()
        consumers = [delivery.sink.name for delivery in deliveries]
        retention = Retention(journal, folder, consumers, config.keep_days)

        def kept() -> None:
            for thread in threads:
                thread.wake()
            retention.sweep_often()

        monitor = _monitor(stack, config, journal, inspector, out)
        source = CameraFolder(
            folder,
            journal.knows,
            leave_out=out,
            skip=_masks(folder),
            timing=config.timing,
            watch=config.watch,
            stop=stop,
        )
        line = Line(
            journal,
            inspector,
            decoder or stack.enter_context(Sandbox(config.limits(), workers=1)),
            queued=uplink is not None,
            timing=config.timing,
            monitor=monitor,
            told=lambda counts: told(counts, source.found),
            kept=kept,
        )
        try:
            line.run(source, stop if config.watch else None)
        except KeyboardInterrupt:
            if not config.watch:
                raise
            logger.info("the watch ends")
        _drain(uplink, deliveries, config.wait)
        run = _told(line, source, journal, uplink, deliveries, labels, monitor)
    _write_report(run, out / REPORT)
    return run


def _masks(folder: Path) -> frozenset[str]:
    """Return the masks that the index of a dataset in the folder names: no pictures of parts."""
    if not (folder / INDEX).is_file():
        return frozenset()
    try:
        entries = find_index(OtherFiles(folder, list_images(folder))) or []
    except AnnotationError as error:
        logger.warning("masks are judged like images, for the index cannot be read: %s", error)
        return frozenset()
    masks = frozenset(entry.mask for entry in entries if entry.mask)
    if masks:
        logger.info("%s masks of %s are left out", f"{len(masks):,}", INDEX)
    return masks


def _threads(
    stack: ExitStack, config: RunConfig, journal: Journal, folder: Path, out: Path
) -> tuple[list[Delivery], Uplink | None]:
    """Return what hands results on and what asks the central machine; ended with the stack."""
    sinks = _open_sinks(config.sinks, journal, folder, out)
    deliveries = [Delivery(journal, sink) for sink in sinks]
    for delivery in deliveries:
        stack.callback(delivery.end)
    if not config.central:
        return deliveries, None

    def settled() -> None:
        for delivery in deliveries:
            delivery.wake()

    link = HttpLink(config.central, token=config.token, secret=True)
    uplink = Uplink(journal, link, folder, settled=settled)
    stack.callback(uplink.end)
    return deliveries, uplink


def _monitor(
    stack: ExitStack, config: RunConfig, journal: Journal, inspector: Inspector, out: Path
) -> Monitor | None:
    if not config.monitor.parts:
        return None
    file = JsonLinesSink(out / ALARMS, journal.id)
    stack.callback(file.close)
    return Monitor(journal, inspector.digest, config.monitor, file)


def _open_sinks(texts: Sequence[str], journal: Journal, folder: Path, out: Path) -> list[Sink]:
    opened: list[Sink] = [QuarantineSink(out / QUARANTINE, journal, folder)]
    try:
        for text in (f"jsonl:{out / RESULTS}", *texts):
            opened.append(open_sink(text, journal, folder, leave_out=out))
            _require_other(opened)
    except BaseException:
        for sink in opened:
            sink.close()
        raise
    return opened


def _require_other(sinks: Sequence[Sink]) -> None:
    *before, last = (sink.name for sink in sinks)
    if last in before:
        raise ConfigurationError(f"sink {last} is named twice", "Name it once")


def _drain(uplink: Uplink | None, deliveries: Sequence[Delivery], seconds: float) -> None:
    """Wait for decisions, then for the sinks that tell of them."""
    deadline = time.monotonic() + seconds
    if uplink is not None:
        uplink.drain(deadline)
    # Whoever waited in vain for the central machine need not wait for files as well.
    deadline = max(deadline, time.monotonic() + min(seconds, 2.0))
    for delivery in deliveries:
        delivery.drain(deadline)


def _told(
    line: Line,
    source: CameraFolder,
    journal: Journal,
    uplink: Uplink | None,
    deliveries: Sequence[Delivery],
    labels: Mapping[str, str] | None,
    monitor: Monitor | None,
) -> InspectionRun:
    queue = journal.queue.state() if uplink is not None else QueueState()
    return InspectionRun(
        counts=line.counts,
        report=line_report(journal.rows(), labels, journal.forgotten()),
        queue=queue,
        review_refused=dict(journal.queue.refusals()),
        undelivered={
            delivery.sink.name: (left, delivery.trouble)
            for delivery in deliveries
            if (left := delivery.waiting())
        },
        refused=journal.refused(),
        unfinished=tuple(source.unfinished),
        central_trouble="" if uplink is None else uplink.trouble,
        watch=None if monitor is None else monitor.report(),
    )


def _write_report(run: InspectionRun, path: Path) -> None:
    said = {
        **run.report.to_json(),
        "this_run": dict(run.counts),
        "waiting": {
            "to_send": run.queue.waiting + run.queue.unqueued,
            "to_be_decided": run.queue.sent,
            "refused": run.review_refused,
        },
        "undelivered": {name: left for name, (left, _) in run.undelivered.items()},
        "refused_by_sinks": run.refused,
        "watch": {"state": "off"} if run.watch is None else run.watch.to_json(),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(said, indent=1), encoding="utf-8")
