"""The line: each image once, in order, whole files only, nothing lost by a kill or a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from connectors.api.journal import JournalError, JournalFullError
from connectors.cleaning.image_files import ImageFolderError
from connectors.defects.inspect import run as runs_of_folders
from connectors.defects.inspect.camera import CameraFolder, CameraTiming
from connectors.defects.inspect.inspector import Opinion
from connectors.defects.inspect.journal import Inspected, Journal
from connectors.defects.inspect.line import Line, ModelFailedError
from connectors.defects.inspect.report import LabelsError, decided_alone, line_report, read_labels
from connectors.defects.inspect.run import RunConfig
from tasks.cleaning.images.sandbox import Sandbox
from tasks.cleaning.quarantine import QUARANTINE_SCHEMA
from tasks.defects.judgement import Judgement, Thresholds
from tasks.defects.samples import Box, Sample
from tests.benchmarks._hostile_images import by_hand
from tests.connectors.defects.lines import (
    PLAIN,
    VERDICTS,
    SpotInspector,
    name_of,
    plate,
    spot_of,
    write_plates,
)
from tests.processes import wait_for

QUICK = CameraTiming(settle=0.1, patience=0.4, poll=0.02)
ALONE = RunConfig(timing=QUICK, wait=5)


inspect_folder = partial(runs_of_folders.inspect_folder, decoder=PLAIN)


def never(*_):
    return False


def results_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def old(path):
    os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as made:
        yield made


def inspected(number, verdict="OK"):
    opinion = Opinion(verdict, 1.0, "", {}, (), (0.0, 1.0), "m")
    return Inspected(name_of(number), "1", f"{number:064x}", b"content", opinion)


def test_every_image_is_judged_once_and_told_in_order(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(30))
    run = inspect_folder(cam, out, SpotInspector(), ALONE)
    assert run.counts == Counter(VERDICTS[n % 10] for n in range(30))
    told = results_of(out)
    assert [one["image"] for one in told] == [name_of(n) for n in range(30)]
    assert [one["final"] for one in told] == [VERDICTS[n % 10] for n in range(30)]
    assert [one["event"] for one in told] == list(range(1, 31))
    write_plates(cam, range(30, 33))
    again = inspect_folder(cam, out, SpotInspector(), ALONE)
    assert again.counts.total() == 3
    assert again.report.images == 33
    assert len(results_of(out)) == 33
    assert json.loads((out / "run.json").read_text())["images"] == 33


def test_masks_of_a_written_dataset_are_not_judged(tmp_path, caplog):
    from connectors.defects.dataset_files import write_dataset

    pixels = np.arange(576, dtype=np.uint8).reshape(24, 24)
    samples = [
        Sample("good/1.png", pixels, "ok"),
        Sample("pit/2.png", pixels[::-1], "ng", "pit", pixels > 200),
    ]
    cam = write_dataset(samples, tmp_path / "cam").parent
    run = inspect_folder(cam, tmp_path / "out", SpotInspector(), ALONE)
    assert sum(run.counts.values()) == 2
    assert {row["image"] for row in results_of(tmp_path / "out")} == {"good/1.png", "pit/2.png"}
    (cam / "index.csv").write_text("image,label\na.png,perhaps\n")
    run = inspect_folder(cam, tmp_path / "other", SpotInspector(), ALONE)
    assert sum(run.counts.values()) == 3
    assert "index.csv:2: label 'perhaps'" in caplog.text


def test_touched_files_are_not_judged_again_and_copies_are_set_aside(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(4))
    inspect_folder(cam, out, SpotInspector(), ALONE)
    for n in range(4):
        os.utime(cam / name_of(n), (1_600_000_000, 1_600_000_000))
    (cam / "repeated.png").write_bytes(plate(2, spot_of(2)))
    (cam / name_of(3)).write_bytes(plate(77, 90))
    for name in ("repeated.png", name_of(3)):
        old(cam / name)
    run = inspect_folder(cam, out, SpotInspector(), ALONE)
    assert run.counts == {"again": 3, "OK": 1, "QUARANTINED": 1}
    assert run.report.quarantined == {"duplicate-of": 1}
    assert results_of(out)[-1]["quarantine"]["observed"] == f"the same bytes as {name_of(2)}"


def test_hostile_files_go_to_quarantine_with_their_bytes(tmp_path, sandbox):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(3))
    hostile = {f"h{i:03d}.png": one for i, one in enumerate(by_hand()) if i % 6 == 0}
    for name, one in hostile.items():
        (cam / name).write_bytes(one.content)
        old(cam / name)
    (cam / "link.png").symlink_to("/etc/passwd")
    run = inspect_folder(cam, out, SpotInspector(), ALONE, decoder=sandbox)
    assert run.report.images == len(hostile) + 4
    assert sum(run.report.edge.values()) == run.report.images
    tables = [pq.read_table(path) for path in sorted((out / "quarantine").rglob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert all(table.schema.equals(QUARANTINE_SCHEMA) for table in tables)
    assert len(rows) == run.report.edge["QUARANTINED"] >= 10
    kept = {row["source"].removeprefix("cam/"): row for row in rows}
    assert kept["link.png"]["rule"] == "link"
    assert all(
        kept[name]["payload"] == one.content
        for name, one in hostile.items()
        if name in kept and one.content and len(one.content) <= 1 << 20
    )


def test_deep_and_colour_images_are_judged_and_scores_that_are_no_numbers_go_to_people(
    tmp_path, sandbox
):
    from PIL import Image

    cam = tmp_path / "cam"
    cam.mkdir()
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 2**16, (30, 20)).astype(np.uint16)).save(cam / "deep.png")
    Image.fromarray(rng.integers(0, 256, (30, 20, 4), dtype=np.uint8)).save(cam / "alpha.png")
    Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(cam / "rgb.png")
    for path in cam.iterdir():
        old(path)
    seen = []

    class Unsure(SpotInspector):
        def judge(self, pixels):
            seen.append((pixels.dtype, pixels.shape))
            nothing = float("nan")
            box = Box(1, 2, 3, 4, "pit", nothing)
            heat = np.full((30, 20), np.nan, np.float32)
            return Judgement(nothing, heat, "OK", {"pit": nothing, "unknown": 1.0}, (box,))

    run = inspect_folder(cam, tmp_path / "out", Unsure(), ALONE, decoder=sandbox)
    assert sorted(seen, key=str) == [
        (np.dtype("uint8"), (30, 20)),
        (np.dtype("uint8"), (30, 20, 3)),
        (np.dtype("uint8"), (30, 20, 3)),
    ]
    assert run.counts == {"REVIEW": 3}
    edge = results_of(tmp_path / "out")[0]["edge"]
    assert (edge["kind"], edge["kinds"], edge["boxes"][0][4:]) == ("", {}, ["pit", 0.0])


def test_a_model_that_fails_on_one_image_sets_it_aside_and_on_all_ends_the_run(tmp_path):
    cam = tmp_path / "cam"
    write_plates(cam, range(25))

    class Failing(SpotInspector):
        def __init__(self, spots):
            super().__init__()
            self.spots = spots

        def judge(self, pixels):
            if int(pixels[3, 3]) in self.spots:
                raise RuntimeError("no such layer")
            return super().judge(pixels)

    run = inspect_folder(cam, tmp_path / "out", Failing({220}), ALONE)
    assert run.report.quarantined == {"not-judged": 2}
    with pytest.raises(ModelFailedError, match="20 images in a row"):
        inspect_folder(cam, tmp_path / "out2", Failing(set(range(256))), ALONE)
    # None of them is set aside for what was the model's fault.
    run = inspect_folder(cam, tmp_path / "out2", SpotInspector(), ALONE)
    assert run.counts == Counter(VERDICTS[n % 10] for n in range(25))
    assert run.report.quarantined == {}


def test_a_folder_that_is_none_an_empty_one_and_a_second_process(tmp_path):
    with pytest.raises(ImageFolderError, match="no folder"):
        inspect_folder(tmp_path / "none", tmp_path / "out", SpotInspector(), ALONE)
    (tmp_path / "cam").mkdir()
    run = inspect_folder(tmp_path / "cam", tmp_path / "out", SpotInspector(), ALONE)
    assert run.report.images == 0
    with (
        Journal(tmp_path / "out" / "line.db"),
        pytest.raises(JournalError, match="in use by another process"),
    ):
        inspect_folder(tmp_path / "cam", tmp_path / "out", SpotInspector(), ALONE)
    (tmp_path / "out" / "line.db").write_bytes(b"no database" * 1_000)
    for name in ("line.db-wal", "line.db-shm"):
        (tmp_path / "out" / name).unlink(missing_ok=True)
    with pytest.raises(JournalError, match="Move it away"):
        inspect_folder(tmp_path / "cam", tmp_path / "out", SpotInspector(), ALONE)


def names(folder, **options):
    return [file.name for file in CameraFolder(folder, never, timing=QUICK, **options) if file]


def test_a_file_that_grows_is_waited_for_and_keeps_the_order(tmp_path):
    whole = plate(1, 90, side=64)
    write_plates(tmp_path, (0, 2))
    done = threading.Event()

    def camera():
        with (tmp_path / name_of(1)).open("wb", buffering=0) as handle:
            for start in range(0, len(whole), 600):
                handle.write(whole[start : start + 600])
                time.sleep(0.05)
        done.set()

    writer = threading.Thread(target=camera)
    (tmp_path / name_of(1)).touch()
    writer.start()
    patient = CameraTiming(settle=0.2, patience=5.0, poll=0.02)
    seen = [file.name for file in CameraFolder(tmp_path, never, timing=patient) if file]
    assert done.is_set()
    assert seen == [name_of(n) for n in range(3)]
    writer.join()


def test_a_file_that_never_ends_holds_the_others_back_for_a_while_only(tmp_path):
    write_plates(tmp_path, range(3))
    stop = threading.Event()

    def camera():
        with (tmp_path / name_of(1)).open("ab", buffering=0) as handle:
            while not stop.wait(0.02):
                handle.write(b"x")

    writer = threading.Thread(target=camera)
    writer.start()
    wait_for(lambda: (tmp_path / name_of(1)).stat().st_mtime > 1_700_000_000)
    source = CameraFolder(tmp_path, never, timing=QUICK)
    seen = [file.name for file in source if file]
    stop.set()
    writer.join()
    assert seen == [name_of(0), name_of(2)]
    assert source.unfinished == [name_of(1)]


def test_renamed_files_come_whole_and_temporary_names_not_at_all(tmp_path):
    (tmp_path / "a.png.part").write_bytes(b"x")
    (tmp_path / ".b.png").write_bytes(b"x")
    (tmp_path / "c.png").write_bytes(plate(1, 90))
    assert names(tmp_path) == ["c.png"]
    (tmp_path / "a.png.part").rename(tmp_path / "a.png")
    assert names(tmp_path) == ["a.png", "c.png"]


def test_a_truncated_image_gets_time_to_become_whole(tmp_path, sandbox):
    """A camera may pause in the middle of a file for longer than files take to settle."""
    whole = plate(5, 240, side=64)
    path = tmp_path / "late.png"
    path.write_bytes(whole[: len(whole) // 2])
    timing = CameraTiming(settle=0.1, patience=3.0, poll=0.02)

    def finish():
        time.sleep(0.6)
        path.write_bytes(whole)

    writer = threading.Thread(target=finish)
    with Journal(tmp_path / "out" / "line.db") as journal:
        line = Line(journal, SpotInspector(), sandbox, queued=False, timing=timing)
        writer.start()
        source = CameraFolder(tmp_path, never, timing=timing, leave_out=tmp_path / "out")
        assert line.run(source)["NG"] == 1
    writer.join()


def test_a_watch_judges_what_comes_and_ends_when_told(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(3))
    stop = threading.Event()
    runs = []
    config = RunConfig(timing=QUICK, watch=True, wait=5)

    def work():
        runs.append(inspect_folder(cam, out, SpotInspector(), config, stop=stop))

    worker = threading.Thread(target=work)
    worker.start()
    wait_for(lambda: (out / "results.jsonl").is_file() and len(results_of(out)) == 3)
    write_plates(cam, range(3, 9), old=False)
    wait_for(lambda: len(results_of(out)) == 9, "new files were not judged")
    stop.set()
    worker.join()
    assert runs[0].report.images == 9
    assert [one["image"] for one in results_of(out)] == [name_of(n) for n in range(9)]


def test_a_watch_outlives_a_share_that_goes_away_and_folders_that_are_deleted(tmp_path, caplog):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(3))
    stop, ended = threading.Event(), []
    config = RunConfig(timing=QUICK, watch=True, wait=5)

    def work():
        ended.append(inspect_folder(cam, out, SpotInspector(), config, stop=stop))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        wait_for(lambda: (out / "results.jsonl").is_file() and len(results_of(out)) == 3)
        cam.rename(tmp_path / "away")
        wait_for(lambda: "goes on when it is there again" in caplog.text)
        (tmp_path / "away").rename(cam)
        write_plates(cam, range(3, 5))
        wait_for(lambda: len(results_of(out)) == 5, "new files were not judged")
    finally:
        stop.set()
        worker.join()
    assert ended[0].counts.total() == 5


def test_a_folder_that_is_deleted_while_it_is_listed_is_gone(tmp_path, monkeypatch):
    write_plates(tmp_path, range(1))
    (tmp_path / "yesterday").mkdir()
    looked = Path.is_symlink

    def deleted(path):
        found = looked(path)
        if path.name == "yesterday":
            path.rmdir()
        return found

    monkeypatch.setattr(Path, "is_symlink", deleted)
    assert names(tmp_path) == [name_of(0)]


def test_what_is_seen_is_forgotten_with_its_file(tmp_path):
    """A camera that deletes what it wrote must not fill the memory."""
    source = CameraFolder(tmp_path, lambda name, _: name == name_of(0), timing=QUICK)
    write_plates(tmp_path, range(4))
    assert [file.name for file in source if file] == [name_of(n) for n in (1, 2, 3)]
    for n in range(3):
        (tmp_path / name_of(n)).unlink()
    assert [file for file in source if file] == []
    assert list(source._seen) == [name_of(3)]


def test_nothing_is_recorded_where_the_disk_is_full_and_all_of_it_later(tmp_path):
    """By the largest size a file may have: SQLite hears of it as of a full disk."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            with Journal(tmp_path / "line.db") as journal:
                journal.record([inspected(0)], queued=False)
                resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
                big = Inspected(
                    name_of(1), "1", f"{1:064x}", b"x" * 600_000, inspected(1, "REVIEW").opinion
                )
                try:
                    journal.record([inspected(2), big], queued=True)
                except JournalFullError:
                    seen = [row["name"] for row in journal.rows()]
                    code = 0 if seen == [name_of(0)] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with Journal(tmp_path / "line.db") as journal:
        assert [row["name"] for row in journal.rows()] == [name_of(0)]
        journal.record([inspected(2), inspected(1, "REVIEW")], queued=True)
        assert journal.queue.state().waiting == 1
        assert len(journal.results_after(0, 10)) == 3


