"""Journals: whole lines in whole files, whatever kills the process or fills the disk."""

from __future__ import annotations

import base64
import errno
import json
import os

import pytest

from connectors.api.dead_letters import MALFORMED, DeadLetters
from connectors.api.journal import Journal, JournalError, JournalFullError


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


def journal(folder, clock, **changes):
    settings = {"max_bytes": 1_000, "max_seconds": 5.0} | changes
    return Journal(folder, clock=clock, now_ms=lambda: int(clock() * 1000), **settings)


def shown(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def lines(folder):
    return [line for name in shown(folder) for line in (folder / name).read_bytes().splitlines()]


def test_lines_show_when_the_file_is_closed(tmp_path, clock):
    kept = journal(tmp_path, clock)
    kept.append([b"1", b"2"])
    kept.append([b"3"])
    assert shown(tmp_path) == []
    clock.seconds = 4.9
    kept.tick()
    assert shown(tmp_path) == []
    clock.seconds = 5.0
    kept.tick()
    assert lines(tmp_path) == [b"1", b"2", b"3"]
    assert kept.lines == 3
    assert oct((tmp_path / shown(tmp_path)[0]).stat().st_mode)[-3:] == "600"


def test_files_are_closed_by_size_and_keep_their_order(tmp_path, clock):
    kept = journal(tmp_path, clock, max_bytes=10)
    for i in range(30):
        clock.seconds += 0.001
        kept.append([b"line %02d" % i])
    kept.close()
    assert lines(tmp_path) == [b"line %02d" % i for i in range(30)]
    assert len(shown(tmp_path)) == 15


def test_an_empty_journal_leaves_nothing(tmp_path, clock):
    kept = journal(tmp_path, clock)
    kept.tick()
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cut_and_shown(tmp_path, clock):
    (tmp_path / ".00000000000001-1-000001.jsonl").write_bytes(b"whole\nhal")
    (tmp_path / ".00000000000002-1-000001.jsonl").write_bytes(b"only a half")
    (tmp_path / ".00000000000003-1-000001.jsonl").write_bytes(b"x" * 70_000 + b"\n" + b"y" * 70_000)
    journal(tmp_path, clock)
    assert shown(tmp_path) == ["00000000000001-1-000001.jsonl", "00000000000003-1-000001.jsonl"]
    assert lines(tmp_path) == [b"whole", b"x" * 70_000]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_whole_lines_and_is_told(tmp_path, clock, monkeypatch):
    kept = journal(tmp_path, clock)
    kept.append([b"first"])
    real, calls = os.write, []

    def nearly_full(handle, data):
        calls.append(len(data))
        if len(calls) == 1:
            return real(handle, data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(JournalFullError, match="No space left"):
        kept.append([b"second"])
    monkeypatch.undo()
    kept.append([b"third"])
    kept.close()
    assert lines(tmp_path) == [b"first", b"third"]


def test_other_failures_are_told(tmp_path, clock, monkeypatch):
    kept = journal(tmp_path, clock)

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(JournalError, match="Input/output error"):
        kept.append([b"x"])


def test_dead_letters_are_quarantine_records_with_an_allowance(tmp_path, clock):
    kept = journal(tmp_path, clock, max_bytes=10**6)
    dead = DeadLetters(kept, daily_bytes=1_000, now_ms=lambda: int(clock() * 1000))
    dead.add(b"\xff{", MALFORMED, "/v1/score", column="t", observed="x")
    for _ in range(9):
        dead.add(b"y" * 100, MALFORMED, "/v1/score")
    assert dead.written + dead.dropped == 10
    assert 0 < dead.dropped < 9
    clock.seconds += 86_400  # the next day has an allowance of its own
    before = dead.written
    dead.add(b"z", MALFORMED, "/v1/score")
    assert dead.written == before + 1
    kept.close()
    record = json.loads(lines(tmp_path)[0])
    assert base64.b64decode(record["payload"]) == b"\xff{"
    assert record["rule"] == "not-json"
    assert (record["source"], record["row"], record["column"]) == ("/v1/score", 0, "t")
    assert len(record["sha256"]) == 64


def test_dead_letters_never_stop_a_request(tmp_path, clock, monkeypatch):
    kept = journal(tmp_path, clock)
    dead = DeadLetters(kept, daily_bytes=10**6, now_ms=lambda: 0)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    dead.add(b"y", MALFORMED, "/v1/score")
    assert dead.dropped == 1
