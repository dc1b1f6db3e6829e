"""Scores belong to the customers of one intersection, or there are none."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import numpy as np
import pytest

from connectors.private.client.tables import TableError
from connectors.private.joint.common_rows import read_common_rows, write_common_rows
from connectors.private.joint.errors import AlignmentError, PeerRefusedError
from connectors.private.joint.intersection import run_intersection
from connectors.private.joint.key_list import read_keys
from connectors.private.joint.party import run_party
from infra.errors import ConfigurationError
from tasks.privacy.encoding import RowError
from tests.connectors.private.joint.houses import BATCH, both
from tests.tasks.privacy.models import made, rows

CUSTOMERS = 40
RAW = rows(CUSTOMERS)
LISTS = [list(range(30)), list(range(CUSTOMERS - 1, 9, -1))]
"""Customers of either house, in the order of its table: the other way round, twenty in common."""
TABLES = [RAW[LISTS[0], :3], RAW[LISTS[1], 3:]]
KEYS = [[f"customer {one}" for one in listed] for listed in LISTS]


@pytest.fixture(scope="module")
def commons(houses, tmp_path_factory):
    """Files of two intersections, each of both houses."""
    folder = tmp_path_factory.mktemp("common")
    files = []
    for run in range(2):
        doors = houses.doors()
        found = both(*(partial(run_intersection, doors[i], KEYS[i]) for i in (0, 1)))
        files.append([folder / f"{run}-{party}.json" for party in (0, 1)])
        for path, one in zip(files[-1], found, strict=True):
            write_common_rows(path, one.common)
    return files


def scored(configs, files, tables=TABLES, keys=KEYS):
    """Run both parties with a file each."""
    return both(
        *(
            partial(run_party, dataclasses.replace(configs[i], common=files[i]), tables[i], keys[i])
            for i in (0, 1)
        )
    )


def test_scores_are_of_the_customers_that_both_have(houses, joint, commons):
    one, other = scored(houses.parties(joint, BATCH), commons[0])
    customers = np.array(LISTS[0])[one.places]
    np.testing.assert_array_equal(customers, np.array(LISTS[1])[other.places])
    assert sorted(customers) == list(range(10, 30))
    exact = made("linear").score(RAW[customers])
    assert np.abs(one.outcome - exact).max() <= joint.proof.certain


def test_files_of_two_intersections_are_refused_on_both_sides(houses, joint, commons):
    """Of the same lists and as many rows, but in another order."""
    for ended in scored(houses.parties(joint, BATCH), [commons[0][0], commons[1][1]]):
        assert isinstance(ended, AlignmentError | PeerRefusedError)
        assert ended.code == "alignment"


def test_an_intersection_on_one_side_alone_is_refused(houses, joint, commons):
    configs = houses.parties(joint, BATCH)
    found = scored(configs, [commons[0][0], None], [TABLES[0], TABLES[1][:20]], [None, None])
    assert {ended.code for ended in found} == {"alignment"}


def test_a_table_of_other_length_is_refused(houses, joint, commons):
    """Such as that of the common rows alone, put in order by hand."""
    tables = [TABLES[0], TABLES[1][:20]]
    told, own = scored(houses.parties(joint, BATCH), commons[0], tables, [None, None])
    assert isinstance(own, AlignmentError)
    assert "20 rows" in str(own)
    assert "30 keys" in str(own)
    assert str(told) == f"the other party refused (alignment): {AlignmentError.told}"


def test_a_table_that_was_sorted_since_is_refused(houses, joint, commons):
    keys = [KEYS[0], sorted(KEYS[1])]
    told, own = scored(houses.parties(joint, BATCH), commons[0], keys=keys)
    assert isinstance(own, AlignmentError)
    assert "sort the table as the list was" in str(own)
    assert told.code == "alignment"


def test_a_refused_row_is_named_by_its_place_in_the_table(houses, joint, commons):
    """Customer 12 is scored and stands in row 27 of the table; customer 35 is not scored at all."""
    table = TABLES[1].copy()
    table[[27, 4]] = 1e9
    _, own = scored(houses.parties(joint, BATCH), commons[0], [TABLES[0], table])
    assert isinstance(own, RowError)
    assert own.rows == [27]


def test_keys_without_an_intersection_are_refused(houses, joint):
    found = scored(houses.parties(joint, BATCH), [None, None])
    assert all("give its file" in str(one) or one.code == "alignment" for one in found)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [1, 1]},
        {"rows": [30]},
        {"rows": [-1]},
        {"rows": [[1]]},
        {"rows": ["x"]},
        {"version": 2},
        {"alignment": "short"},
        {"salt": 3},
        {"listed": None},
    ],
)
def test_a_changed_file_is_refused(commons, tmp_path, change):
    path = tmp_path / "common.json"
    path.write_text(json.dumps(json.loads(commons[0][0].read_text()) | change))
    path.chmod(0o600)
    with pytest.raises(AlignmentError, match="intersect"):
        read_common_rows(path)


def test_a_file_that_is_something_else_is_refused(tmp_path):
    path = tmp_path / "common.txt"
    for content in ("3\n1\n2\n", "[]", ""):
        path.write_text(content)
        path.chmod(0o600)
        with pytest.raises(AlignmentError, match="give the file of its --out"):
            read_common_rows(path)


def test_the_file_is_for_its_owner_and_tells_no_key(commons):
    content = commons[0][0].read_text()
    assert commons[0][0].stat().st_mode & 0o077 == 0
    assert "customer" not in content
    digests = [json.loads(files[0].read_text())["digest"] for files in commons]
    assert digests[0] != digests[1]  # of the same keys: salted


def test_a_file_that_others_can_read_is_refused(commons, tmp_path):
    path = tmp_path / "common.json"
    path.write_bytes(commons[0][0].read_bytes())
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="others may read"):
        read_common_rows(path)


def test_keys_are_lines_or_a_column(tmp_path):
    path = tmp_path / "keys"
    path.write_text("a\nb c\n")
    assert read_keys(path) == ["a", "b c"]
    path.write_text('x,customer\n1,"a,b"\n\n2,c\n')
    assert read_keys(path, "customer") == ["a,b", "c"]
    with pytest.raises(TableError, match="no column 'key'"):
        read_keys(path, "key")
    path.write_text("customer,x\na,1\n,2\n")
    with pytest.raises(TableError, match="row 1 has no key"):
        read_keys(path, "customer")


def test_keys_of_both_forms_are_the_same(tmp_path):
    """With a mark of byte order, other line ends, or signs that some take for line ends."""
    keys = ["alice", "b\x85b", "c\u2028c"]
    text, table = tmp_path / "keys.txt", tmp_path / "keys.csv"
    text.write_bytes("\ufeff".encode() + "\r\n".join(keys).encode())
    table.write_bytes("\ufeff".encode() + "\n".join(["customer", *keys]).encode())
    assert read_keys(text) == read_keys(table, "customer") == keys


@pytest.mark.parametrize("content", [b"a\n\nb\n", b"\xff\xfe", b"a\n"])
def test_what_holds_no_keys_is_refused(tmp_path, content):
    path = tmp_path / "keys"
    path.write_bytes(content)
    if content == b"a\n":
        path.write_text('customer\n"' + "x" * 200_000)
        with pytest.raises(TableError, match="no text file of keys"):
            read_keys(path, "customer")
    else:
        with pytest.raises(TableError):
            read_keys(path)
