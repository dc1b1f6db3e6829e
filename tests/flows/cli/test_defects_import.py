"""``penstock defects check``."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import typer
from typer.testing import CliRunner

from flows.cli.defects_import import check
from tests.benchmarks._hostile_images import picture, stored


def test_check_tells_layout_counts_and_what_is_set_aside(tmp_path):
    root = tmp_path / "line"
    rng = np.random.default_rng(0)
    files = {
        "good/a.png": stored(picture(rng), "PNG"), "pit/b.png": stored(picture(rng), "PNG"),
        "pit/c\x1b[2J.png": b"no image", "new/d.png": stored(picture(rng), "PNG"),
    }  # fmt: skip
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    app = typer.Typer()
    app.command()(check)
    aside = tmp_path / "aside"
    done = CliRunner().invoke(app, [str(root), "--quarantine", str(aside)], catch_exceptions=False)
    assert done.exit_code == 0
    for line in (
        "  good: 1, good", "  pit: 2, type pit", "  new: 1, nobody looked",
        "groups: 3 of 3 images", "4 images in, 3 used, 1 quarantined",
        "  1 ng pit", "  1 ok", "  1 not labelled",
        "  line/pit/c\ufffd[2J.png: wrong-format, bytes 6e 6f 20 69 6d 61 67 65",
    ):  # fmt: skip
        assert line in done.output.splitlines()
    assert "\x1b" not in done.output
    assert pq.read_table(next(aside.rglob("*.parquet")))["payload"].to_pylist() == [b"no image"]
