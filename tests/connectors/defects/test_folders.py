"""Folders as people have them, made datasets: every file is used or set aside with the reason."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageCms

from connectors.cleaning.image_files import ImageFolderError
from connectors.defects.dataset import ChangedFileError, Samples
from connectors.defects.dataset_files import read_split, write_dataset, write_split
from connectors.defects.folders import load_dataset
from connectors.defects.options import DatasetError, DatasetOptions
from tasks.cleaning.images.limits import ImageLimits
from tasks.cleaning.images.sandbox import Sandbox
from tasks.cleaning.quarantine import QUARANTINE_SCHEMA
from tasks.defects.data.annotation import AnnotationError
from tasks.defects.data.layout import LayoutError, LayoutOptions
from tasks.defects.data.splits import SplitError, split_groups
from tasks.defects.samples import Box, Sample, SampleError
from tests.benchmarks._hostile_images import gray_profile, picture, stored

SCRATCH = Box(10, 20, 30, 24, "scratch")


def bytes_of(content, kind):
    if isinstance(content, str):
        return content.encode()
    return content if isinstance(content, bytes) else stored(content, kind)


@pytest.fixture
def put(tmp_path):
    """Write files of a folder by their paths; arrays become PNG, or JPEG by their suffix."""

    def write(files):
        root = tmp_path / "line"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes_of(content, "JPEG" if path.suffix == ".jpg" else "PNG"))
        return root

    return write


def image(seed, height=64, width=64):
    return picture(np.random.default_rng(seed), max(height, width))[:height, :width]


def mask_of(*boxes, height=64, width=64, level=255):
    mask = np.zeros((height, width), np.uint8)
    for b in boxes:
        mask[int(b.top) : int(b.bottom), int(b.left) : int(b.right)] = level
    return mask


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as made:
        yield made


@pytest.fixture
def load(sandbox):
    """Load a folder by the workers that all tests share."""
    return lambda root, **options: loaded(root, sandbox, **options)


def loaded(root, sandbox, **options):
    """Load a folder, and see that rows in = used + quarantined, in a table of the one schema."""
    dataset = load_dataset(root, DatasetOptions(**options), sandbox=sandbox)
    assert dataset.rows_in == dataset.frame.height + dataset.quarantine.num_rows
    assert dataset.quarantine.schema.equals(QUARANTINE_SCHEMA)
    assert len(dataset.samples) == dataset.frame.height
    return dataset


def aside(dataset):
    return {
        row["source"].partition("/")[2]: (row["rule"], row["observed"])
        for row in dataset.quarantine.to_pylist()
    }


def test_normal_and_defects_with_masks(put, load):
    root = put({
        "normal/a.png": image(0), "scratch/b.jpg": image(1), "scratch/b.png": mask_of(SCRATCH),
        "scratch/c.jpg": image(2), "scratch/c.png": mask_of(), "notes.txt": "x",
    })  # fmt: skip
    dataset = load(root)
    good, drawn, undrawn = dataset.samples
    assert (good.name, good.label, good.kind, good.mask) == ("normal/a.png", "ok", "", None)
    assert (drawn.label, drawn.kind) == ("ng", "scratch")
    assert np.array_equal(drawn.mask, mask_of(SCRATCH) > 0)
    assert undrawn.mask is None
    assert np.array_equal(good.pixels, image(0))
    assert "  1 of defective images mark nothing: taken as not drawn" in dataset.findings
    assert dataset.subset(["scratch/c.jpg"])[0] is dataset.samples[-1]


def test_own_workers_end_and_start_again(put):
    root = put({"a.png": image(0)})
    dataset = load_dataset(root)
    for _ in range(2):
        assert np.array_equal(dataset.samples[0].pixels, image(0))
        dataset.close()


def test_empty_folders_and_folders_without_a_usable_image(put, tmp_path):
    with pytest.raises(ImageFolderError, match="is no folder"):
        load_dataset(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image in it; give a folder of PNG"):
        load_dataset(tmp_path / "empty")
    with pytest.raises(
        DatasetError, match=r"none of 1 images can be used; the first, a.png: broken"
    ):
        load_dataset(put({"a.png": stored(image(0), "PNG")[:200]}))


def test_one_image(put, load):
    dataset = load(put({"a.png": image(0)}))
    assert dataset.frame.select("name", "label", "group").rows() == [("a.png", None, 0)]


def test_all_labels_of_one_class(put, load):
    assert set(load(put({f"good/{i}.png": image(i) for i in range(3)})).frame["label"]) == {"ok"}


def test_every_kind_of_pixels(put, load):
    gray = image(0)
    colour = np.stack([gray, gray[::-1], gray.T], 2)
    alpha = Image.fromarray(np.dstack([colour, np.where(gray > 100, 255, 128).astype(np.uint8)]))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    dataset = load(put({
        "a.png": gray, "b.png": colour, "c.png": stored(alpha, "PNG"),
        "d.jpg": stored(Image.fromarray(image(5)).convert("CMYK"), "JPEG"),
        "e.png": image(6).astype(np.uint16) * 16,
        "f.png": stored(image(7), "PNG", icc_profile=srgb),
        "g.png": stored(image(8), "PNG", icc_profile=profile),
        "h.png": stored(image(9), "PNG", icc_profile=gray_profile(1.0)),
        "i.png": stored(image(10), "PNG", icc_profile=b"no profile"),
    }))  # fmt: skip
    shapes = [sample.pixels.shape for sample in dataset.samples]
    assert shapes == [(64, 64), (64, 64, 3), (64, 64, 3), *[(64, 64)] * 6]
    assert np.array_equal(dataset.samples[4].pixels, image(6))  # 12 bits: 4 are taken off
    said = "\n".join(dataset.findings)
    assert "1 have 16 bits, 12 in use" in said
    assert "1 are CMYK, brought to RGB without a profile" in said
    assert "1 have transparent pixels, laid over black" in said
    assert said.count("colour profile") == 3  # that of sRGB changes nothing
    assert (
        "1 have a colour profile of other pixels or for 16 bits, which is left aside: Lab" in said
    )
    assert "1 were brought to sRGB by their colour profile: made" in said
    assert "1 have a broken colour profile, which is left aside: unnamed" in said


def test_tiny_and_huge_images(put, load):
    root = put({
        "a.png": image(0, 8, 8), "b.png": image(1, 7, 40), "c.png": image(2),
        "d.png": stored(np.tile(image(3, 240, 240), (18, 32)), "PNG", compress_level=1),
        "e.png": stored(np.zeros((8_000, 8_000), np.uint8), "PNG", compress_level=1),
    })  # fmt: skip
    dataset = load(root)
    assert dataset.frame["name"].to_list() == ["a.png", "c.png", "d.png"]
    assert aside(dataset)["b.png"][0] == "too-small"
    assert aside(dataset)["e.png"][0] == "too-many-pixels"
    assert dataset.samples[2].pixels.shape == (4_320, 7_680)
    assert any("3 sizes, sides of 8 to 7680" in line for line in dataset.findings)


def test_only_so_many_bytes_of_samples_are_kept(put, load, sandbox):
    records = load(put({f"{i}.png": image(i) for i in range(6)})).samples.records
    samples = Samples(records, sandbox, own=False, cache_bytes=3 * 64 * 64)
    first = samples[0]
    assert samples[0] is first
    assert [sample.name for sample in samples] == [f"{i}.png" for i in range(6)]
    assert samples._held == 3 * 64 * 64
    assert samples[0] is not first
    with pytest.raises(IndexError):
        samples[6]


def test_a_file_changed_since_is_refused(put, load):
    root = put({"a.png": image(0), "b.png": image(1)})
    dataset = load(root)
    (root / "b.png").write_bytes(stored(image(2), "PNG"))
    with pytest.raises(ChangedFileError, match="load it again"):
        dataset.samples[1]


VOC = """<annotation><filename>{name}</filename><size><width>{w}</width><height>{h}</height></size>
{objects}</annotation>"""


def voc(box, w=64, h=64, name=""):
    return VOC.format(
        name=name, w=w, h=h,
        objects=f"<object><name>{box.kind}</name><bndbox><xmin>{box.left + 1}</xmin>"
        f"<ymin>{box.top + 1}</ymin><xmax>{box.right}</xmax><ymax>{box.bottom}</ymax></bndbox>"
        "</object>" if box else "",
    )  # fmt: skip


def test_exif_turns_boxes_and_masks_with_the_image(put, load):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    lying = image(0, 48, 64)
    turned = stored(lying, "PNG", exif=exif)
    box = Box(10, 20, 30, 24, "scratch")
    upright = np.rot90(mask_of(box, height=48), -1)
    files = {
        "images/a.png": turned, "masks/a.png": mask_of(box, height=48),
        "annotations/a.xml": voc(box, 64, 48),
    }  # fmt: skip
    root = put(files)
    sample = load(root).samples[0]
    assert np.array_equal(sample.pixels, np.rot90(lying, -1))
    assert np.array_equal(sample.mask, upright > 0)
    assert sample.boxes == (Box(24, 10, 28, 30, "scratch"),)
    shown = Box(24, 10, 28, 30, "scratch")
    put({"masks/a.png": upright, "annotations/a.xml": voc(shown, 48, 64)})  # drawn on the shown one
    again = load(root).samples[0]
    assert np.array_equal(again.mask, upright > 0)
    assert again.boxes == sample.boxes
    # Says no size: what is told counts, for masks as well.
    put({"annotations/a.xml": voc(Box(5, 5, 10, 10, "scratch"), 0, 0)})
    assert load(root, drawn_on="shown").samples[0].boxes == (Box(5, 5, 10, 10, "scratch"),)
    put({"masks/a.png": mask_of(box, height=48)})
    assert load(root, drawn_on="stored").samples[0].boxes == (Box(38, 5, 43, 10, "scratch"),)


def test_shares_of_sides_are_of_the_form_that_was_drawn_on(put, load):
    exif = Image.Exif()
    exif[0x0112] = 6
    root = put({"a.png": stored(image(0, 48, 64), "PNG", exif=exif), "a.txt": "0 .5 .25 .5 .125",
                "masks/a.png": mask_of(height=48)})  # fmt: skip
    assert load(root).samples[0].boxes == (Box(33, 16, 39, 48, "0"),)
    assert load(root).samples[0].mask is None  # it marks nothing, the boxes do
    put({"masks/a.png": mask_of(height=64, width=48)})
    assert load(root, drawn_on="shown").samples[0].boxes == (Box(12, 12, 36, 20, "0"),)


def test_masks_that_do_not_fit_are_refused_by_name(put, load):
    root = put({
        "pit/a.jpg": image(0), "pit/a.png": mask_of(SCRATCH, height=32, width=32),
        "pit/b.jpg": image(1), "pit/b.png": mask_of(SCRATCH, height=50),
        "pit/c.jpg": image(2), "pit/c.png": image(3),
        "pit/d.jpg": image(4), "pit/d.png": stored(mask_of(SCRATCH), "PNG")[:60],
        "good/e.jpg": image(5), "good/e.png": mask_of(SCRATCH),
        "good/f.jpg": image(6), "good/f.png": mask_of(),
    })  # fmt: skip
    dataset = load(root)
    found = aside(dataset)
    assert found["pit/a.jpg"] == ("mask-unfit", "pit/a.png: mask 32 x 32, image 64 x 64")
    assert found["pit/b.jpg"][1].endswith("mask 64 x 50, image 64 x 64, of another shape")
    assert "neither dark nor light" in found["pit/c.jpg"][1]
    assert found["pit/d.jpg"][0] == "mask-broken"
    assert found["good/e.jpg"] == ("ok-with-defect", "labelled ok, but a mask of 80 pixels")
    assert dataset.frame["name"].to_list() == ["good/f.jpg"]
    resized = load(root, resize_masks=True)
    assert resized.frame["name"].to_list() == ["good/f.jpg", "pit/a.jpg"]
    assert resized.samples[1].mask.shape == (64, 64)


def test_masks_of_numbers_and_a_threshold_that_is_told(put, load):
    root = put({
        "images/a.png": image(0), "masks/a.png": mask_of(SCRATCH, level=2),
        "images/b.png": image(1), "masks/b.png": mask_of(),
    })  # fmt: skip
    dataset = load(root)
    assert dataset.frame["label"].to_list() == ["ng", "ok"]
    assert any("from level 1 (numbers of types)" in line for line in dataset.findings)
    told = load(root, mask_threshold=3)
    assert told.frame["label"].to_list() == ["ok", "ok"]


def test_copies_near_copies_and_one_picture_with_two_labels(put, load):
    first = image(0)
    root = put({
        "good/a.png": first, "good/b.png": first, "pit/turned.png": np.rot90(first).copy(),
        "good/x.png": image(1), "pit/x.png": image(1), "pit/y.png": image(2),
        "dent/c.png": image(3), "pit/c.png": image(3), "unlabelled/y.png": image(2),
    })  # fmt: skip
    dataset = load(root)
    found = aside(dataset)
    assert {name: rule for name, (rule, _) in found.items()} == {
        "good/b.png": "duplicate-of", "good/x.png": "two-labels", "pit/x.png": "two-labels",
        "dent/c.png": "two-labels", "pit/c.png": "two-labels", "unlabelled/y.png": "duplicate-of",
    }  # fmt: skip
    assert "good/x.png is ok; pit/x.png is pit" in found["good/x.png"][1]
    assert dict(dataset.frame.select("name", "group").rows()) == {
        "good/a.png": 0, "pit/turned.png": 0, "pit/y.png": 1,
    }  # fmt: skip
    assert any("1 of them hold good and defective" in line for line in dataset.findings)
    without = load(root, near_copies="aside")
    assert aside(without)["pit/turned.png"][0] == "near-duplicate-of"
    apart = load(root, near_copies="kept", copies="kept")
    groups = dict(apart.frame.select("name", "group").rows())
    assert groups["good/a.png"] == groups["good/b.png"] != groups["pit/turned.png"]


def test_parts_tie_images_also_by_a_copy_that_is_set_aside(put, tmp_path, load):
    root = put(
        {f"good/p{i // 2}_{i}.png": image(i) for i in range(4)} | {"good/p1_9.png": image(0)}
    )
    table = tmp_path / "parts.csv"
    table.write_text("file,part\np0_0.png,x\ngone.png,x\n")
    dataset = load(root, part_pattern=r"/(p\d+)_", parts=table)
    assert dataset.frame["part"].to_list() == ["x", "p0", "p1", "p1"]
    # p1_9 repeats p0_0, so their parts show the same thing.
    assert dataset.frame["group"].to_list() == [0, 1, 0, 0]
    assert any("1 names of parts.csv are of no image here" in line for line in dataset.findings)


def test_voc_with_wrong_files(put, load):
    far = Box(0, 0, 70, 10, "pit")
    root = put({
        "img/a.jpg": image(0), "xml/a.xml": voc(SCRATCH, name="old.jpg"), "img/b.jpg": image(1),
        "xml/b.xml": voc(far), "img/c.jpg": image(2), "xml/c.xml": "<annotation>\n<oops",
        "img/d.jpg": image(3), "xml/d.xml": voc(SCRATCH, 416, 416), "img/e.jpg": image(4),
        "xml/e.xml": voc(None), "img/f.jpg": image(5),
        "xml/z.xml": voc(SCRATCH, name="/etc/passwd"),
        "other.xml": "<html/>", "img/g.jpg": image(6), "xml/g.xml": voc(Box(60, 60, 65, 64, "pit")),
    })  # fmt: skip
    dataset = load(root)
    assert dict(dataset.frame.select("name", "label").rows()) == {
        "img/a.jpg": "ng", "img/e.jpg": "ok", "img/f.jpg": None, "img/g.jpg": "ng",
    }  # fmt: skip
    assert dataset.samples[0].boxes == (SCRATCH,)
    assert dataset.samples[3].boxes == (Box(60, 60, 64, 64, "pit"),)
    found = aside(dataset)
    assert found["img/b.jpg"][0] == "box-outside"
    assert found["img/c.jpg"][1].startswith("xml/c.xml:2: no whole XML")
    assert found["img/d.jpg"] == ("annotation-size", "annotated at 416 x 416, image 64 x 64")
    assert found["xml/z.xml"] == (
        "no-image", "xml/z.xml: belongs to no image of the folder ('/etc/passwd')",
    )  # fmt: skip
    assert any("1 of them name another image" in line for line in dataset.findings)
    assert load(root, annotations="none").frame["boxes"].sum() == 0


def test_voc_that_counts_from_zero_is_noticed(put, load):
    root = put({"a.jpg": image(0), "a.xml": voc(Box(-1, 4, 9, 9, "pit"))})
    dataset = load(root)
    assert dataset.samples[0].boxes == (Box(0, 5, 9, 9, "pit"),)
    assert any("pixels count from 0, for a corner is at 0" in line for line in dataset.findings)
    assert load(root, voc_from=1).samples[0].boxes == (Box(0, 4, 9, 9, "pit"),)


def coco(*images):
    return json.dumps({
        "images": [{"id": i, "file_name": name} for i, (name, _) in enumerate(images)],
        "categories": [{"id": 1, "name": "pit"}],
        "annotations": [
            {"image_id": i, "category_id": 1, "bbox": box}
            for i, (_, box) in enumerate(images) if box
        ],
    })  # fmt: skip


def test_coco(put, load):
    root = put({
        "images/a.jpg": image(0), "images/b.jpg": image(1), "sub/a.jpg": image(2),
        "coco.json": coco(
            ("images/a.jpg", [1, 2, 3, 4]), ("b.jpg", None), ("../../x.jpg", [0, 0, 1, 1])
        ),
        "other.json": "{}",
    })  # fmt: skip
    dataset = load(root)
    assert dataset.frame["label"].to_list() == ["ng", "ok", None]
    assert dataset.samples[0].boxes == (Box(1, 2, 4, 6, "pit"),)
    assert aside(dataset)["coco.json#images[2]"][0] == "no-image"
    put({"images/z.jpg": image(3), "coco2.json": coco(("b.jpg", [0, 0, 5, 5]), ("a.jpg", None))})
    found = aside(load(root))
    assert "annotated twice" in found["images/b.jpg"][1]
    assert "several images: images/a.jpg, sub/a.jpg" in found["images/a.jpg"][1]
    put({"coco.json": '{"images": [], "annotations": \n['})
    with pytest.raises(AnnotationError, match=r"coco.json:2: no whole JSON"):
        load_dataset(root)


def shaped(*images, **more):
    """COCO of images (name, [(box, segmentation)])."""
    return json.dumps({
        "images": [{"id": i, "file_name": name, **more} for i, (name, _) in enumerate(images)],
        "categories": [{"id": 1, "name": "pit"}],
        "annotations": [
            {"image_id": i, "category_id": 1, "bbox": box, "segmentation": held}
            for i, (_, each) in enumerate(images) for box, held in each
        ],
    })  # fmt: skip


def test_outlines_and_runs_of_coco_are_masks(put, load):
    triangle = ([2, 3, 8, 8], [[2, 3, 10, 3, 10, 11]])
    runs = ([0, 0, 1, 4], {"size": [64, 64], "counts": [0, 4, 64 * 64 - 4]})
    root = put({
        "a.png": image(0), "b.png": image(1), "c.png": image(2), "d.png": image(3),
        "e.png": image(4), "f.png": image(5), "f_mask.png": mask_of(SCRATCH),
        "coco.json": shaped(
            ("a.png", [triangle, runs]), ("b.png", [triangle, ([5, 5, 2, 2], [])]),
            ("c.png", [([0, 0, 9, 9], {"size": [9, 9], "counts": [0, 81]})]),
            ("d.png", [([60, 0, 4, 4], [[60, 0, 66, 0, 66, 4]])]), ("e.png", []),
            ("f.png", [triangle]),
        ),
    })  # fmt: skip
    dataset = load(root)
    drawn, partly, clean, beside = dataset.samples
    assert drawn.mask[3:11, 2:10].sum() == 36  # rows of 8, 7, ... 1: the middles on the edge
    assert drawn.mask[:4, 0].all()
    assert drawn.mask.sum() == 36 + 4
    assert (drawn.label, drawn.kind, len(drawn.boxes)) == ("ng", "pit", 2)
    assert (partly.mask, len(partly.boxes)) == (None, 2)
    assert (clean.label, clean.mask) == ("ok", None)
    assert np.array_equal(beside.mask, mask_of(SCRATCH) > 0)
    assert aside(dataset) == {
        "c.png": ("shape-outside", "runs of 9 x 9 pixels"),
        "d.png": ("shape-outside", "an outline 60, 0, 66, 4"),
    }
    for told in (
        "shapes: 1 images have a mask by outlines or runs of their annotation",
        "shapes: 1 images have outlines of some defects only: their boxes count alone",
        "shapes: 1 images have a mask file, which goes before outlines",
    ):
        assert told in dataset.findings
    put({"coco.json": shaped(("a.png", [triangle]), ("e.png", []))})
    assert load(root).digest != dataset.digest


def test_outlines_turn_with_the_image_and_are_written_again(put, load, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    outline = ([4, 8, 10, 2], [[4, 8, 14, 8, 14, 10, 4, 10]])
    root = put({
        "a.png": stored(image(0, 48, 64), "PNG", exif=exif.tobytes()),
        "coco.json": shaped(("a.png", [outline]), width=64, height=48),
    })  # fmt: skip
    (sample,) = load(root).samples
    (box,) = sample.boxes
    expected = mask_of(box, height=64, width=48) > 0
    assert np.array_equal(sample.mask, expected)
    write_dataset([sample], tmp_path / "again")
    assert np.array_equal(load(tmp_path / "again").samples[0].mask, expected)


def test_too_much_to_be_drawn_by_hand_is_refused_before_it_is_drawn(put, load):
    saw = [v for _ in range(40_000) for v in (0, 0, 9, 64 << 8)]
    root = put({"a.png": image(0), "b.png": image(1),
                "coco.json": shaped(("a.png", [([0, 0, 9, 9], [saw])]))})  # fmt: skip
    assert "too large together" in aside(load(root))["a.png"][1]


def test_an_annotation_of_100_mb_is_refused_before_it_is_parsed(put):
    root = put({"a.png": image(0), "a.json": ""})
    with (root / "a.json").open("wb") as handle:
        handle.truncate(100 << 20)  # a hole: takes no room on the disk
    with pytest.raises(AnnotationError, match=r"a.json: 104,857,600 bytes"):
        load_dataset(root)


def test_yolo(put, load):
    root = put({
        "images/train/a.jpg": image(0), "labels/train/a.txt": "1 0.5 0.5 0.25 0.5\n",
        "images/train/b.jpg": image(1), "labels/train/b.txt": "",
        "images/train/c.jpg": image(2), "labels/train/c.txt": "9 0.5 0.5 0.25 0.5\n",
        "images/val/d.jpg": image(3), "data.yaml": "names:\n  0: pit\n  1: dent\n",
    })  # fmt: skip
    dataset = load(root)
    assert dataset.frame.select("label", "kind", "split").rows() == [
        ("ng", "dent", "train"), ("ok", "", "train"), (None, "", "val"),
    ]  # fmt: skip
    assert dataset.samples[0].boxes == (Box(24, 16, 40, 48, "dent"),)
    assert aside(dataset)["images/train/c.jpg"][1] == (
        "labels/train/c.txt:1: class 9, but 2 names are given, from 0 on"
    )
    assert load(put({"b.png": image(9), "b.txt": "A note of somebody."})).rows_in == 5
    put({"images/train/a.xml": voc(SCRATCH)})
    with pytest.raises(LayoutError, match=r"several forms \(voc, yolo\)"):
        load_dataset(root)
    assert load(root, annotations="voc").frame["boxes"].sum() == 1


def test_links_in_and_out_are_not_followed(put, tmp_path, load):
    root = put({"a.png": image(0), "b.png": image(1), "z.png": image(3)})
    secret = tmp_path / "secret.xml"
    secret.write_text(voc(SCRATCH))
    (root / "a.xml").symlink_to(secret)
    os.mkfifo(root / "b.xml")
    outside = tmp_path / "c.png"
    outside.write_bytes(stored(image(2), "PNG"))
    (root / "c.png").symlink_to(outside)
    found = aside(load(root))
    assert found["c.png"] == ("link", "a link out of the folder")
    assert found["a.png"][0] == "bad-annotation"
    assert "symbolic" in found["a.png"][1]


def test_an_index_says_what_belongs_to_a_dataset(put, tmp_path, load):
    index = tmp_path / "mine.csv"
    index.write_text(
        "image,label,kind,mask,part,left,top,right,bottom\n"
        "x/a.png,ng,pit,m/1.png,p1,,,,\nx/a.png,ng,dent,,,1,2,3,4\nx/b.png,ok,,,p1,,,,\n"
        "../secret.png,ok,,,,,,,\nx/c.png,ng,,/etc/passwd,,,,,\nx/d.png,,,,,,,,\n"
    )
    root = put({
        "x/a.png": image(0), "x/b.png": image(1), "x/c.png": image(2), "x/d.png": image(3),
        "x/e.png": image(4), "m/1.png": mask_of(SCRATCH), "x/a.xml": voc(SCRATCH),
    })  # fmt: skip
    dataset = load(root, index=index)
    assert dataset.frame.select("name", "label", "kind", "part", "group", "boxes").rows() == [
        ("x/a.png", "ng", "pit", "p1", 0, 1), ("x/b.png", "ok", "", "p1", 0, 0),
        ("x/d.png", None, "", "", 1, 0),
    ]  # fmt: skip
    assert dataset.samples[0].boxes == (Box(1, 2, 3, 4, "dent"),)
    assert dataset.samples[0].mask.sum() == 80
    assert {name: rule for name, (rule, _) in aside(dataset).items()} == {
        "../secret.png": "no-image", "x/c.png": "mask-missing",
    }  # fmt: skip
    payloads = {r["rule"]: (r["row"], r["payload"]) for r in dataset.quarantine.to_pylist()}
    assert payloads["no-image"] == (6, b'{"file": "../secret.png"}')
    assert payloads["mask-missing"] == (3, stored(image(2), "PNG"))
    assert "  1 other images of the folder are not in it and left out" in dataset.findings


def made_samples():
    colour = np.dstack([image(2), image(3), image(4)])
    mask = mask_of(SCRATCH) > 0
    return [
        Sample("good/a.png", image(0), "ok"),
        Sample("good/a.jpg", image(1), "ok", mask=np.zeros((64, 64), bool), part="p, 1"),
        Sample("new.png", colour),
        Sample("pit/b.png", image(5), "ng", "scratch", mask, (SCRATCH, Box(0.5, 1, 2.25, 3))),
    ]


def test_what_is_written_is_read_again(tmp_path, load):
    samples = made_samples()
    write_dataset(samples, tmp_path / "out")
    dataset = load(tmp_path / "out")
    by_name = {sample.name: sample for sample in dataset.samples}
    for sample in samples:
        name = sample.name if sample.name.endswith(".png") else f"{sample.name}.png"
        again = by_name.pop(name)
        assert np.array_equal(again.pixels, sample.pixels)
        assert np.array_equal(again.mask, sample.mask)
        for field in ("label", "kind", "part", "boxes"):
            assert getattr(again, field) == getattr(sample, field)
    assert by_name == {}
    write_dataset(dataset.samples, tmp_path / "again")
    assert load(tmp_path / "again").digest == dataset.digest
    with pytest.raises(FileExistsError, match="holds something"):
        write_dataset(samples, tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    ["../a.png", "/a.png", "a/../../b.png", ".hidden.png", "masks/a.png", "a\n.png", "", "a\\b"],
)
def test_names_that_lead_elsewhere_are_not_written(tmp_path, name):
    with pytest.raises(SampleError, match="path within the folder"):
        write_dataset([Sample(name, image(0))], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_names_that_differ_by_case_alone_are_refused(tmp_path):
    with pytest.raises(SampleError, match="occurs twice"):
        write_dataset([Sample("a.png", image(0)), Sample("A.png", image(1))], tmp_path / "out")


def test_the_digest_is_of_the_content_alone(put, tmp_path, load):
    root = put({"good/a.png": image(0), "pit/b.png": image(1)})
    digest = load(root).digest
    shutil.copytree(root, tmp_path / "moved")
    (tmp_path / "moved" / "good" / "a.png").rename(tmp_path / "moved" / "good" / "z.png")
    assert load(tmp_path / "moved").digest == digest
    (tmp_path / "moved" / "pit").rename(tmp_path / "moved" / "dent")
    assert load(tmp_path / "moved").digest != digest


def test_splits_are_written_and_checked_when_read(put, tmp_path, load):
    dataset = load(
        put({f"good/p{i // 2}_{i}.png": image(i) for i in range(8)}), part_pattern=r"p\d"
    )
    split = split_groups(dataset.frame, {"train": 0.5, "test": 0.5})
    path = tmp_path / "split.csv"
    write_split(split, path)
    assert read_split(path, dataset.frame).equals(split)
    torn = split.with_columns(pl.Series("split", ["train", *["test"] * 7]))
    write_split(torn, path)
    with pytest.raises(SplitError, match=r"split.csv: group 0 straddles"):
        read_split(path, dataset.frame)
    path.write_text("name,part\na,b\n")
    with pytest.raises(AnnotationError, match="lacks the column split"):
        read_split(path, dataset.frame)


def test_limits_hold_for_images_of_a_dataset(put):
    with Sandbox(ImageLimits(max_pixels=10_000), workers=1) as small:
        dataset = loaded(put({"a.png": image(0), "b.png": image(1, 200, 200)}), small)
    assert aside(dataset)["b.png"][0] == "too-many-pixels"


def test_options_are_refused_by_name():
    for wrong in ({"annotations": "x"}, {"mask_threshold": 0}, {"copies": "x"}, {"voc_from": 2}):
        with pytest.raises(DatasetError, match=next(iter(wrong))):
            DatasetOptions(**wrong)


@pytest.mark.slow
@pytest.mark.data
def test_counts_of_the_public_sets(tmp_path, load):
    base = os.environ.get("PENSTOCK_DATA")
    root = None if base is None else tmp_path.joinpath(base, "defects")
    if root is None or not (root / "neu_det").is_dir():
        pytest.skip("PENSTOCK_DATA names no folder with defects/neu_det")
    steel = load(root / "neu_det", copies="kept", layout=LayoutOptions(types_from="name"))
    assert (steel.rows_in, steel.frame.height, steel.frame["boxes"].sum()) == (1_800, 1_800, 4_189)
    assert steel.frame.group_by("kind").len()["len"].to_list() == [300] * 6
    tiles = root / "magnetic_tile"
    tile = load(tiles, parts=tiles / "tile_groups.csv")
    assert tile.frame.height == 1_344
    assert (tile.frame["mask"] != "").sum() == 1_340  # four of Uneven mark nothing
    assert tile.frame["part"].n_unique() == 282
    kinds = dict(tile.frame.group_by("kind").len().rows())
    assert kinds == {"": 952, "Blowhole": 115, "Uneven": 103, "Break": 85, "Crack": 57, "Fray": 32}
    matches = pl.read_csv(root / "neu_masks" / "matches.csv").unique("neu_image", keep="first")
    rows = ["image,label,mask"]
    rows += [f"neu_det/images/{i},ng,neu_masks/{m}" for m, i, _ in matches.iter_rows()]
    (tmp_path / "index.csv").write_text("\n".join(rows))
    masked = load(root, index=tmp_path / "index.csv", copies="kept")
    assert (masked.frame["mask"] != "").sum() == masked.frame.height == 899


def test_where_all_parts_are_named_and_look_alike_names_count_alone(tmp_path, load):
    noise = np.random.default_rng(0)
    print_ = np.kron(noise.integers(0, 2, (12, 12)), np.full((8, 8), 200)).astype(np.uint8)
    line = [
        Sample(
            f"{i}.png",
            np.clip(print_ + noise.integers(0, 30, (96, 96)), 0, 255).astype(np.uint8),
            "ok",
            part=f"p{i}",
        )
        for i in range(6)
    ]
    write_dataset(line, tmp_path / "named")
    named = load(tmp_path / "named")
    assert named.frame["group"].n_unique() == 6
    assert any("the parts are named" in text for text in named.findings)
    write_dataset([replace(one, part="") for one in line], tmp_path / "unnamed")
    assert load(tmp_path / "unnamed").frame["group"].n_unique() == 1
