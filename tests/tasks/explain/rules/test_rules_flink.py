"""Rule sets and scorecards on Flink: row by row what the engine says, bit by bit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from tasks.explain.rules.engine import run_rules
from tasks.explain.rules.export import flink_name, flink_sql
from tasks.explain.rules.export_scorecard import scorecard_flink_sql
from tasks.explain.rules.model import DECISIONS, Condition, Rule, RuleSet
from tasks.explain.rules.scorecard import GradedRule, Ramp, Scorecard, run_scorecard

NAMES = ("amount", 'odd "name"', "hour`s", "n_1d")
EDGES = (-1.5, -1e-3, 0.0, 0.1, float(np.float32(0.1)), 0.3, 1.0, 3.0, 17.25, 1e300)
ODD = ("NaN", "Infinity", "-Infinity", "1.7976931348623157E308", "-0.0", "4.9E-324", None)
ROWS, SETS = 600, 6

Judge = Callable[[str, dict[str, Any]], pl.DataFrame]


def texts() -> pl.DataFrame:
    """Cells as texts: edges, their neighbours, what is no finite number, NULL, and any number."""
    draws = np.random.default_rng(3)
    near = [f(edge, side) for edge in EDGES for side in (-9e9, 9e9) for f in (math.nextafter,)]
    pool = [*map(repr, (*EDGES, *near)), *ODD]
    return pl.DataFrame(
        {
            name: [
                pool[draws.integers(len(pool))]
                if draws.random() < 0.7
                else repr(draws.normal(0, 2))
                for _ in range(ROWS)
            ]
            for name in NAMES
        },
        schema=dict.fromkeys(NAMES, pl.String),
    )


def as_numbers(frame: pl.DataFrame) -> list[list[float]]:
    """What the engine gets: a missing cell is NaN."""
    return [[math.nan if cell is None else float(cell) for cell in row] for row in frame.rows()]


@pytest.fixture(scope="module")
def judged(flink_gateway, tmp_path_factory) -> Any:
    """Runs a query over the table ``t`` of `texts`, read as DOUBLE, in the run's JVM."""
    folder = tmp_path_factory.mktemp("rules")
    texts().with_row_index("row_number").write_ndjson(folder / "rows.json")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", DeprecationWarning)
        # Else PyFlink starts a server for Python functions in this process.
        patch.setenv("_python_worker_execution_mode", "process")
        from pyflink.table import EnvironmentSettings, TableEnvironment

        tables = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
        tables.get_config().set("parallelism.default", "1")
        columns = ", ".join(f"{flink_name(name)} STRING" for name in NAMES)
        tables.execute_sql(
            f"CREATE TEMPORARY TABLE texts (`row_number` INT, {columns}) WITH "
            f"('connector' = 'filesystem', 'path' = '{folder}/rows.json', 'format' = 'json')"
        )
        casts = ", ".join(f"CAST({c} AS DOUBLE) AS {c}" for c in map(flink_name, NAMES))
        tables.execute_sql(f"CREATE TEMPORARY VIEW t AS SELECT `row_number`, {casts} FROM texts")
        runs = iter(range(1_000))

        def run(query: str, added: dict[str, Any]) -> pl.DataFrame:
            name = f"out_{next(runs)}"
            kinds = {pl.String: "STRING", pl.Float64: "DOUBLE"}
            said = ", ".join(f"`{column}` {kinds[kind]}" for column, kind in added.items())
            tables.execute_sql(
                f"CREATE TEMPORARY TABLE {name} (`row_number` INT, {said}) WITH "
                f"('connector' = 'filesystem', 'path' = '{folder}/{name}', 'format' = 'json')"
            )
            chosen = ", ".join(f"`{column}`" for column in ("row_number", *added))
            tables.execute_sql(f"INSERT INTO {name} SELECT {chosen} FROM ({query}) AS q").wait()
            files = [one for one in (folder / name).iterdir() if not one.name.startswith(".")]
            schema = {"row_number": pl.Int64, **added}
            parts = [pl.read_ndjson(one, schema=schema) for one in files]
            return pl.concat(parts).sort("row_number").drop("row_number")

        yield run


def drawn_rules(draws: np.random.Generator) -> RuleSet:
    found: dict[str, Rule] = {}
    for _ in range(5):
        conditions = []
        for name in draws.choice(NAMES, int(draws.integers(1, 4)), replace=False):
            low, high = sorted(draws.choice(EDGES, 2, replace=False))
            sides = draws.integers(3)
            if sides != 0:
                conditions.append(Condition(str(name), draws.choice([">", ">="]), float(low)))
            if sides != 1:
                conditions.append(Condition(str(name), draws.choice(["<", "<="]), float(high)))
        rule = Rule(tuple(conditions), DECISIONS[draws.integers(3)])
        found[rule.id] = rule
    return RuleSet("drawn", "1", NAMES, tuple(found.values()))


def drawn_card(draws: np.random.Generator) -> Scorecard:
    found: dict[str, GradedRule] = {}
    for _ in range(6):
        names = draws.choice(NAMES, int(draws.integers(1, 4)), replace=False)
        ends = [draws.choice(EDGES[:-1], 2, replace=False) for _ in names]
        ramps = (Ramp(str(n), float(a), float(b)) for n, (a, b) in zip(names, ends, strict=True))
        rule = GradedRule(tuple(ramps), int(draws.integers(1, 300)) * int(draws.choice([-1, 1])))
        found[rule.id] = rule
    return Scorecard("drawn", "1", NAMES, tuple(found.values()), -20, 0, 60)


@pytest.mark.slow
def test_rule_sets_on_flink_say_what_the_engine_says(judged: Judge):
    values = as_numbers(texts())
    seen = set()
    for seed in range(SETS):
        rules = drawn_rules(np.random.default_rng(seed))
        outcome = run_rules(rules, values)
        ids = [rule.id for rule in rules.rules]
        expected = [
            (
                None if code < 0 else DECISIONS[code],
                "".join(f"{one} " for one, yes in zip(ids, matched, strict=True) if yes),
            )
            for code, matched in zip(outcome.decisions.tolist(), outcome.matched, strict=True)
        ]
        added = {"rule_decision": pl.String, "rule_ids": pl.String}
        assert judged(flink_sql(rules, "t"), added).rows() == expected
        seen |= {decision for decision, _ in expected}
        assert outcome.missing.any()
    assert seen == {None, *DECISIONS}


@pytest.mark.slow
def test_scorecards_on_flink_say_what_the_engine_says_to_the_bit(judged: Judge):
    values = as_numbers(texts())
    seen = set()
    for seed in range(SETS):
        card = drawn_card(np.random.default_rng(seed))
        found = run_scorecard(card, values)
        expected = [
            (total, DECISIONS[code])
            for total, code in zip(found.total.tolist(), found.decisions.tolist(), strict=True)
        ]
        added = {"rule_points": pl.Float64, "rule_decision": pl.String}
        assert judged(scorecard_flink_sql(card, "t"), added).rows() == expected
        seen |= {decision for _, decision in expected}
        assert len(set(found.total.tolist())) > ROWS / 4  # degrees between 0 and 1 are met
    assert seen == set(DECISIONS)
