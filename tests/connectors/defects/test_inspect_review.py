"""From the edge to the central model and back: over kills, bad networks and full queues."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from functools import partial

import pytest

from connectors.defects.inspect import database, retention
from connectors.defects.inspect import run as runs_of_folders
from connectors.defects.inspect.backoff import Backoff
from connectors.defects.inspect.camera import CameraTiming
from connectors.defects.inspect.central.service import CentralConfig
from connectors.defects.inspect.file_sinks import JsonLinesSink
from connectors.defects.inspect.http_link import HttpLink
from connectors.defects.inspect.inspector import Opinion
from connectors.defects.inspect.journal import Inspected, Journal
from connectors.defects.inspect.review_queue import PATIENCE, QueueLimits
from connectors.defects.inspect.run import RunConfig
from connectors.defects.inspect.uplink import REVIEW_PATH, Uplink, UplinkError
from infra.errors import ConfigurationError
from tests.connectors.defects.lines import (
    FINAL,
    PLAIN,
    VERDICTS,
    SpotInspector,
    name_of,
    plate,
    spot_of,
    write_plates,
)
from tests.connectors.defects.network import SECRET, BadNetwork, central_machine
from tests.processes import wait_for

QUICK = CameraTiming(settle=0.1, patience=0.4, poll=0.02)
DOUBTFUL = [n for n in range(40) if VERDICTS[n % 10] == "REVIEW"]

inspect_folder = partial(runs_of_folders.inspect_folder, decoder=PLAIN)


def config(url, **changes):
    return RunConfig(central=url, token=SECRET, timing=QUICK, **{"wait": 10.0} | changes)


def results_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def journal_with(tmp_path, numbers, limits=None):
    """A journal whose queue holds plates of some numbers."""
    write_plates(tmp_path / "cam", numbers)
    journal = Journal(tmp_path / "out" / "line.db", limits)
    inspector = SpotInspector()
    batch = []
    for n in numbers:
        content = plate(n, spot_of(n))
        opinion = Opinion("REVIEW", 160.0, "", {}, (), (150.0, 200.0), inspector.digest)
        batch.append(
            Inspected(name_of(n), "1", hashlib.sha256(content).hexdigest(), content, opinion)
        )
    journal.record(batch, queued=True)
    return journal


def uplink_to(journal, url, tmp_path):
    quick = Backoff(first=0.02, longest=0.1)
    return Uplink(
        journal, HttpLink(url, token=SECRET, seconds=5.0), tmp_path / "cam", backoff=quick
    )


def drained(uplink, seconds=10.0):
    uplink.start()
    try:
        return uplink.drain(time.monotonic() + seconds)
    finally:
        uplink.end()


def test_final_results_hold_both_verdicts(tmp_path):
    write_plates(tmp_path / "cam", range(20))
    with central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, _):
        run = inspect_folder(tmp_path / "cam", tmp_path / "out", SpotInspector(), config(url))
    assert run.report.sent_share == 0.2
    assert run.report.final == {"OK": 14, "NG": 6}
    assert run.queue.open == 0
    final = {one["image"]: one for one in results_of(tmp_path / "out")}
    for n in range(20):
        one = final[name_of(n)]
        assert one["edge"]["verdict"] == VERDICTS[n % 10]
        assert one["final"] == FINAL[n % 10]
        assert one["settled"]
        assert (one["central"] or {}).get("verdict") == (FINAL[n % 10] if n % 10 > 7 else None)


def test_without_a_network_nothing_is_lost_and_later_all_is_decided(tmp_path):
    write_plates(tmp_path / "cam", range(20))
    with BadNetwork() as network:
        network.mode = "down"
        run = inspect_folder(
            tmp_path / "cam", tmp_path / "out", SpotInspector(), config(network.url, wait=0.3)
        )
    assert run.queue.open == run.queue.waiting == 4
    assert run.central_trouble
    assert run.report.final["REVIEW"] == 4
    with central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, _):
        again = inspect_folder(tmp_path / "cam", tmp_path / "out", SpotInspector(), config(url))
    assert again.counts.total() == 0
    assert again.report.final == {"OK": 14, "NG": 6}


@pytest.mark.parametrize("fault", ["down", "lost", 500, 503, 429, 408, 401, 404])
def test_a_fault_is_waited_out_and_every_image_decided_once(tmp_path, fault):
    journal = journal_with(tmp_path, DOUBTFUL[:4])
    with (
        journal,
        central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, central),
        BadNetwork(url) as network,
    ):
        network.mode = fault
        uplink = uplink_to(journal, network.url, tmp_path)
        uplink.start()
        wait_for(lambda: len(network.requests) >= 3)
        assert uplink.trouble
        network.mode = "up"
        assert uplink.drain(time.monotonic() + 10)
        uplink.end()
        assert central.store.counts() == {"waiting": 0, "decided": 4}
        assert len(journal.results_after(0, 100)) == 8  # edge and final, no third
        assert {row["final"] for row in journal.rows()} == {"OK", "NG"}
        sent = [h["idempotency-key"] for p, _, h in network.requests if p == REVIEW_PATH]
        assert list(dict.fromkeys(sent)) == [row["digest"] for row in journal.rows()]  # in order


@pytest.mark.parametrize("status", [413, 422, 415])
def test_an_image_that_is_refused_for_good_does_not_hold_the_others_back(tmp_path, status):
    journal = journal_with(tmp_path, DOUBTFUL[:3])
    first = plate(DOUBTFUL[0], spot_of(DOUBTFUL[0]))
    with (
        journal,
        central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, _),
        BadNetwork(url) as network,
    ):
        network.mode = lambda _, body: status if body == first else "up"
        assert drained(uplink_to(journal, network.url, tmp_path))
        assert journal.queue.refusals() == [(name_of(DOUBTFUL[0]), f"HTTP {status}")]
        assert [row["final"] for row in journal.rows()] == ["REVIEW", "NG", "OK"]


def test_an_image_over_which_the_central_machine_fails_goes_behind_the_others(tmp_path):
    journal = journal_with(tmp_path, DOUBTFUL[:3])
    poison = plate(DOUBTFUL[0], spot_of(DOUBTFUL[0]))
    with (
        journal,
        central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, _),
        BadNetwork(url) as network,
    ):
        network.mode = lambda _, body: 500 if body == poison else "up"
        uplink = uplink_to(journal, network.url, tmp_path)
        uplink.start()
        wait_for(lambda: journal.queue.state().open == 1)
        assert sum(body == poison for _, body, _ in network.requests) >= PATIENCE
        network.mode = "up"
        assert uplink.drain(time.monotonic() + 5)
        uplink.end()


def test_a_central_machine_that_lost_its_memory_gets_the_images_again(tmp_path):
    journal = journal_with(tmp_path, DOUBTFUL[:3])
    with journal:
        slow = SpotInspector(0.0, delay=1.0)
        with central_machine(tmp_path / "one", slow) as (url, central):
            uplink = uplink_to(journal, url, tmp_path)
            uplink.step()
            assert journal.queue.state().sent == 3
            slow._delay = 0.0
            central.desk._ended.set()
            uplink.end()
        with central_machine(tmp_path / "two", SpotInspector(0.0)) as (url, _):
            assert drained(uplink_to(journal, url, tmp_path))
        assert [row["final"] for row in journal.rows()] == ["OK", "NG", "OK"]


def test_a_full_queue_is_told_and_filled_again_from_the_folder(tmp_path, caplog):
    write_plates(tmp_path / "cam", range(40))
    limits = QueueLimits(max_images=3)
    with BadNetwork() as network:
        network.mode = "down"
        run = inspect_folder(
            tmp_path / "cam",
            tmp_path / "out",
            SpotInspector(),
            config(network.url, wait=0.1, queue=limits),
        )
    assert run.counts["unqueued"] == 5
    assert "the review queue is full" in caplog.text
    assert (run.queue.waiting, run.queue.unqueued) == (3, 5)
    (tmp_path / "cam" / name_of(DOUBTFUL[-1])).unlink()
    with central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, _):
        again = inspect_folder(
            tmp_path / "cam", tmp_path / "out", SpotInspector(), config(url, queue=limits)
        )
    assert again.report.final["REVIEW"] == 1
    assert list(again.review_refused) == [name_of(DOUBTFUL[-1])]
    assert again.queue.open == 0


def test_an_image_that_was_forgotten_meanwhile_is_not_queued(tmp_path):
    with journal_with(tmp_path, DOUBTFUL[:1], QueueLimits(max_bytes=1)) as journal:
        ((seq, _, _),) = journal.queue.unqueued(5)
        with journal.database.transaction() as connection:
            connection.execute("DELETE FROM images")
        assert journal.queue.fill(seq, b"")
        journal.queue.give_up(seq, "gone")
        assert journal.queue.state().open == 0
        assert journal.queue.state().refused == 0


def test_the_queue_never_holds_more_bytes_than_it_may(tmp_path):
    size = len(plate(8, 160))
    with journal_with(tmp_path, DOUBTFUL, QueueLimits(max_bytes=3 * size)) as journal:
        state = journal.queue.state()
        with journal.database.reading() as connection:
            (held,) = connection.execute("SELECT SUM(LENGTH(content)) FROM queue").fetchone()
    assert held <= 3 * size
    assert state.waiting + state.unqueued == len(DOUBTFUL)


def test_a_central_machine_that_talks_nonsense_is_not_believed(tmp_path):
    with journal_with(tmp_path, DOUBTFUL[:2]) as journal, BadNetwork() as network:
        uplink = uplink_to(journal, network.url, tmp_path)
        with pytest.raises(UplinkError, match="does not answer as a central machine"):
            uplink.step()
        uplink.end()
        assert {row["final"] for row in journal.rows()} == {"REVIEW"}


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("ftp://x", ""),
        ("http://plant.example:80", SECRET),
        ("https://user:pass@host", ""),
        ("http://127.0.0.1:99999999", ""),
        ("http://[::1", ""),
        ("http://127.0.0.1", "a\nb"),
    ],
)
def test_addresses_that_would_leak_a_token_or_are_none_are_refused(url, token):
    with pytest.raises(ConfigurationError):
        HttpLink(url, token=token)


def test_a_connection_that_the_server_closed_in_a_pause_is_opened_anew(tmp_path):
    """Servers close idle connections; that is no failure over the image that is sent next."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once_each():
            for _ in range(3):
                peer, _ = listener.accept()
                with peer:
                    peer.recv(65_536)
                    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

        server = threading.Thread(target=answer_once_each, daemon=True)
        server.start()
        link = HttpLink(f"http://127.0.0.1:{listener.getsockname()[1]}", seconds=5.0)
        for _ in range(3):
            assert link.post("/x", b"body", {}).status == 200
            time.sleep(0.1)
        link.close()
        server.join()


