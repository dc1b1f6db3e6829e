"""The watch of a running line: learns it, tells a change once, and goes on after any restart."""

from __future__ import annotations

import io
import json
import logging
import os
import sqlite3
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from connectors.api.journal import JournalFullError
from connectors.defects.inspect import line as lines
from connectors.defects.inspect import run as runs_of_folders
from connectors.defects.inspect.camera import CameraTiming
from connectors.defects.inspect.journal import Journal
from connectors.defects.inspect.monitor import QUIET, MonitorConfig
from connectors.defects.inspect.run import RunConfig
from infra.errors import ConfigurationError
from tasks.defects.judgement import Judgement
from tests.connectors.defects.lines import PLAIN, SpotInspector

PARTS = 50
ALONE = RunConfig(
    timing=CameraTiming(settle=0.1, patience=0.4, poll=0.02), wait=5, monitor=MonitorConfig(PARTS)
)
inspect_folder = partial(runs_of_folders.inspect_folder, decoder=PLAIN)


class Typed(SpotInspector):
    """Calls spots of 220 and more pits, others unknown; scores do not hang on the light."""

    def judge(self, pixels):
        said = super().judge(pixels)
        known = float(pixels.max() >= 220)
        score = said.score + float(pixels[-1, -1]) / 100
        return Judgement(score, said.heat, said.verdict, {"pit": known, "unknown": 1 - known})


def picture(number, *, light=1.0, right=0, spot=120):
    """A plate on a belt, no two alike; every tenth has a defect."""
    rng = np.random.default_rng(number)
    pixels = np.full((64, 64), 20.0)
    left = 14 + right
    pixels[16:48, left : left + 34] = 80
    pixels[26:36, left + 22 : left + 28] = 20
    pixels = light * pixels * np.exp(0.03 * rng.standard_normal()) + rng.normal(0, 2, (64, 64))
    pixels[20:22, left + 3 : left + 5] = 230 if number % 10 == 9 else spot
    held = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(held, "PNG")
    return held.getvalue()


def write(folder, numbers, **change):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = folder / f"{number:04d}.png"
        path.write_bytes(picture(number, **change))
        os.utime(path, (1_700_000_000, 1_700_000_000))


def told(out):
    lines = [json.loads(line) for line in (out / "alarms.jsonl").read_text().splitlines()]
    return [(one["event"], one["image"], one["about"], one["at"]) for one in lines]


def report(out):
    return json.loads((out / "run.json").read_text())["watch"]


