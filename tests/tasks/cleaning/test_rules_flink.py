"""Every rule on Flink: the same verdict, row by row, as in Polars on eager, lazy, streamed frames.

The rows are hand-picked for what engines read differently, and drawn from what those are made of.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.contract.rules import flink_sql, row_rules
from tasks.cleaning.contract.toml import from_toml
from tasks.cleaning.contract.values import identifier

ROWS = 3_000
LONG = "ab" * 20_000
NUMBERS = [
    "3", "+3", "-3", "003", "0" * 40 + "5", "3.0", "3.", ".5", "-.5e1", "1e400", "-1e400", "1e-400",
    "nan", "NaN", "inf", "Infinity", "0x1p3", "5d", "5f", "1_000", "1,5", " 3", "3 ", "3\n", "\n3",
    "３", "٣", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "--3", "+",
    "-", "", ".", "e5", "1e", "1e5", "1E+05", "1.7976931348623157e308", "1.7976931348623159e308",
    "9007199254740993", "9007199254740992", "4.9e-324", "0.1", "0.30000000000000004", "9.5",
    "9.500000000000000001", "-0", "0", "1" * 400, "5", "7",
]  # fmt: skip
DATES = [
    "2024-02-29", "2023-02-29", "2023-02-30",
    "1900-02-29", "2000-02-29", "1500-02-29", "2024-13-01",
    "2024-00-10", "2024-01-32", "2024-04-31",
    "0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01",
    "2024-1-1", "24-01-01", "+2024-01-01", "2024-01-01\n", " 2024-01-01", "2024-01-01T00:00:00", "",
    "２024-01-01", "2020-01-01", "2019-12-31", "1582-10-10", "1970-01-01", "2024/01/01", "today",
]  # fmt: skip
MOMENTS = [
    "2024-02-29 23:59:59", "2024-02-29T23:59:59", "2024-02-29 23:59:60", "2024-02-29 24:00:00",
    "2024-02-30 00:00:00", "2024-02-29T12:00:00.25", "2024-02-29T12:00:00.250", "2024-02-29 12:00",
    "2024-02-29 12:00:00.", "2024-02-29 12:00:00.1234567", "2024-02-29t12:00:00", "2024-02-29",
    "2024-02-29T12:00:00Z", "2024-02-29T12:00:00+02:00", "2024-02-29T12:00:00-23:00",
    "2024-02-29T14:00:00.000001+02:00", "2024-02-29T12:00:00+0200", "2024-02-29T12:00:00 Z",
    "2024-02-29T12:00:00\n", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "",
    "2024-03-01T00:00:00+14:00", "2024-02-29T10:00:00-02:00", "1582-10-10 00:00:00",
    "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-14:00",
]  # fmt: skip
TEXTS = [
    "", " ", "a", "A", "aa", "b", "c", "a\n", "\na", "a\nb", "a\r\nb", "a\x85b", "a\u2028b", "é",
    "e\u0301", "ß", "SS", "İ", "ı", "ſ", "Σ", "😀", "😀😀", "\uffee", "\u200b", "\u00a0", "'", "''",
    '"', "`", "\\", "\\d", "%", "_", "a%b", "[a]", "a|b", "(a)", "$", "^a$", "a.b", "a,b", "12",
    "１２", "x1", "x_1", "x-1", "x\t1", "x\v1",
    "NULL", "null", "\x00", "a\x00", "yes", "true", "TRUE",
    "no", "０", "😀-😁", "ab", "ab",
    "K", "K", "a", "!", "user@example.com", "trailing  ",
]  # fmt: skip
ODD = "odd `name`, \"100%\" 'é'"
CONTRACT = f"""
name = "nasty"
[columns.id]
kind = "integer"
nullable = false
minimum = 0.5
maximum = 9007199254740992
[columns.size]
kind = "decimal"
minimum = -3
maximum = 9.5
confidence = {{ minimum = 0.9 }}
[columns.day]
kind = "date"
minimum = 2020-01-01
maximum = "9999-12-30"
[columns.due]
kind = "date"
[columns.at]
kind = "datetime"
minimum = "2024-02-29T12:00:00+02:00"
maximum = "2024-03-01"
[columns.flag]
kind = "boolean"
nullable = false
[columns.word]
nullable = false
max_length = 2
domain = ["a", "aa", "", "'", "''", "\\\\", "é", "😀", "SS", "a\\n", "trailing"]
[columns.{json.dumps(ODD, ensure_ascii=False)}]
"""
PATTERNS = [
    "a+|b", "^a.b$", r"\d+", r"[\w]+", r"\w\s\w", r"x[-_\t]1", r"[^a]", r".", r"..", r"\D*", r"\S+",
    "(ab)*", "(?:a|b)*", "(a|b)+!?", r"[😀-😂]+", r"é", r"\\", r"\\d", r"[\]\[\\^a-]+", r"'+",
    r"a{2}|a{30}!", r"[a-z]+@[a-z]+\.com", r"\u00a0|\u200b", r"a\nb", r".*?", r"&|~|#|-", r"[&~#]",
]  # fmt: skip
DENIALS = [
    "id = '5'", "id = 5.0", "size = 9.5",
    "size > id", "NOT size > id", "id + 1 = 4", "size / id > 1",
    "1 / (id - 3) > 0", "size * 1e308 > 1", "-id < -5", "ABS(size) >= 3", "id BETWEEN 3 AND 5",
    "id NOT IN (3, 5)", "due < day",
    "due <= at", "NOT (due < day OR id IS NULL)", "due - day > 100",
    "due - DATE '1500-03-01' < 200000", "at > '2024-02-29'", "at = TIMESTAMP '2024-02-29T12:00:00'",
    "at IS NULL AND day IS NOT NULL", "flag",
    "NOT flag AND word = 'a'", "flag = 'no'", "word LIKE 'a%'",
    "word LIKE '%_'", "word NOT LIKE '_'",
    r"word LIKE '\%'", "LOWER(word) = 'a'", "UPPER(word) = 'SS'",
    "TRIM(word) = ''", "CHAR_LENGTH(word) > 2",
    "word = ''''", "word <> 'é'", "word IN ('a', '''', '')",
    "TRY_CAST(word AS DOUBLE) > 3", "CAST(word AS BIGINT) = 12", "COALESCE(word, 'a') = 'a'",
    "COALESCE(id, 0) = COALESCE(size, 0)", "day = due",
    "word = `odd `name```", "TRUE AND NOT FALSE",
    "id = id AND size = size", "size <> size", "word IS NULL OR word = word",
    "TRY_CAST(word AS DATE) > '2000-01-01'", "TRY_CAST(word AS TIMESTAMP) IS NULL",
]  # fmt: skip

CONSTANT = ["TRUE AND NOT FALSE", "size <> size", "word IS NULL OR word = word"]


def contract():
    """The contract with every pattern on a column of its own, and every denial."""
    odd = "`" + ODD.replace("`", "``") + "`"
    text = CONTRACT
    for i, pattern in enumerate(PATTERNS):
        text += f"\n[columns.p{i}]\n" + f"pattern = {json.dumps(pattern, ensure_ascii=False)}\n"
    for i, forbidden in enumerate(DENIALS):
        said = forbidden.replace("`odd `name```", odd)
        text += (
            f"\n[[denial]]\nname = 'd{i},%'\nforbidden = {json.dumps(said, ensure_ascii=False)}\n"
        )
    return from_toml(text)


def nasty_rows(names: list[str]) -> pl.DataFrame:
    rng = np.random.default_rng(11)
    pools = {
        "word": [*TEXTS, *NUMBERS, *DATES, *MOMENTS],
        "id": NUMBERS,
        "size": NUMBERS,
        "day": DATES,
        "due": DATES,
        "at": MOMENTS,
    }
    pieces = sorted({c for text in TEXTS if len(text) < 40 for c in text})
    columns: dict[str, list[str | None]] = {}
    for name in names:
        pool = pools.get(name, TEXTS)
        made: list[str | None] = [*pool, None]
        while len(made) < ROWS:
            kind = rng.random()
            if kind < 0.8:
                made.append(pool[rng.integers(len(pool))])
            elif kind < 0.9:
                made.append(
                    "".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(1, 5)))
                )
            else:
                made.append(None)
        # Long texts stand once in a column.
        made = [None if m == LONG and i > len(pool) else m for i, m in enumerate(made)]
        columns[name] = [made[i] for i in rng.permutation(ROWS)]
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))


@pytest.fixture(scope="module")
def tables(flink_gateway) -> Any:
    """A table environment of Flink in batch mode, inside the run's JVM."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", DeprecationWarning)
        # Else PyFlink starts a server for Python functions in this process.
        patch.setenv("_python_worker_execution_mode", "process")
        from pyflink.table import EnvironmentSettings, TableEnvironment

        made = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
        made.get_config().set("parallelism.default", "1")
        yield made


