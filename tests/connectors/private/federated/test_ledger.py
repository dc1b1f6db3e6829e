"""What left is remembered, by plan and task, or nothing leaves any more."""

from __future__ import annotations

import pytest

from connectors.private.federated.ledger import Ledger, LedgerError

PLAN, OTHER = bytes(32), bytes(range(32))


def test_counts_go_on_where_they_were(tmp_path):
    path = tmp_path / "ledger.txt"
    first = Ledger(path, PLAN)
    for _ in range(3):
        first.spend("average")
    first.spend("moments")
    Ledger(path, OTHER).spend("average")
    again = Ledger(path, PLAN)
    assert (again.spent("average"), again.spent("moments"), again.spent("gradient")) == (3, 1, 0)
    assert Ledger(path, OTHER).spent("average") == 1
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("line", ["", "average", "00 average", f"{PLAN.hex()} a b", "\xff"])
def test_a_line_that_is_none_stops_the_branch(tmp_path, line):
    path = tmp_path / "ledger.txt"
    path.write_text(f"{PLAN.hex()} average\n{line}\n", encoding="utf-8")
    with pytest.raises(LedgerError, match=r"ledger\.txt"):
        Ledger(path, PLAN)


def test_what_cannot_be_written_down_does_not_leave(tmp_path):
    ledger = Ledger(tmp_path / "absent" / "ledger.txt", PLAN)
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.spend("average")
    assert ledger.spent("average") == 0
