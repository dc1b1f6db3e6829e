from __future__ import annotations

import sys
from pathlib import Path

from flows.cli.paths import nearby, own_command


def test_the_command_is_one_that_works_here(tmp_path, monkeypatch):
    tool = tmp_path / ".venv" / "bin" / "penstock"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tool.with_name("python")))
    monkeypatch.setenv("PATH", "/nowhere")
    assert own_command() == str(tool)
    monkeypatch.chdir(tmp_path)
    assert own_command() == ".venv/bin/penstock"
    monkeypatch.setenv("PATH", str(tool.parent))
    assert own_command() == "penstock"


def test_paths_are_short_where_they_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nearby(str(tmp_path / "a" / "b")) == str(Path("a/b"))
    assert nearby("/elsewhere/b") == "/elsewhere/b"
