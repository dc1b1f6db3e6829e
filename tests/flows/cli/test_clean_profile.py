"""``penstock clean profile`` in a process of its own, and the flow's summary of it."""

from __future__ import annotations

import json

import pytest

from flows.artifacts import escaped, profile_summary
from tests.flows.cli.test_clean import penstock, said

HEAD = "id,weight,town\n"


@pytest.fixture
def goods(tmp_path):
    for name, shift in (("old", 0), ("new", 3)):
        rows = [f"{i},{5 + (i * 7) % 4 + shift} kg,Town {i % 3}" for i in range(120)]
        (tmp_path / f"{name}.csv").write_text(HEAD + "\n".join(rows) + "\n120,1,x,too many\n")
    return tmp_path


@pytest.mark.slow
def test_a_file_is_profiled_beside_a_reference(goods):
    told = said(goods, "profile", "new.csv", "--reference", "old.csv", "--segment", "town")
    assert "121 rows, 3 columns" in told
    assert "rows that could not be read: 1" in told
    assert "drift against old.csv: drifted\n  weight  values: " in told
    (segments,) = (line for line in told.splitlines() if line.startswith("drifted segments: "))
    assert all(f"Town {i}" in segments for i in range(3))
    assert "page    new.csv.profile/profile.html" in told
    record = json.loads((goods / "new.csv.profile" / "profile.json").read_text())
    assert record["drift"]["columns"] == {"id": "stable", "weight": "drifted", "town": "stable"}
    assert "Drifted" in (goods / "new.csv.profile" / "profile.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing.csv"], "nothing.csv: No such file"),
        (["new.csv", "--segment", "town"], "--segment needs --reference"),
        (["new.csv", "--reference", "old.csv", "--segment", "shop"], "'shop' is not in"),
        (["new.csv", "--alpha", "2"], "alpha must lie between"),
        (["new.csv", "--contract", "none.toml"], "none.toml cannot be read"),
    ],
)
def test_wrong_input_is_told_in_one_line(goods, words, told):
    done = penstock(goods, "profile", *words)
    assert done.returncode != 0
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def column(name, drift=""):
    return {"column": name, "kind": "text", "missing": 0.25, "distinct": 3, "drift": drift}


def test_the_summary_escapes_and_is_capped():
    record = {
        "source": "a|b\n<i>.csv", "rows_in": 1_000, "sampled": "", "verdict": "drifted",
        "columns": [*(column(f"c{i}") for i in range(300)), column("last", "drifted")],
        "page": "/x/profile.html",
    }  # fmt: skip
    text = profile_summary(record)
    assert text.startswith("# a\\|b &lt;i&gt;.csv\n")
    assert text.index("| last | text | 25.0% | 3 | drifted |") < text.index("| c0 |")
    assert "201 more columns on the page." in text
    assert escaped("x" * 500) == "x" * 80
