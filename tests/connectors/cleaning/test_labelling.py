"""Files of labelled rows: asked for, extended, and refused where they do not fit."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from connectors.cleaning.asking import rows_to_label
from connectors.cleaning.decisions import requeue, undo_changes
from connectors.cleaning.labelling import LabelFileError, extend, labelled_rows, read_labels
from connectors.cleaning.outputs import OutputError
from connectors.cleaning.run import clean_file, load_run
from tasks.cleaning.contract.toml import from_toml

TABLE = "a,row\n" + "\n".join(f"{'5 kg' if i % 2 else i},{i}" for i in range(30)) + "\n"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    clean_file(tmp_path / "table.csv", tmp_path / "run")
    return tmp_path / "run"


def test_rows_are_asked_for_as_they_came_and_not_twice(run, tmp_path):
    first = rows_to_label(run, 3)
    assert first.columns == ["row_", "a", "row"]  # the table has a column "row"
    assert (first["row_"] == first["row"]).all()
    told = extend(tmp_path / "labels.csv", first)
    more = extend(tmp_path / "labels.csv", rows_to_label(run, 40, told))
    assert more["row_"].n_unique() == more.height == 30
    assert read_labels(tmp_path / "labels.csv").equals(more)


def test_a_run_without_clean_rows_has_none_to_label(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\nx,1\n")
    contract = from_toml("[columns.a]\nkind = 'integer'\n[columns.b]\n")
    clean_file(tmp_path / "table.csv", tmp_path / "run", contract)
    with pytest.raises(OutputError, match="no row is clean"):
        rows_to_label(tmp_path / "run", 3)


def test_labels_stay_with_the_run(run, tmp_path):
    labels = pl.DataFrame({"row_": ["4"], "a": ["four"], "row": ["4"]})
    done = clean_file(tmp_path / "table.csv", run, labels=labels)
    assert done.frame["a"][4] == "four"
    assert load_run(run).labels.equals(labels)
    requeue(run)
    assert load_run(run).frame["a"][4] == "four"


def test_labels_that_were_undone_are_not_carried_out_again(run, tmp_path):
    labels = pl.DataFrame({"row_": ["4"], "a": ["four"], "row": ["4"]})
    clean_file(tmp_path / "table.csv", run, labels=labels)
    undo_changes(run, pl.col("rule") == "labelled")
    requeue(run)
    assert load_run(run).frame["a"][4] == "4"


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"row": ["0"]}, "lack the columns a"),
        ({"a": ["1"]}, "lack the columns row"),
        ({"row": ["7"], "a": ["1"]}, "row '7' is not in the table"),
        ({"row": ["x"], "a": ["1"]}, "row 'x' is not in the table"),
        ({"row": ["1", "1"], "a": ["1", "2"]}, "row 1 is labelled twice"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, told):
    with pytest.raises(LabelFileError, match=told):
        labelled_rows(pl.DataFrame(labels), ["a"], np.arange(3))


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(LabelFileError, match="cannot be read as labelled rows"):
        read_labels(tmp_path / "nothing.csv")
    (tmp_path / "labels.csv").write_text("row,b\n1,2\n")
    with pytest.raises(LabelFileError, match="other columns than the table: row, b"):
        extend(tmp_path / "labels.csv", pl.DataFrame({"row": ["1"], "a": ["1"]}))