@pytest.fixture(scope="module")
def judged(tables, tmp_path_factory) -> Callable[[pl.DataFrame, str, str, list[str]], pl.DataFrame]:
    """Runs a query over a frame of texts; Flink reads and writes JSON lines."""
    folder = tmp_path_factory.mktemp("rows")

    def table(name: str, columns: list[str], path: Path) -> None:
        texts = ", ".join(f"{identifier(column)} STRING" for column in columns)
        tables.execute_sql(
            f"CREATE TEMPORARY TABLE {name} (`row_number` INT, {texts}) WITH "
            f"('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json')"
        )

    def run(frame: pl.DataFrame, name: str, query: str, columns: list[str]) -> pl.DataFrame:
        frame.with_row_index("row_number").write_ndjson(folder / f"{name}.json")
        table(name, frame.columns, folder / f"{name}.json")
        table(f"{name}_out", columns, folder / name)
        tables.execute_sql(f"INSERT INTO {name}_out {query}").wait()
        schema = {"row_number": pl.Int64, **dict.fromkeys(columns, pl.String)}
        files = [file for file in (folder / name).iterdir() if not file.name.startswith(".")]
        return pl.concat(pl.read_ndjson(file, schema=schema) for file in files).sort("row_number")

    return run


@pytest.mark.slow
def test_all_engines_give_the_same_verdicts(judged):
    made = contract()
    frame = nasty_rows(list(made.columns))
    rules = row_rules(made)
    verdicts = [rule.broken.alias(f"r{i}") for i, rule in enumerate(rules)]
    eager = frame.select(verdicts)
    assert eager.equals(frame.lazy().select(verdicts).collect())
    assert eager.equals(frame.lazy().select(verdicts).collect(engine="streaming"))
    # One text for all verdicts of a row, for a thousand columns come out of the JVM one by one.
    asked = ", ".join(f"COALESCE(CAST({rule.sql} AS STRING), 'NULL')" for rule in rules)
    query = f"SELECT `row_number`, CONCAT_WS(',', {asked}) AS verdicts FROM nasty"
    flink = judged(frame, "nasty", query, ["verdicts"])["verdicts"].str.split(",")
    for i, rule in enumerate(rules):
        told = flink.list.get(i).to_list()
        mine = [str(held).upper() for held in eager[f"r{i}"]]
        rows = [frame.row(at, named=True) for at in range(ROWS) if told[at] != mine[at]]
        assert rows == [], rule.name
    # A rule that never or always holds would prove nothing, but for those that should.
    dull = [r.name for i, r in enumerate(rules) if eager[f"r{i}"].n_unique() < 2]
    assert dull == [f"denial:d{DENIALS.index(one)},%" for one in CONSTANT]


@pytest.mark.slow
def test_the_query_names_what_each_row_breaks(judged):
    made = from_toml(CONTRACT + '\n[[denial]]\nname = "a,b%"\nforbidden = "id > size"\n')
    frame = nasty_rows(list(made.columns)).head(300)
    rules = row_rules(made)
    columns = [*frame.columns, "broken_rules", "doubtful_rules"]
    flink = judged(frame, "named", flink_sql(made, "named"), columns)
    for column, declared in (("broken_rules", True), ("doubtful_rules", False)):
        chosen = [rule for rule in rules if rule.declared is declared]
        broken = frame.select(rule.broken.alias(rule.name) for rule in chosen)
        told = [
            ",".join(n.replace("%", "%25").replace(",", "%2C") for n, held in row.items() if held)
            for row in broken.iter_rows(named=True)
        ]
        assert flink[column].to_list() == told
        assert any(told)
    assert flink["broken_rules"].str.contains("denial:a%2Cb%25").any()
    assert flink.select(frame.columns).equals(frame)