def test_the_report_counts_errors_before_and_after_the_central_model(tmp_path):
    def row(name, verdict, score, final):
        edge = {"verdict": verdict, "score": score, "thresholds": [0.4, 0.6]}
        return {"name": name, "verdict": verdict, "final": final, "edge": edge, "refusal": None}

    rows = [
        row("a", "OK", 0.1, "OK"),
        row("b", "REVIEW", 0.45, "NG"),
        row("c", "REVIEW", 0.55, "OK"),
        row("d", "NG", 0.9, "NG"),
        row("e", "OK", 0.2, "OK"),
    ]
    path = tmp_path / "labels.csv"
    path.write_text("image,label\na,ok\nb,NG\nc,good\nd,bad\ne,ng\n")
    report = line_report(rows, read_labels(path))
    assert report.edge_alone.to_json()["missed"] == 2
    assert report.edge_alone.to_json()["rejected"] == 1
    assert report.cascade.to_json()["miss_share"] == pytest.approx(1 / 3)
    assert report.cascade.to_json()["rejected"] == 0
    assert report.sent_share == 0.4
    path.write_text("image,label\na,maybe\n")
    with pytest.raises(LabelsError, match="line 2"):
        read_labels(path)
    for content, says in (
        ("image,label\na,ok\nb,ng\na,ng\n", "line 4: a is both"),
        ("image,label\na," + "x" * 200_000, "line 2: field larger"),
    ):
        path.write_text(content)
        with pytest.raises(LabelsError, match=says):
            read_labels(path)
    with pytest.raises(LabelsError, match="no file"):
        read_labels(tmp_path / "none.csv")
    path.write_text("file;verdict\n")
    with pytest.raises(LabelsError, match="'image' and 'label'"):
        read_labels(path)


@pytest.mark.parametrize(
    ("thresholds", "alone"),
    [(Thresholds(150, np.inf), "NG"), (Thresholds(-np.inf, 200), "OK"), (Thresholds(0, 340), "NG")],
)
def test_a_band_without_end_is_decided_by_its_other_end(thresholds, alone):
    """A promise of escapes alone leaves no score for NG; its middle would pass everything."""
    inspector = SpotInspector()
    inspector.thresholds = thresholds
    said = Opinion.of(inspector.judge(np.full((4, 4), 180, np.uint8)), inspector).to_json()
    assert said["verdict"] == "REVIEW"
    assert decided_alone(said) == alone


def test_thresholds_without_end_are_kept_as_numbers():
    inspector = SpotInspector(float("inf"))
    said = Opinion.of(inspector.judge(np.zeros((4, 4), np.uint8)), inspector).to_json()
    json.dumps(said, allow_nan=False)
    assert said["verdict"] == "REVIEW"
