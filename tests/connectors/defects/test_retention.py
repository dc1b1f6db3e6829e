"""What a line forgets, and what it must not."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from connectors.defects.inspect.camera import CameraTiming, stat_of
from connectors.defects.inspect.central.desk import Desk
from connectors.defects.inspect.central.service import CentralConfig
from connectors.defects.inspect.central.store import ReviewStore
from connectors.defects.inspect.inspector import Opinion
from connectors.defects.inspect.journal import Inspected, Journal
from connectors.defects.inspect.report import line_report
from connectors.defects.inspect.retention import Retention
from connectors.defects.inspect.run import RunConfig, inspect_folder
from tasks.cleaning.images.decode import ImageRefusedError
from tests.connectors.defects.lines import PLAIN, SpotInspector, plate, write_plates

SINK = "jsonl"
QUICK = CameraTiming(settle=0.01, patience=0.1, poll=0.01)


def later() -> datetime:
    return datetime.now(UTC) + timedelta(days=31)


def shown(number, verdict="OK", *, content=b"content"):
    opinion = Opinion(verdict, 1.0, "", {}, (), (0.0, 1.0), "m")
    return Inspected(f"{number}.png", "1", f"{number:064x}", content, opinion, heat=b"h" * 2_000)


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "line.db") as made:
        yield made


def test_what_is_old_gone_and_told_is_forgotten_but_counted(tmp_path, journal):
    broken = Inspected("x.png", "1", "f" * 64, b"?", None, ImageRefusedError("broken", "o", "e"))
    journal.record([shown(0), shown(1, "NG"), shown(2, "REVIEW"), broken], queued=False)
    before = line_report(journal.rows(), None, journal.forgotten())
    retention = Retention(journal, tmp_path, [SINK], 30, clock=later)
    assert retention.sweep() == 0  # nobody was told
    journal.advance(SINK, journal.last_event())
    assert Retention(journal, tmp_path, [SINK], 30).sweep() == 0  # not old
    assert Retention(journal, tmp_path, [SINK], 0, clock=later).sweep() == 0  # for good
    assert Retention(journal, tmp_path, [SINK, "csv"], 30, clock=later).sweep() == 0
    assert retention.sweep() == 4
    assert list(journal.rows()) == []
    assert journal.results_after(0, 10) == []
    assert line_report(journal.rows(), None, journal.forgotten()) == before
    journal.record([shown(0)], queued=False)
    assert journal.last_event() == 5  # numbers are never used again


def test_a_file_that_lies_there_is_not_judged_again(tmp_path):
    camera, out = tmp_path / "camera", tmp_path / "out"
    camera.mkdir()
    for number in range(3):
        (camera / f"{number}.png").write_bytes(plate(number, 90))
    # By now everything is older than no time at all.
    config = RunConfig(timing=QUICK, keep_days=1e-9)
    for _ in range(2):
        inspect_folder(camera, out, SpotInspector(), config, decoder=PLAIN)
    (camera / "0.png").unlink()
    (camera / "3.png").write_bytes(plate(3, 90))
    run = inspect_folder(camera, out, SpotInspector(), config, decoder=PLAIN)
    assert run.counts == {"OK": 1}
    assert run.report.images == 4
    with Journal(out / "line.db") as journal:
        assert {row["name"] for row in journal.rows()} == {"1.png", "2.png", "3.png"}
    assert len((out / "results.jsonl").read_text().splitlines()) == 4


def test_images_that_wait_for_the_central_machine_are_kept(tmp_path, journal):
    journal.record([shown(0, "REVIEW"), shown(1, "REVIEW")], queued=True)
    journal.advance(SINK, journal.last_event())
    retention = Retention(journal, tmp_path, [SINK], 30, clock=later)
    assert retention.sweep() == 0
    journal.queue.refuse(1, "too large")
    assert journal.settle(f"{1:064x}", {"verdict": "OK"})
    assert retention.sweep() == 1  # the other one's decision is not told yet
    journal.advance(SINK, journal.last_event())
    assert retention.sweep() == 1
    assert journal.queue.state().open == 0


def test_the_file_stops_growing(tmp_path, journal):
    retention = Retention(journal, tmp_path, [SINK], 30, clock=later)
    sizes = []
    for turn in range(6):
        journal.record([shown(100 * turn + k) for k in range(100)], queued=False)
        journal.advance(SINK, journal.last_event())
        assert retention.sweep() == 100
        with journal.database.reading() as connection:
            sizes.append(connection.execute("PRAGMA page_count").fetchone()[0])
    assert sizes[-1] == sizes[1]


def test_the_central_machine_forgets_old_decisions_alone(tmp_path):
    store = ReviewStore(tmp_path / "central.db")
    for key in "ab":
        assert store.take(key * 64, b"image", line="edge", name=key, edge="{}")
    assert store.decide("a" * 64, {"verdict": "OK"}, b"")
    assert store.forget(datetime.now(UTC) - timedelta(days=1)) == 0
    assert store.forget(later()) == 1
    assert store.decisions(["a" * 64, "b" * 64]) == ({}, ["b" * 64], ["a" * 64])
    store.close()


@pytest.mark.parametrize("wrong", [{"keep_days": -1}, {"wait": -1}, {"keep_days": float("nan")}])
def test_days_and_waits_below_none_are_refused(wrong):
    with pytest.raises(ValueError, match="give 0"):
        RunConfig(**wrong)


@pytest.mark.parametrize("days", [1e6, 1e12, float("inf")])
def test_days_that_no_calendar_has_are_refused(days):
    for config in (RunConfig, CentralConfig):
        with pytest.raises(ValueError, match="at most 36,500"):
            config(keep_days=days)


def test_files_that_are_touched_or_copied_back_are_not_forgotten(tmp_path):
    """More of them than are journalled together: the first sweep comes before the others."""
    camera, out = tmp_path / "camera", tmp_path / "out"
    write_plates(camera, range(40))
    config = RunConfig(timing=QUICK, keep_days=1e-9)
    inspect_folder(camera, out, SpotInspector(), config, decoder=PLAIN)
    for path in camera.iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    run = inspect_folder(camera, out, SpotInspector(), config, decoder=PLAIN)
    assert run.counts == {"again": 40}
    assert run.report.images == 40


def test_an_image_that_made_room_for_another_is_forgotten(tmp_path):
    camera, out = tmp_path / "camera", tmp_path / "out"
    write_plates(camera, range(2))
    for number in (50, 51, 50):  # a name that is used again
        (camera / "now.png").write_bytes(plate(number, 90))
        inspect_folder(camera, out, SpotInspector(), RunConfig(timing=QUICK), decoder=PLAIN)
    with Journal(out / "line.db") as journal:
        assert [row["name"] for row in journal.rows()].count("now.png") == 2
        assert Retention(journal, camera, ["quarantine"], 30, clock=later).sweep() == 1
        assert journal.knows("now.png", stat_of(camera / "now.png"))


def test_a_share_that_does_not_answer_has_lost_nothing(tmp_path, journal):
    journal.record([shown(0)], queued=False)
    journal.advance(SINK, journal.last_event())
    (tmp_path / "share").symlink_to(tmp_path / "share")  # "too many links", not "no such file"
    assert Retention(journal, tmp_path / "share", [SINK], 30, clock=later).sweep() == 0


def test_a_share_that_was_unmounted_has_lost_nothing(tmp_path, journal):
    """At its place lies an empty folder then."""
    camera = tmp_path / "camera"
    camera.mkdir()
    journal.record([shown(0)], queued=False)
    journal.advance(SINK, journal.last_event())
    retention = Retention(journal, camera, [SINK], 30, clock=later)
    camera.rename(tmp_path / "away")
    assert retention.sweep() == 0
    camera.mkdir()
    assert retention.sweep() == 0
    camera.rmdir()
    (tmp_path / "away").rename(camera)
    assert retention.sweep() == 0
    assert retention.sweep() == 1  # it has stayed, and the file is not in it


def test_a_sweep_that_cannot_be_written_is_put_off_and_does_not_end_the_line(
    tmp_path, journal, caplog
):
    journal.record([shown(0)], queued=False)
    journal.advance(SINK, journal.last_event())
    retention = Retention(journal, tmp_path, [SINK], 30, clock=later)
    with journal.database.reading() as connection:
        connection.execute("PRAGMA query_only = 1")
    retention.sweep_often()
    assert "are not forgotten now" in caplog.text
    assert len(list(journal.rows())) == 1


def test_a_central_machine_that_never_rests_forgets_as_well(tmp_path):
    store = ReviewStore(tmp_path / "central.db")
    desk = Desk(SpotInspector(), PLAIN, store, 1e-9)
    for key in "ab":
        assert store.take(key * 64, plate(8, 160), line="edge", name=key, edge="{}")
    assert store.decide("a" * 64, {"verdict": "OK"}, b"")
    time.sleep(0.01)
    assert desk.step()
    assert store.decisions(["a" * 64])[2] == ["a" * 64]
    store.close()


def test_no_image_takes_longer_the_more_there_were_before_it(journal):
    """A camera may write one file over and over; the journal then has its name a million times."""
    done = []
    with journal.database.reading() as connection:
        connection.set_trace_callback(done.append)
        assert not journal.knows("0.png", "1")
        journal.record([shown(0), shown(1, "REVIEW"), shown(1, "REVIEW")], queued=True)
        journal.queue.sent(2)
        journal.queue.forgotten([f"{1:064x}"])
        assert journal.settle(f"{1:064x}", {"verdict": "OK"})
        journal.drop_payloads(5)
        connection.set_trace_callback(None)
        asked = [text for text in done if text.startswith(("SELECT", "UPDATE"))]
        plans = [connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall() for text in asked]
    assert len(asked) > 8
    for text, plan in zip(asked, plans, strict=True):
        assert not [step for *_, step in plan if step.startswith("SCAN images")], text
