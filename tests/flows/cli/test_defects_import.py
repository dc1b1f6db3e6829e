"""``penstock defects check``: what people complain of is told clearly."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from flows.cli import main as cli
from flows.cli.defects_import import check
from tests.benchmarks._hostile_images import picture, stored, swapped_profile


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


def checked(capsys, folder, *words):
    """Run the command; returns its exit code, the lines of its output, and its complaint."""
    code = cli.run(["defects", "check", str(folder), *words])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else stored(content, "PNG"))
    return folder


def some(seed, height=64, width=64):
    return picture(np.random.default_rng(seed), max(height, width))[:height, :width]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "no image in it; give a folder of PNG"),
        ({"notes.txt": b"x"}, "no image in it, 1 other files"),
        ({"a.png": b"no image"}, "none of 1 images can be used; the first, a.png: wrong-format"),
        ({"a.png": np.zeros((64, 64), np.uint8)}, "a.png: uniform, one level all over"),
    ],
)
def test_a_folder_without_a_usable_image_ends_with_one_clear_line(
    tmp_path, capsys, files, complaint
):
    (tmp_path / "line").mkdir()
    code, out, said = checked(capsys, write(tmp_path / "line", files))
    assert (code, out) == (1, [])
    assert complaint in said
    assert said.count("\n") == 1


def test_one_image_and_labels_of_one_class_are_counted(tmp_path, capsys):
    code, out, _ = checked(capsys, write(tmp_path / "one", {"a.png": some(0)}))
    assert code == 0
    assert "1 images in, 1 used, 0 quarantined" in out
    assert "  1 not labelled" in out
    line = {f"good/{seed}.png": some(seed) for seed in range(3)}
    code, out, _ = checked(capsys, write(tmp_path / "good only", line))
    assert code == 0
    assert [text for text in out if " ok" in text or " ng" in text] == ["  3 ok"]


def test_pixels_of_every_kind_are_used_and_told(tmp_path, capsys):
    colour = np.stack([some(1), some(1)[::-1], some(1).T], 2)
    alpha = np.dstack([colour, np.where(some(1) > 100, 255, 128).astype(np.uint8)])
    turn = Image.Exif()
    turn[0x0112] = 6
    folder = write(
        tmp_path / "line",
        {
            "gray.png": some(2), "deep.png": some(3).astype(np.uint16) * 16, "alpha.png": alpha,
            "inks.jpg": stored(Image.fromarray(some(4)).convert("CMYK"), "JPEG"),
            "turned.jpg": stored(some(5, 48, 64), "JPEG", exif=turn.tobytes(), quality=95),
            "swapped.png": stored(colour[::-1], "PNG", icc_profile=swapped_profile()),
            "spoilt.png": stored(some(6), "PNG", icc_profile=b"no profile"),
        },
    )  # fmt: skip
    code, out, _ = checked(capsys, folder)
    assert code == 0
    assert "7 images in, 7 used, 0 quarantined" in out
    for told in (
        "images: 1 have 16 bits, 12 in use: the upper 8 of those are taken",
        "images: 1 have transparent pixels, laid over black",
        "images: 1 are CMYK, brought to RGB without a profile",
        "images: 1 were turned upright by EXIF",
        "images: 1 were brought to sRGB by their colour profile: swapped",
        "images: 1 have a broken colour profile, which is left aside: unnamed",
        "images: 2 sizes, sides of 48 to 64; 6 have 64 x 64",
    ):
        assert told in out


def test_sizes_broken_files_and_masks_that_do_not_fit_are_set_aside_with_the_reason(
    tmp_path, capsys
):
    mask = np.zeros((64, 64), np.uint8)
    mask[9:30, 9:30] = 255
    whole = stored(some(5), "PNG")
    huge = stored(np.tile(some(2, 240, 240), (4, 32)), "PNG", compress_level=1)
    folder = write(
        tmp_path / "line",
        {
            "good/eight.png": some(0, 8, 8), "good/seven.png": some(1, 7, 40),
            "good/broken.png": whole[: len(whole) // 2], "good/none.png": b"",
            "good/eight-k.png": huge,
            "pit/a.png": some(3), "masks/pit/a.png": mask,
            "pit/b.png": some(4), "masks/pit/b.png": mask[:32, :32],
        },
    )  # fmt: skip
    code, out, _ = checked(capsys, folder)
    assert code == 0
    assert "7 images in, 3 used, 4 quarantined" in out
    aside = {line.split(": ")[0].strip(): line.split(": ", 1)[1] for line in out if "line/" in line}
    assert aside["line/good/seven.png"].startswith("too-small, 40 x 7 pixels")
    assert aside["line/good/broken.png"].startswith("broken")
    assert aside["line/good/none.png"].startswith("empty, 0 bytes")
    assert aside["line/pit/b.png"].startswith("mask-unfit, masks/pit/b.png: mask 32 x 32, image")


def test_equal_names_are_told_apart_by_their_folders(tmp_path, capsys):
    files = {
        "good/1.png": some(0), "pit/1.png": some(1), "pit/1.jpg": stored(some(2), "JPEG"),
        "scratch/1.png": some(1), "good/again.png": some(0), "good/2.png": some(3),
        "pit/2.png": some(4),
        "notes/2.xml": (b"<annotation><object><name>pit</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
                        b"<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"),
    }  # fmt: skip
    code, out, _ = checked(capsys, write(tmp_path / "line", files), "--masks", "none")
    assert code == 0
    aside = [line.strip() for line in out if line.startswith("  line/")]
    assert any(
        "two-labels" in line and "pit/1.png is pit; scratch/1.png is scratch" in line
        for line in aside
    )
    assert "line/good/again.png: duplicate-of, the pixels of good/1.png" in aside
    assert any("notes/2.xml: belongs to several images" in line for line in aside)
