"""Where the jars of the stream lie, and that a repeated build does nothing."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra import jars
from infra.errors import MissingToolError

ROOT = Path(__file__).resolve().parents[2]


def test_the_jars_hold_what_they_are_for():
    with zipfile.ZipFile(jars.stream_jar()) as jar:
        assert "io/penstock/stream/Pipeline.class" in jar.namelist()
    connectors = [path.name for path in jars.connector_jars()]
    assert [name.startswith("flink-sql-connector-kafka-") for name in connectors] == [True]
    broker = [path.name for path in jars.broker_jars()]
    for start in ("kafka_2.13-", "kafka-tools-", "log4j-slf4j-impl-"):
        assert any(name.startswith(start) for name in broker), start


def test_missing_jars_name_the_way_to_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    for call in (jars.stream_jar, jars.connector_jars, jars.broker_jars):
        with pytest.raises(MissingToolError, match="make setup"):
            call()


def test_a_build_without_changes_does_nothing():
    before = jars.stream_jar().stat()
    # A PATH without Maven: nothing may be asked of it.
    done = subprocess.run(
        [ROOT / "infra" / "jars" / "build.sh"],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert jars.stream_jar().stat().st_mtime_ns == before.st_mtime_ns
