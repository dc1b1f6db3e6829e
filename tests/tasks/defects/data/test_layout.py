"""What names say: layouts that people have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.defects.data.layout import LayoutError, LayoutOptions, find_layout
from tasks.defects.data.pairing import Lookup


def told(names, **options):
    layout = find_layout(names, LayoutOptions(**options))
    return {p.image: (p.label, p.kind, p.mask, p.split) for p in layout.places}, layout


def test_normal_and_types_as_folders_under_many_names():
    for good in ("normal", "good", "OK", "Free", "defect-free", "no_defect", "i.O.", "good parts"):
        found, layout = told([f"{good}/1.png", f"{good}/2.png", "scratch/1.png", "NG/3.png"])
        assert found[f"{good}/1.png"][:2] == ("ok", "")
        assert found["scratch/1.png"][:2] == ("ng", "scratch")
        assert found["NG/3.png"][:2] == ("ng", "")
        assert f"  {good}: 2, good" in layout.findings
    found, _ = told(["not good/1.png", "unlabelled/1.png", "ok/1.png", "top.png"])
    assert [v[0] for v in found.values()] == ["ng", None, "ok", None]


def test_the_folder_of_classes_may_lie_anywhere():
    found, _ = told(["line1/good/day 1/a.png", "line1/pit/day 2/b.png", "line2/good/day 1/c.png"])
    assert [v[:2] for v in found.values()] == [("ok", ""), ("ng", "pit"), ("ok", "")]
    found, _ = told(["images/pit/a.png", "images/dent/a.png"])
    assert [v[:2] for v in found.values()] == [("ng", "pit"), ("ng", "dent")]


def test_a_common_beginning_is_left_out_only_where_it_hides_the_good_ones():
    found, _ = told(["MT_Free/Imgs/a.jpg", "MT_Blowhole/Imgs/b.jpg"])
    assert [v[:2] for v in found.values()] == [("ok", ""), ("ng", "Blowhole")]
    found, _ = told(["crack_small/a.jpg", "crack_large/b.jpg"])
    assert [v[1] for v in found.values()] == ["crack_small", "crack_large"]


def test_mvtec():
    names = [
        "train/good/000.png", "test/good/000.png", "test/cut/000.png", "test/hole/000.png",
        "ground_truth/cut/000_mask.png", "ground_truth/hole/000_mask.png",
    ]  # fmt: skip
    for under in ("", "bottle/"):
        found, _ = told([under + name for name in names])
        mask = f"{under}ground_truth/cut/000_mask.png"
        assert found[f"{under}test/cut/000.png"] == ("ng", "cut", mask, "test")
        assert found[f"{under}train/good/000.png"] == ("ok", "", "", "train")
        assert len(found) == 4


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("pit/a.jpg", "pit/a.png"), ("pit/a.png", "pit/a_mask.png"), ("a.png", "a-gt.png"),
        ("images/a.jpg", "masks/a.png"), ("pit/a.jpg", "masks/pit/a.png"),
        ("x/img/a.bmp", "x/gt/a.bmp"),
        ("pit/a.jpg", "pit/masks/a_mask.png"), ("train/images/a.jpg", "train/masks/a.png"),
    ],
)  # fmt: skip
def test_masks_beside_with_an_ending_and_in_folders(image, mask):
    found, layout = told([image, mask])
    assert list(found) == [image]
    assert found[image][2] == mask
    assert any(line.startswith("masks: 1") for line in layout.findings)
    found, _ = told([image, mask], masks="none")
    assert set(found) == {image, mask}


def test_few_png_beside_jpg_are_pictures_unless_told():
    names = ["a.jpg", "a.png", "b.png", "c.png"]
    assert len(told(names)[0]) == 4
    assert told(names, masks="beside")[0]["a.jpg"][2] == "a.png"


def test_masks_without_one_image_are_lost_with_the_reason():
    layout = find_layout(["p/a.jpg", "q/a.jpg", "masks/a.png", "masks/z.png"])
    assert layout.lost["masks/z.png"] == "no image has its name"
    assert layout.lost["masks/a.png"].startswith("2 images have its name")
    assert len(layout.places) == 2


def test_types_in_names_only_where_told():
    names = ["rolled-in_scale_12.jpg", "crazing_1.jpg", "good (3).jpg"]
    assert {v[0] for v in told(names)[0].values()} == {None}
    found, _ = told(names, types_from="name")
    assert [v[:2] for v in found.values()] == [
        ("ng", "rolled-in_scale"),
        ("ng", "crazing"),
        ("ok", ""),
    ]
    found, _ = told(["a/good_1.png", "b/good_2.png"], types_from="none")
    assert {v[0] for v in found.values()} == {None}


def test_a_single_folder_is_a_type_only_where_told():
    assert told(["pit/a.png"])[0]["pit/a.png"][0] is None
    assert told(["pit/a.png"], types_from="folder")[0]["pit/a.png"][:2] == ("ng", "pit")
    assert told(["Gutteile/a.png"], normal=("gutteile",))[0]["Gutteile/a.png"][0] == "ok"
    assert "--normal NAME" in told(["pit/a.png", "dent/a.png"])[1].findings[-1]


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(LayoutError, match="choose of auto, folder"):
        LayoutOptions(types_from="stars")
    with pytest.raises(LayoutError, match="looks like a mask"):
        find_layout(["masks/a.png"], LayoutOptions(masks="folder"))


parts = st.sampled_from(["good", "masks", "train", "pit", "a", "a_mask", "images", ".", "ok", "é"])
paths = st.lists(parts, min_size=1, max_size=4).flatmap(
    lambda p: st.sampled_from([".png", ".jpg"]).map(lambda end: "/".join(p) + end)
)


@settings(max_examples=100, deadline=None)
@given(names=st.lists(paths, unique=True, max_size=12))
def test_every_name_is_an_image_a_mask_or_lost(names):
    try:
        layout = find_layout(sorted(names))
    except LayoutError:
        return
    images = [place.image for place in layout.places]
    masks = [place.mask for place in layout.places if place.mask]
    assert sorted([*images, *masks, *layout.lost]) == sorted(names)


def test_paths_of_other_machines_are_looked_up_and_never_followed():
    lookup = Lookup(["images/a.png", "b/a.png", "b/c.1.jpg"])
    assert lookup.named(r"D:\work\images\a.png") == ["images/a.png", "b/a.png"]
    assert lookup.named("images/a.png") == ["images/a.png"]
    assert lookup.named("../../etc/passwd") == []
    assert lookup.named("/etc/../c.1.jpg") == ["b/c.1.jpg"]
    assert lookup.named("c.1") == ["b/c.1.jpg"]
    assert lookup.named("c.1.png") == []
    assert lookup.named("") == lookup.named("/") == []