def test_a_line_without_change_is_learnt_and_gives_no_alarm(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write(cam, range(PARTS - 10))
    run = inspect_folder(cam, out, Typed(), ALONE)
    assert (run.watch.missing, run.watch.since, report(out)["state"]) == (10, "", "learning")
    write(cam, range(PARTS - 10, 2 * PARTS))
    inspect_folder(cam, out, Typed(), ALONE)
    said = report(out)
    assert (said["state"], said["missing"], said["seen"]) == ("learned", 0, PARTS)
    assert (said["told"], said["alarms"], told(out)) == (0, [], [])
    assert said["arl"] == 10_000
    assert said["not_judged"] == {}
    with sqlite3.connect(out / "line.db") as database:
        assert database.execute("SELECT COUNT(*) FROM watched").fetchone() == (0,)


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A line whose lamp, camera and defects change after a hundred parts, run at one go."""
    place = tmp_path_factory.mktemp("changed")
    write(place / "cam", range(100))
    write(place / "cam", range(100, 150), light=1.3, right=4, spot=190)
    run = inspect_folder(place / "cam", place / "out", Typed(), ALONE)
    return place / "cam", place / "out", run


def test_changes_are_told_once_in_log_report_and_file(changed, tmp_path, caplog):
    cam, _, _ = changed
    out = tmp_path / "out"
    with caplog.at_level(logging.WARNING):
        run = inspect_folder(cam, out, Typed(), ALONE)
    about = [one["about"] for one in run.watch.new]
    assert sorted(about) == sorted(set(about))
    assert {"brightness", "camera", "unknown"} <= set(about)
    assert all("0100.png" <= one["image"] <= "0149.png" for one in run.watch.new)
    assert all(one["evidence"] >= one["needed"] >= one["arl"] == 10_000 for one in run.watch.new)
    assert max(one["times"] for one in run.watch.new) > 1
    warned = [one.getMessage() for one in caplog.records if "has changed" in one.getMessage()]
    assert len(warned) == len(about)
    assert any("check the lamp" in one for one in warned)
    assert report(out)["alarms"] == list(run.watch.alarms)
    assert len(told(out)) == len(about)
    caplog.clear()
    write(tmp_path / "none", [])
    again = inspect_folder(tmp_path / "none", out, Typed(), ALONE)
    assert again.watch.new == []
    assert again.watch.told == len(about)
    assert not [one for one in caplog.records if "has changed" in one.getMessage()]
    # A file that was lost is written anew.
    (out / "alarms.jsonl").unlink()
    inspect_folder(tmp_path / "none", out, Typed(), ALONE)
    assert len(told(out)) == len(about)


@pytest.mark.parametrize("stops", [(17, 63), (PARTS, 101, 111)])
def test_restarts_lost_transactions_and_touched_files_change_nothing(
    changed, tmp_path, monkeypatch, stops
):
    cam, out, _ = changed
    names = sorted(path.name for path in cam.iterdir())
    here, record, failed = tmp_path / "cam", Journal.record, []
    here.mkdir()

    def failing(self, batch, *, queued, also):
        """Every third transaction is lost at its very end, and the process with it."""

        def last(connection, new):
            also(connection, new)
            if len(failed) % 3 == 0:
                raise OSError("power")

        failed.append(len(batch))
        return record(self, batch, queued=queued, also=last)

    monkeypatch.setattr(Journal, "record", failing)
    for stop in (*stops, len(names)):
        for name in names[:stop]:
            (here / name).write_bytes((cam / name).read_bytes())
            os.utime(here / name, (1_700_000_000 + stop, 1_700_000_000))  # touched, not new
        for _ in range(20):
            try:
                inspect_folder(here, tmp_path / "out", Typed(), ALONE)
            except OSError:
                continue
            break
    assert failed
    assert told(tmp_path / "out") == told(out)
    assert report(tmp_path / "out")["seen"] == report(out)["seen"] == len(names) - PARTS


def test_a_full_disk_counts_no_part_twice(changed, tmp_path, monkeypatch):
    cam, out, _ = changed
    record, calls, stop = Journal.record, [], threading.Event()
    monkeypatch.setattr(lines, "FULL_SECONDS", 0.001)

    def full(self, batch, *, queued, also):
        def last(connection, new):
            also(connection, new)
            calls.append(len(new))
            if len(calls) % 2:
                raise JournalFullError("full", "free it")

        return record(self, batch, queued=queued, also=last)

    def told_of(counts, found):
        if counts.total() == found == 150:
            stop.set()

    monkeypatch.setattr(Journal, "record", full)
    watching = replace(ALONE, watch=True)
    inspect_folder(cam, tmp_path / "out", Typed(), watching, told=told_of, stop=stop)
    assert sum(calls) == 2 * 150
    assert told(tmp_path / "out") == told(out)
    assert report(tmp_path / "out")["seen"] == report(out)["seen"]


def test_another_model_or_being_told_so_learns_anew_and_old_alarms_stay(changed, tmp_path):
    cam, _, _ = changed
    out = tmp_path / "out"
    inspect_folder(cam, out, Typed(), ALONE)
    before = told(out)
    write(tmp_path / "more", range(200, 210))
    run = inspect_folder(tmp_path / "more", out, Typed(margin=20), ALONE)
    assert run.watch.missing == PARTS - 10
    assert report(out)["anew"] == "another model judges"
    write(tmp_path / "more", range(210, 215))
    asked = replace(ALONE, monitor=MonitorConfig(PARTS, relearn=True))
    run = inspect_folder(tmp_path / "more", out, Typed(margin=20), asked)
    assert (run.watch.missing, run.watch.anew) == (PARTS - 5, "as was asked for")
    assert told(out) == before
    assert run.watch.told == len(before)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE facts SET value = '[]' WHERE name = 'watch state'", "damaged"),
        ("UPDATE facts SET value = '{}' WHERE name = 'watch state'", "learn the watch anew"),
        ("UPDATE facts SET value = '{' WHERE name = 'watch'", "Expecting"),
        ("UPDATE facts SET value = '\"AAAA\"' WHERE name = 'watch camera'", "wrong size"),
        ("DELETE FROM facts WHERE name = 'watch camera'", "missing"),
    ],
)
def test_a_damaged_state_is_told_and_learnt_anew(changed, tmp_path, caplog, damage, says):
    _, out, _ = changed
    mine = tmp_path / "out"
    mine.mkdir()
    (mine / "line.db").write_bytes((out / "line.db").read_bytes())
    with sqlite3.connect(mine / "line.db") as database:
        assert database.execute(damage).rowcount == 1
    write(tmp_path / "cam", range(300, 303))
    run = inspect_folder(tmp_path / "cam", mine, Typed(), ALONE)
    assert run.watch.missing == PARTS - 3
    assert says in run.watch.anew
    assert any("learns anew" in one.getMessage() for one in caplog.records)


def test_a_damaged_view_is_told_and_learnt_anew(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write(cam, range(5))
    inspect_folder(cam, out, Typed(), ALONE)
    with sqlite3.connect(out / "line.db") as database:
        database.execute("UPDATE watched SET small = x'00' WHERE id = 2")
    write(cam, range(5, 8))
    run = inspect_folder(cam, out, Typed(), ALONE)
    assert run.watch.missing == PARTS - 3
    assert "damaged" in run.watch.anew


def test_alarms_of_another_journal_are_refused(changed, tmp_path):
    cam, out, _ = changed
    mine = tmp_path / "out"
    mine.mkdir()
    (mine / "alarms.jsonl").write_bytes((out / "alarms.jsonl").read_bytes())
    with pytest.raises(ValueError, match="name another file"):
        inspect_folder(cam, mine, Typed(), ALONE)
    # The same journal, put back from before.
    (mine / "line.db").write_bytes((out / "line.db").read_bytes())
    with sqlite3.connect(mine / "line.db") as database:
        database.execute("DELETE FROM alarms")
        database.execute("UPDATE sqlite_sequence SET seq = 0 WHERE name = 'alarms'")
    with pytest.raises(ConfigurationError, match="has not made"):
        inspect_folder(cam, mine, Typed(), ALONE)


def test_of_the_images_of_one_part_in_a_row_the_first_is_watched(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    cam.mkdir()
    for part in range(12):
        for shot in range(3):
            (cam / f"p{part:02d}_{shot}.png").write_bytes(picture(3 * part + shot))
    for path in cam.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    watched = replace(ALONE, monitor=MonitorConfig(PARTS, r"p(\d+)_"))
    assert inspect_folder(cam, out, Typed(), watched).watch.missing == PARTS - 12
    with pytest.raises(ValueError, match="no regular expression"):
        MonitorConfig(part_pattern="(")
    with pytest.raises(ValueError, match="give 40 to"):
        MonitorConfig(parts=10)
    unwatched = replace(ALONE, monitor=MonitorConfig(0))
    assert inspect_folder(cam, tmp_path / "off", Typed(), unwatched).watch is None
    assert report(tmp_path / "off") == {"state": "off"}
    assert not (tmp_path / "off" / "alarms.jsonl").exists()


def test_an_alarm_that_comes_back_after_long_is_a_new_one(changed, tmp_path):
    _, out, run = changed
    mine = tmp_path / "out"
    mine.mkdir()
    (mine / "line.db").write_bytes((out / "line.db").read_bytes())
    with sqlite3.connect(mine / "line.db") as database:
        database.execute("UPDATE alarms SET last = last - ?", (QUIET,))
    write(tmp_path / "cam", range(400, 430), light=0.5, right=-5)
    again = inspect_folder(tmp_path / "cam", mine, Typed(), ALONE)
    assert {"brightness", "camera"} <= {one["about"] for one in again.watch.new}
    assert again.watch.new[0]["event"] == run.watch.told + 1
