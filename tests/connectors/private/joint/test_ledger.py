"""The ledger forgets nothing, whoever crashes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.private.joint.errors import DealError, UsedTriplesError
from connectors.private.joint.ledger import Ledger


def test_what_was_used_is_refused_by_whoever_opens_it(tmp_path):
    path = tmp_path / "new folder" / "ledger"
    Ledger(path).take("a", 2, 3)
    assert Ledger(path).next_batch("a") == 5
    assert Ledger(path).next_batch("b") == 0
    for first, count in ((2, 1), (4, 1), (0, 3), (0, 99), (4, 5)):
        with pytest.raises(UsedTriplesError, match="were used before"):
            Ledger(path).take("a", first, count)
    Ledger(path).take("a", 0, 2)
    Ledger(path).take("b", 2, 3)
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=30, deadline=None)
@given(uses=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(1, 4))))
def test_no_batch_is_used_twice(tmp_path_factory, uses):
    ledger = Ledger(tmp_path_factory.mktemp("uses") / "ledger")
    used: set[tuple[str, int]] = set()
    for deal, first, count in uses:
        wanted = {(deal, batch) for batch in range(first, first + count)}
        if wanted & used:
            with pytest.raises(UsedTriplesError):
                ledger.take(deal, first, count)
        else:
            ledger.take(deal, first, count)
            used |= wanted


def test_a_line_cut_short_is_removed_and_others_stay(tmp_path):
    path = tmp_path / "ledger"
    Ledger(path).take("a", 0, 2)
    with path.open("ab") as file:
        file.write(b"a 2 ")
    Ledger(path).take("a", 2, 1)
    assert [line.split()[:3] for line in path.read_text().splitlines()] == [
        ["a", "0", "2"],
        ["a", "2", "1"],
    ]


def test_an_edited_ledger_is_refused(tmp_path):
    path = tmp_path / "ledger"
    path.write_text("a 0 2 today\nnonsense\n")
    with pytest.raises(DealError, match="line 2"):
        Ledger(path).take("a", 5, 1)


def test_processes_that_ask_at_once_get_different_batches(tmp_path):
    """Each takes what is next, twenty times; all lines differ."""
    code = """
import sys
from pathlib import Path
from connectors.private.joint.errors import UsedTriplesError
from connectors.private.joint.ledger import Ledger
ledger, taken = Ledger(Path(sys.argv[1])), 0
while taken < 20:
    try:
        ledger.take("a", ledger.next_batch("a"), 1)
        taken += 1
    except UsedTriplesError:
        pass
"""
    command = [sys.executable, "-c", code, str(tmp_path / "ledger")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    try:
        assert [process.wait(30) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
    lines = (tmp_path / "ledger").read_text().splitlines()
    assert sorted(int(line.split()[1]) for line in lines) == list(range(40))
