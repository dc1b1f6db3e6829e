"""``penstock clean`` from a stranger's file to a cell put back, in processes of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

GOODS = """id,weight,town
1,5 kg,Aldburgh
2,6,Dorchester
3,7 kilo,Aldburgh
4,8kg,Dorchester
5,N/A,Aldburgh
5,9,Dorchester,too many
"""


@pytest.fixture
def goods(tmp_path):
    (tmp_path / "goods.csv").write_text(GOODS)
    return tmp_path


def penstock(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "clean", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(folder, *words):
    done = penstock(folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def first_row(folder):
    places = dict(line.split() for line in said(folder, "report", "goods.csv.clean").splitlines())
    return (folder / places["clean"]).read_text().splitlines()[1]


@pytest.mark.slow
def test_a_strangers_file_is_cleaned_in_one_go(goods):
    told = said(goods, "run", "goods.csv")
    assert "6 rows in, 5 clean (4 repaired), 1 quarantined" in told
    assert "1 by too-many-cells" in told
    clean = goods / told.split("clean   ")[1].split()[0]
    assert clean.read_text().splitlines()[1:3] == ["1,5,Aldburgh", "2,6,Dorchester"]
    assert "report  goods.csv.clean" in told
    assert said(goods, "undo", "goods.csv.clean", "--row", "0") == "1 change undone\n"
    assert first_row(goods) == "1,5 kg,Aldburgh"
    assert said(goods, "requeue", "goods.csv.clean") == "0 rows came back\n"
    assert first_row(goods) == "1,5 kg,Aldburgh", "what was undone stays undone"
    assert said(goods, "requeue", "goods.csv.clean", "--forget") == "0 rows came back\n"
    assert first_row(goods) == "1,5,Aldburgh"
    assert said(goods, "review", "goods.csv.clean") == "nothing is left to decide\n"


@pytest.mark.slow
def test_a_contract_is_proposed_compared_and_used(goods):
    assert "wrote goods.toml" in said(goods, "infer", "goods.csv", "--out", "goods.toml")
    text = (goods / "goods.toml").read_text()
    (goods / "mine.toml").write_text(
        text.replace("[columns.weight]", "[columns.weight]\nmaximum = 7")
    )
    told = said(goods, "diff", "goods.toml", "mine.toml")
    assert told == "stricter  weight: maximum None -> 7\n"
    told = said(goods, "run", "goods.csv", "--contract", "mine.toml", "--parquet")
    assert "1 by maximum:weight" in told
    assert "clean.parquet" in told


@pytest.mark.long
def test_a_contract_of_two_tables_and_its_sql(goods):
    (goods / "rules").mkdir()
    (goods / "rules" / "towns.csv").write_text("town\nAldburgh\n")
    (goods / "rules" / "goods.toml").write_text(
        'newest = "day"\nmax_age_days = 3\nextra_columns = true\n[columns.town]\n[columns.day]\n'
        'kind = "date"\n[[reference]]\ncolumns = ["town"]\ntable = "towns.csv"\nto = ["town"]\n'
    )
    rows = "town,day\nAldburgh,2026-11-01\nDorchester,2026-11-01\n"
    (goods / "days.csv").write_text(rows)
    words = ["run", "days.csv", "--contract", "rules/goods.toml", "--now"]
    told = said(goods, *words, "2026-11-03")
    assert "1 by reference:town->towns.csv:town" in told
    old = penstock(goods, *words, "2026-11-09")
    assert "Fetch a newer table, or raise max_age_days" in old.stderr
    assert said(goods, "requeue", "days.csv.clean") == "0 rows came back\n"
    refused = penstock(goods, "contract-sql", "rules/goods.toml", "--table", "goods")
    assert "reference:town->towns.csv:town, newest: rules across rows" in refused.stderr
    told = said(goods, "contract-sql", "rules/goods.toml", "--table", "goods", "--rows-only")
    assert told.startswith("SELECT *, CONCAT_WS(',', CASE WHEN COALESCE(`day` IS NOT NULL")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "nothing.csv"], "nothing.csv: No such file"),
        (["run", "goods.csv", "--contract", "none.toml"], "none.toml cannot be read"),
        (["run", "goods.csv", "--alpha", "0.9"], "alpha must lie in"),
        (["undo", "goods.csv.clean", "--all"], "no run is published there"),
        (["undo", "goods.csv.clean"], "say which changes"),
        (["infer", "goods.csv", "--out", "goods.csv"], "goods.csv exists"),
    ],
)
def test_wrong_input_is_told_in_one_line(goods, words, told):
    done = penstock(goods, *words)
    assert done.returncode != 0
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_slices_of_a_run_are_told_and_written(goods):
    rows = [f"{i},{i % 90 + 1},{('York', 'Hull', 'Leeds')[i % 3]}" for i in range(300)]
    (goods / "many.csv").write_text("\n".join(["id,weight,town", *rows]) + "\n")
    said(goods, "run", "many.csv")
    told = said(goods, "slices", "many.csv.clean", "--by", "town", "--target", "weight")
    assert "mean weight, clean rows" in told
    assert "town = Hull" in told
    assert "wrote out" in said(goods, "slices", "many.csv.clean", "--out", "out")
    assert sorted(path.name for path in (goods / "out").iterdir()) == ["slices.html", "slices.json"]
    wrong = penstock(goods, "slices", "many.csv.clean", "--by", "id2")
    assert wrong.returncode != 0
    assert "no column 'id2'; there are id" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.long
def test_labelled_rows_are_asked_for_and_used(goods):
    said(goods, "run", "goods.csv", "--no-detectors", "--duplicates")
    told = said(goods, "label", "goods.csv.clean", "--rows", "2")
    assert "2 rows added to labels.csv" in told
    lines = (goods / "labels.csv").read_text().splitlines()
    assert lines[0] == "row,id,weight,town"
    number = lines[1].split(",")[0]
    lines[1] = f"{number},77,1,Exminster"
    (goods / "labels.csv").write_text("\n".join(lines[:2]) + "\n")
    told = said(goods, "run", "goods.csv", "--labels", "labels.csv")
    clean = goods / told.split("clean   ")[1].split()[0]
    assert clean.read_text().splitlines()[1 + int(number)] == "77,1,Exminster"
    assert said(goods, "requeue", "goods.csv.clean") == "0 rows came back\n"
    assert "3 rows added" in said(goods, "label", "goods.csv.clean", "--rows", "3")
    assert len((goods / "labels.csv").read_text().splitlines()) == 5
    (goods / "labels.csv").write_text("row,id,weight,town\n9,1,1,a\n")
    done = penstock(goods, "run", "goods.csv", "--labels", "labels.csv")
    assert done.returncode == 1
    assert "labelled row '9' is not in the table" in done.stderr
