"""What left is remembered, by plan and task, or nothing leaves any more."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from connectors.private.federated.ledger import Ledger, LedgerError, digest_of_rows

PLAN, OTHER, ROWS = bytes(32), bytes(range(32)), bytes(range(32, 64))


def test_counts_go_on_where_they_were(tmp_path):
    path = tmp_path / "ledger.txt"
    first = Ledger(path, PLAN, ROWS)
    for _ in range(3):
        first.spend("average")
    first.spend("moments")
    first.close()
    with closing(Ledger(path, OTHER, ROWS)) as other:
        other.spend("average")
    with closing(Ledger(path, PLAN, ROWS)) as again:
        spent = [again.spent(task) for task in ("average", "moments", "gradient")]
    assert spent == [3, 1, 0]
    with closing(Ledger(path, OTHER, ROWS)) as other:
        assert other.spent("average") == 1
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("line", ["", "average", "00 average", f"{PLAN.hex()} a b", "\xff"])
def test_a_line_that_is_none_stops_the_branch(tmp_path, line):
    path = tmp_path / "ledger.txt"
    path.write_text(f"{PLAN.hex()} average\n{line}\n", encoding="utf-8")
    with pytest.raises(LedgerError, match=r"ledger\.txt"):
        Ledger(path, PLAN, ROWS)


def test_what_cannot_be_written_down_does_not_leave(tmp_path):
    with pytest.raises(LedgerError, match="cannot be read"):
        Ledger(tmp_path / "absent" / "ledger.txt", PLAN, ROWS)
    path = tmp_path / "ledger.txt"
    with closing(Ledger(path, PLAN, ROWS)) as ledger:
        path.mkdir()
        with pytest.raises(LedgerError, match="cannot be written"):
            ledger.spend("average")
        assert ledger.spent("average") == 0


def test_two_that_count_would_each_count_half(tmp_path):
    path = tmp_path / "ledger.txt"
    with (
        closing(Ledger(path, PLAN, ROWS)),
        pytest.raises(LedgerError, match="another process of this branch"),
    ):
        Ledger(path, PLAN, ROWS)
    Ledger(path, PLAN, ROWS).close()


def test_moments_are_told_once_of_the_same_rows_whatever_the_plan(tmp_path):
    path = tmp_path / "ledger.txt"
    x = np.ones((3, 2), np.float32)
    changed = x + np.float32(1)
    digests = [digest_of_rows("ab", x), digest_of_rows("ab", changed), digest_of_rows("ba", x)]
    with closing(Ledger(path, PLAN, digests[0])) as ledger:
        ledger.spend("moments")
    told = []
    for rows in digests:
        with closing(Ledger(path, OTHER, rows)) as ledger:
            told.append(ledger.spent("moments"))
    assert told == [1, 0, 0]