def test_an_image_larger_than_the_queue_is_told_and_those_behind_it_go_on(tmp_path):
    small = len(plate(DOUBTFUL[1], 160))
    cam = tmp_path / "cam"
    write_plates(cam, DOUBTFUL[1:3])
    (cam / name_of(0)).write_bytes(plate(0, 160, side=96))
    limits = QueueLimits(max_bytes=small + 200)
    with central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, _):
        run = inspect_folder(cam, tmp_path / "out", SpotInspector(), config(url, queue=limits))
    assert run.queue.open == 0
    assert run.report.final["REVIEW"] == 1
    assert "larger than the queue" in run.review_refused[name_of(0)]


def test_a_decision_that_cannot_be_told_is_not_taken_and_holds_no_other_back(tmp_path):
    """What JSON cannot hold would stop every sink for good once it stood in the journal."""
    nonsense = ('"OK", "score": NaN', '"OK", "score": 1e999', '"OK", "kind": "\\ud800"', "[]")
    with journal_with(tmp_path, DOUBTFUL[:5]) as journal, BadNetwork() as network:
        uplink = uplink_to(journal, network.url, tmp_path)
        digests = [row["digest"] for row in journal.rows()]
        for seq in range(1, 6):
            journal.queue.sent(seq)
        said = [
            f'"{d}": {{"verdict": {v}}}' for d, v in zip(digests, (*nonsense, '"NG"'), strict=True)
        ]
        network.answer = f'{{"decided": {{{", ".join(said)}}}, "unknown": [{{}}]}}'
        with pytest.raises(UplinkError, match="does not answer as a central machine"):
            uplink.step()
        uplink.end()
        assert [row["final"] for row in journal.rows()] == ["REVIEW"] * 4 + ["NG"]


