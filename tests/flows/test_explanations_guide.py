"""The guide's blocks run in their order, as a stranger would run them."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import warnings
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "explanations.md"
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"),
                    re.MULTILINE | re.DOTALL)  # fmt: skip


@pytest.mark.long
def test_the_guide_takes_a_stranger_from_a_module_to_rules(
    tmp_path, capsys, prefect_server, mlflow_server
):
    import torch

    from flows.cli.main import run

    names: dict = {"__name__": "guide"}
    codes = []
    before = torch.get_rng_state()
    with contextlib.chdir(tmp_path), warnings.catch_warnings():
        # torch 2.14 prefers torch.export to the TorchScript that many have.
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        for kind, code in BLOCKS:
            if kind == "python":
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile(code, str(GUIDE), "exec"), names)
                if "found = explainer" in code:
                    assert re.match(r"exact largest additivity gap \de-0?\d+", out.getvalue())
            else:
                (line,) = code.strip().splitlines()
                words = shlex.split(line)
                assert words[0] == "penstock"
                codes.append(run(words[1:]))
    torch.set_rng_state(before)
    *made, drifted, worded, rules, trial = codes
    assert made == [0, 0]
    assert drifted in (0, 2)
    assert (worded, rules, trial) == (0, 0, 0)
    told = {"Amount of the order", "Place the order comes from", "Time of the order",
            "History of the customer's account"}  # fmt: skip
    assert any(one in names["letter"] for one in told)
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert written >= {
        "explained/report.html",
        "rules/rules.flink.sql",
        "rules/rules.trial.json",
        "explained/explanation.json",
    }
    assert len([w for w in written if w.startswith("cases/case-order-")]) == 2
    assert len(names["record"]) == 1_000


def test_the_guide_has_its_blocks():
    kinds = " ".join(kind for kind, _ in BLOCKS)
    assert kinds == "python python python sh sh python sh python sh python sh sh"
