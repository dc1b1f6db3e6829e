"""The guide's job: rules from the command, files split by Flink, as the guide shows them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "cleaning-on-flink.md"


def block(text: str, language: str) -> str:
    """The first block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def shown(text: str, command: str) -> list[str]:
    """What the guide shows below a command."""
    lines = text.split(f"$ {command}\n", 1)[1].splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith(("$", "```")))
    return lines[:end]


@pytest.mark.slow
def test_the_guides_lines_split_the_guides_rows(tmp_path):
    text = GUIDE.read_text(encoding="utf-8")
    (tmp_path / "orders.toml").write_text(block(text, "toml"))
    (tmp_path / "clean.py").write_text(block(text, "python"))
    (tmp_path / "orders").mkdir()
    rows = shown(text, "cat orders/*")
    (tmp_path / "orders" / "part-1.csv").write_text("\n".join(rows[:3]) + "\n")
    (tmp_path / "orders" / "part-2.csv").write_text("\n".join(rows[3:]) + "\n")
    words = ["-m", "flows.cli.main", "clean", "contract-sql", "orders.toml", "--table", "orders"]
    told = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    (tmp_path / "rules.sql").write_text(told.stdout)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "clean.py"], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=300, env={**os.environ, "FLINK_LOG_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for folder in ("clean", "quarantine"):
        files = [f for f in (tmp_path / folder).iterdir() if not f.name.startswith(".")]
        lines = sorted(line for f in files for line in f.read_text().splitlines())
        assert lines == shown(text, f"cat {folder}/* | sort")