def test_images_do_not_travel_in_the_clear_where_the_token_was_forgotten(tmp_path):
    write_plates(tmp_path / "cam", range(1))
    plain = RunConfig(central="http://plant.example:8010", timing=QUICK)
    with pytest.raises(ConfigurationError, match="in the clear"):
        inspect_folder(tmp_path / "cam", tmp_path / "out", SpotInspector(), plain)


def test_pauses_grow_and_differ():
    backoff = Backoff(first=1.0, longest=8.0, random=random.Random(3))
    pauses = [backoff.next() for _ in range(200)]
    assert max(pauses[:1]) <= 1.0
    assert 6.0 < max(pauses) <= 8.0
    assert len(set(pauses)) == 200
    assert backoff.next(at_least=60.0) == 60.0
    backoff.reset()
    assert backoff.next() <= 1.0


def killed_run(tmp_path, url, rng, **changes):
    """Run an edge in a process that is killed: at one of its steps, or at any moment."""
    at_step, step, moment = rng.random() < 0.7, rng.randrange(1, 30), rng.uniform(0.01, 0.5)
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    try:
        os.setpgid(0, 0)
        if at_step:
            kill_at_step(step)
        else:
            threading.Timer(moment, end_now).start()
        inspect_folder(tmp_path / "cam", tmp_path / "out", SpotInspector(), config(url, **changes))
    finally:
        os._exit(0)


