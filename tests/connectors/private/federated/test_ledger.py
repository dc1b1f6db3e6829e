"""What left is remembered, by plan and task, or nothing leaves any more."""

from __future__ import annotations

from contextlib import closing

import pytest

from connectors.private.federated.ledger import Ledger, LedgerError

PLAN, OTHER = bytes(32), bytes(range(32))


def test_counts_go_on_where_they_were(tmp_path):
    path = tmp_path / "ledger.txt"
    first = Ledger(path, PLAN)
    for _ in range(3):
        first.spend("average")
    first.spend("moments")
    first.close()
    with closing(Ledger(path, OTHER)) as other:
        other.spend("average")
    with closing(Ledger(path, PLAN)) as again:
        spent = [again.spent(task) for task in ("average", "moments", "gradient")]
    assert spent == [3, 1, 0]
    with closing(Ledger(path, OTHER)) as other:
        assert other.spent("average") == 1
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("line", ["", "average", "00 average", f"{PLAN.hex()} a b", "\xff"])
def test_a_line_that_is_none_stops_the_branch(tmp_path, line):
    path = tmp_path / "ledger.txt"
    path.write_text(f"{PLAN.hex()} average\n{line}\n", encoding="utf-8")
    with pytest.raises(LedgerError, match=r"ledger\.txt"):
        Ledger(path, PLAN)


def test_what_cannot_be_written_down_does_not_leave(tmp_path):
    with pytest.raises(LedgerError, match="cannot be read"):
        Ledger(tmp_path / "absent" / "ledger.txt", PLAN)
    path = tmp_path / "ledger.txt"
    with closing(Ledger(path, PLAN)) as ledger:
        path.mkdir()
        with pytest.raises(LedgerError, match="cannot be written"):
            ledger.spend("average")
        assert ledger.spent("average") == 0


def test_two_that_count_would_each_count_half(tmp_path):
    path = tmp_path / "ledger.txt"
    with (
        closing(Ledger(path, PLAN)),
        pytest.raises(LedgerError, match="another process of this branch"),
    ):
        Ledger(path, PLAN)
    Ledger(path, PLAN).close()
