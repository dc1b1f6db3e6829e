"""Runs over folders of images: what is listed, set aside, and published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from connectors.cleaning import images as runs
from connectors.cleaning.image_files import ImageFolderError, list_images
from connectors.cleaning.images import REPORT, RUN, clean_folder, learn_from_folder
from connectors.cleaning.outputs import published
from tasks.cleaning.images.reference import ImageReferenceError
from tests.benchmarks._hostile_images import picture, stored
from tests.benchmarks._spoilt_images import made_up_line, pixels_of

NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path):
    """Two good images, a copy, a turned copy, a broken file, and much that is none of them."""
    made = tmp_path / "line <1>"
    (made / "b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    first, second = picture(rng), picture(rng)
    (made / "a.png").write_bytes(stored(first, "PNG"))
    (made / "b" / "copy.bmp").write_bytes(stored(first, "BMP"))
    (made / "b" / "turned.JPG").write_bytes(stored(np.rot90(first).copy(), "JPEG", quality=95))
    (made / "c<i>.png").write_bytes(stored(second, "PNG"))
    (made / "d.png").write_bytes(stored(second, "PNG")[:900])
    (made / "e.gif").write_bytes(b"GIF89a")
    (made / "notes.txt").write_text("no image")
    (made / ".hidden.png").write_bytes(stored(second, "PNG"))
    outside = tmp_path / "secret.png"
    outside.write_bytes(stored(second, "PNG"))
    (made / "link.png").symlink_to(outside)
    (made / "inner.png").symlink_to(made / "a.png")
    (made / "nowhere.png").symlink_to(made / "gone.png")
    (made / "loop").symlink_to(made)
    os.mkfifo(made / "pipe.png")
    (made / os.fsdecode(b"\xff.png")).write_bytes(stored(second, "PNG"))
    return made


def test_a_folder_is_listed_in_one_order_without_leaving_it(folder):
    listing = list_images(folder)
    assert [(f.name, f.trouble.partition(":")[0]) for f in listing.files] == [
        ("a.png", ""), ("b/copy.bmp", ""), ("b/turned.JPG", ""), ("c<i>.png", ""), ("d.png", ""),
        ("e.gif", ""), ("link.png", "link"), ("nowhere.png", "link"), ("pipe.png", "unreadable"),
        ("\\xff.png", "bad-name"),
    ]  # fmt: skip
    assert listing.skipped == {
        ".hidden.png": "hidden", "inner.png": "a link to a file of the folder",
        "loop": "a link to a folder", "notes.txt": "not named as an image",
    }  # fmt: skip
    with pytest.raises(ImageFolderError, match="is no folder"):
        list_images(folder / "a.png")


def test_every_image_is_clean_or_quarantined_with_its_bytes(folder, tmp_path):
    run = clean_folder(folder, tmp_path / "out", copy=True, now=NOW)
    assert run.counts["rows_in"] == 10
    place = published(tmp_path / "out", check=True)
    assert place.rows_in == place.rows_clean + place.rows_quarantined == 10
    clean = pl.read_parquet(place.clean_path)
    assert clean["file"].to_list() == ["a.png", "c<i>.png"]
    assert clean["p"].to_list() == [None, None]
    assert place.attached(clean["copy"][1]).read_bytes() == (folder / "c<i>.png").read_bytes()
    aside = {r["source"].removeprefix("line <1>/"): r for r in
             pq.read_table(place.quarantine_path).to_pylist()}  # fmt: skip
    assert {name: (r["row"], r["rule"]) for name, r in aside.items()} == {
        "b/copy.bmp": (1, "duplicate-of"), "b/turned.JPG": (2, "near-duplicate-of"),
        "d.png": (4, "broken"), "e.gif": (5, "wrong-format"), "link.png": (6, "link"),
        "nowhere.png": (7, "link"), "pipe.png": (8, "unreadable"), "\\xff.png": (9, "bad-name"),
    }  # fmt: skip
    assert aside["d.png"]["payload"] == (folder / "d.png").read_bytes()
    assert json.loads(aside["link.png"]["payload"]) == {"file": "link.png"}
    assert aside["b/turned.JPG"]["observed"].startswith("a.png, turned by ")
    page = place.attached(REPORT).read_text()
    assert page.count('<img src="data:image/png;base64,') == 2  # both copies
    assert "<i>" not in page
    record = json.loads(place.attached(RUN).read_text())
    assert record["skipped"]["notes.txt"] == "not named as an image"
    again = clean_folder(folder, tmp_path / "out", copy=True, now=NOW)
    assert again.counts == run.counts
    assert published(tmp_path / "out").generation == place.generation


def test_large_files_are_referred_to(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MAX_PAYLOAD", 100)
    clean_folder(folder, tmp_path / "out", kind="csv")
    place = published(tmp_path / "out")
    broken = next(r for r in pq.read_table(place.quarantine_path).to_pylist() if r["row"] == 4)
    said = json.loads(broken["payload"])
    assert (said["file"], said["bytes"], len(said["sha256"])) == ("d.png", 900, 64)


def test_results_within_the_folder_are_not_looked_at_and_an_empty_one_is_fine(tmp_path):
    (tmp_path / "a.png").write_bytes(stored(picture(np.random.default_rng(0)), "PNG"))
    for _ in range(2):
        run = clean_folder(tmp_path, tmp_path / "out", copy=True)
        assert run.counts["rows_in"] == 1
    (tmp_path / "none").mkdir()
    assert clean_folder(tmp_path / "none", tmp_path / "out2").counts["rows_in"] == 0


def penstock(*words):
    return subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "clean", "images", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_line_is_learnt_kept_and_held_against_new_images(tmp_path):
    good, new = tmp_path / "good", tmp_path / "new"
    good.mkdir()
    new.mkdir()
    line = made_up_line(1, 26)
    for k, data in enumerate(line.good[:24]):
        (good / f"{k:02d}.jpg").write_bytes(data)
    (good / "again.jpg").write_bytes(line.good[0])
    (new / "fine.jpg").write_bytes(line.good[24])
    dark = (pixels_of(line.good[25]) * 0.1).astype(np.uint8)
    (new / "dark.jpg").write_bytes(stored(dark, "JPEG", quality=95))
    kept = tmp_path / "line.json"
    told = penstock(str(new), "--reference", str(good), "--save", str(kept), "--alpha", ".05")
    assert told.returncode == 0, told.stderr
    assert "2 images in, 1 clean, 1 quarantined\n  1 by dark\n" in told.stdout
    assert "At most 5 % of good images are set aside by the reference of 24 images" in told.stdout
    again = penstock(str(new), "--reference", str(kept), "--csv")
    assert "1 by dark" in again.stdout
    assert "--alpha 0.01 needs 99 reference images" in again.stdout
    kept.write_text("{}")
    refused = penstock(str(new), "--reference", str(kept))
    assert refused.returncode == 1
    assert "learn it again" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_too_few_good_images(folder):
    with pytest.raises(ImageReferenceError, match="good images to learn from"):
        learn_from_folder(folder)