def end_now():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_step(number):
    """Die before or after the n-th commit, request or line written."""
    left = [number]
    lock = threading.Lock()

    def step():
        with lock:
            left[0] -= 1
            if left[0] == 0:
                end_now()

    def around(owner, name):
        inner = getattr(owner, name)

        def outer(*args, **kwargs):
            step()
            made = inner(*args, **kwargs)
            step()
            return made

        setattr(owner, name, outer)

    around(HttpLink, "post")
    around(JsonLinesSink, "write")
    inner = database.Database.transaction

    class Stepping:
        def __init__(self, *args):
            self.context = inner(*args)

        def __enter__(self):
            made = self.context.__enter__()
            step()
            return made

        def __exit__(self, *args):
            step()
            ended = self.context.__exit__(*args)
            step()
            return ended

    def transaction(self):
        return Stepping(self)

    database.Database.transaction = transaction


@pytest.mark.parametrize("seed", range(4))
def test_kills_lose_nothing_and_decide_nothing_twice(tmp_path, seed):
    """Five kills each, twenty in all, while images keep coming."""
    rng = random.Random(seed)
    kills, last = 0, 0
    with central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, central):
        while kills < 5:
            write_plates(tmp_path / "cam", range(last, last + 10))
            last += 10
            kills += killed_run(tmp_path, url, rng) == -signal.SIGKILL
            assert last < 200, "the runs were too quick to be killed"
        patient = config(url, wait=60.0)
        run = inspect_folder(tmp_path / "cam", tmp_path / "out", SpotInspector(), patient)
        assert central.store.counts()["decided"] == last // 5
    assert run.report.images == last
    told = results_of(tmp_path / "out")
    assert [one["event"] for one in told] == list(range(1, len(told) + 1))
    edge = [one for one in told if one["central"] is None]
    assert [one["image"] for one in edge] == [name_of(n) for n in range(last)]
    settled = Counter(one["image"] for one in told if one["settled"])
    assert settled == Counter(name_of(n) for n in range(last))
    final = {one["image"]: one["final"] for one in told if one["settled"]}
    assert final == {name_of(n): FINAL[n % 10] for n in range(last)}


def test_kills_lose_nothing_while_files_are_touched_deleted_and_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.0)
    rng, cam, out = random.Random(8), tmp_path / "cam", tmp_path / "out"
    kills, last = 0, 0
    with central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, _):
        while kills < 4:
            write_plates(cam, range(last, last + 10))
            last += 10
            kills += killed_run(tmp_path, url, rng, keep_days=1e-9) == -signal.SIGKILL
            text = (out / "results.jsonl").read_text() if (out / "results.jsonl").exists() else ""
            whole = text[: text.rfind("\n") + 1].splitlines()
            for name in {json.loads(line)["image"] for line in whole}:
                if rng.random() < 0.6:
                    (cam / name).unlink(missing_ok=True)
            for path in cam.iterdir():
                os.utime(path, (1_600_000_000 + last, 1_600_000_000))
            assert last < 200, "the runs were too quick to be killed"
        patient = config(url, wait=60.0, keep_days=1e-9)
        run = inspect_folder(cam, out, SpotInspector(), patient)
    told = results_of(out)
    assert run.report.images == last
    assert [one["event"] for one in told] == list(range(1, len(told) + 1))
    every = Counter(name_of(n) for n in range(last))
    assert Counter(one["image"] for one in told if one["central"] is None) == every
    assert Counter(one["image"] for one in told if one["settled"]) == every
    with Journal(out / "line.db") as journal:
        assert journal.forgotten()


def test_a_killed_central_machine_decides_what_it_took(tmp_path):
    from connectors.defects.inspect.central.store import ReviewStore

    pid = os.fork()
    if pid == 0:
        store = ReviewStore(tmp_path / "home" / "central.db")
        assert store.take("a" * 64, plate(8, 160), line="edge", name="x", edge="{}")
        end_now()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with central_machine(tmp_path / "home", SpotInspector(0.0), CentralConfig()) as (_, central):
        wait_for(lambda: central.store.counts() == {"waiting": 0, "decided": 1})
        decided, _, _ = central.store.decisions(["a" * 64])
        assert decided["a" * 64]["verdict"] == "OK"
        assert not central.store.decide("a" * 64, {"verdict": "NG"}, b"")
