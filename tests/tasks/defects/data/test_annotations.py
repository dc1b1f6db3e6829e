"""VOC, COCO, YOLO and the index: round trips, and files that mean harm."""

from __future__ import annotations

import json
from contextlib import suppress
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.defects.data.annotation import Annotation, AnnotationError
from tasks.defects.data.coco import MAX_BYTES, parse_coco
from tasks.defects.data.index import Entry, index_csv, parse_index
from tasks.defects.data.shapes import drawn
from tasks.defects.data.voc import counted_from_zero, parse_voc
from tasks.defects.data.yolo import parse_names, parse_yolo
from tasks.defects.samples import Box

WIDTH, HEIGHT = 640, 480
words = st.text(
    st.characters(categories=("L", "N", "P", "S"), include_characters=" "), max_size=12
).map(str.strip)
kinds = words.filter(bool)


@st.composite
def boxes_of(draw, kind=kinds):
    left, top = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    right, bottom = draw(st.integers(left + 1, WIDTH)), draw(st.integers(top + 1, HEIGHT))
    return Box(left, top, right, bottom, draw(kind))


many = st.lists(boxes_of(), max_size=4).map(tuple)


def voc_file(annotation, *, first=1):
    """Write VOC by its definition: pixels count from 1, the last one inside."""
    objects = "".join(
        f"<object><name>{escape(b.kind)}</name><part><name>x</name><bndbox><xmin>3</xmin></bndbox>"
        f"</part><bndbox><xmin>{b.left + first}</xmin><ymin>{b.top + first}</ymin>"
        f"<xmax>{b.right}</xmax><ymax>{b.bottom}</ymax></bndbox></object>"
        for b in annotation.boxes
    )
    size = f"<size><width>{annotation.size[0]}</width><height>{annotation.size[1]}</height></size>"
    return (
        f"<annotation><filename>{escape(annotation.image)}</filename>{size}{objects}</annotation>"
    ).encode()


@settings(max_examples=60, deadline=None)
@given(boxes=many, image=words)
def test_voc_round_trip(boxes, image):
    said = Annotation(image, boxes, (WIDTH, HEIGHT))
    assert parse_voc(voc_file(said), "a.xml") == said
    assert counted_from_zero(parse_voc(voc_file(said, first=0), "a.xml"), "a.xml") == said


@settings(max_examples=60, deadline=None)
@given(images=st.dictionaries(kinds, many, max_size=3))
def test_coco_round_trip(images):
    names = sorted({box.kind for boxes in images.values() for box in boxes})
    data = {
        "categories": [{"id": 5 + i, "name": name} for i, name in enumerate(names)],
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(images)
        ],
        "annotations": [
            {
                "image_id": i,
                "category_id": 5 + names.index(b.kind),
                "bbox": [b.left, b.top, b.right - b.left, b.bottom - b.top],
            }
            for i, boxes in enumerate(images.values())
            for b in boxes
        ],
    }
    found = parse_coco(json.dumps(data).encode(), "a.json")
    assert found == [Annotation(n, b, (WIDTH, HEIGHT)) for n, b in images.items()]


def test_coco_shapes_of_every_form():
    said = {"image_id": 1, "category_id": 1}
    forms = [
        {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
        {"segmentation": [[0, 0, 1, 0, 1, 1, 0, 1], [4, 4, 6, 4, 6, 6, 4, 6]], "iscrowd": 0},
        {"segmentation": {"size": [4, 6], "counts": [5, 2, 17]}, "iscrowd": 1},
        {"segmentation": {"size": [4, 6], "counts": "52a0"}, "bbox": [1, 1, 1, 2]},
        {"segmentation": [], "bbox": [0, 0, 6, 4]},
    ]
    (found,) = parse_coco(coco(annotations=[said | form for form in forms]), "a.json")
    corners = [(b.left, b.top, b.right, b.bottom) for b in found.boxes]
    assert corners == [(1, 1, 4, 3), (0, 0, 6, 6), (1, 1, 2, 3), (1, 1, 2, 3), (0, 0, 6, 4)]
    areas = [int(drawn(shapes, 6, 4).sum()) for shapes in (*found.shapes[:1], *found.shapes[2:])]
    assert areas == [6, 2, 2, 0]
    assert drawn(found.shapes[1], 6, 6).sum() == 1 + 4
    (plain,) = parse_coco(coco(), "a.json")
    assert plain.shapes == ()


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(boxes_of(st.sampled_from(["a", "b c", "#d"])), max_size=4), polygon=st.booleans()
)
def test_yolo_round_trip(boxes, polygon):
    names = ["a", "b c", "#d"]
    lines = []
    for b in boxes:
        x1, x2, y1, y2 = b.left / WIDTH, b.right / WIDTH, b.top / HEIGHT, b.bottom / HEIGHT
        shares = (
            [x1, y1, x2, y1, x2, y2]
            if polygon
            else [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        )
        lines.append(" ".join(map(repr, [names.index(b.kind), *shares])))
    found = parse_yolo("\n".join(lines).encode(), "a.txt", names, (WIDTH, HEIGHT))
    assert [b.kind for b in found.boxes] == [b.kind for b in boxes]
    assert [len(shapes) for shapes in found.shapes] == [1] * len(boxes) * polygon
    for got, said in zip(found.boxes, boxes, strict=True):
        assert (got.left, got.top, got.right, got.bottom) == pytest.approx(
            (said.left, said.top, said.right, said.bottom), abs=1e-6
        )


@st.composite
def entries(draw):
    label = draw(st.sampled_from([None, "ok", "ng"]))
    boxes = () if label == "ok" else draw(many)
    return Entry(
        draw(kinds), label, draw(words) if label == "ng" else "", draw(words), draw(words), boxes
    )


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(entries(), max_size=4, unique_by=lambda e: e.image))
def test_index_round_trip(rows):
    assert parse_index(index_csv(rows).encode(), "index.csv") == rows


def test_names_of_types_in_every_simple_form():
    forms = {
        "classes.txt": "scratch\npit, deep\n\n",
        "data.yaml": "path: x\nnames: [scratch, 'pit, deep']  # two\nnc: 2\n",
        "b.yaml": "names:\n  - scratch\n  - 'pit, deep'  # comment\nnc: 2\n",
        "c.yml": 'train: a\nnames:\n  1: "pit, deep"\n  0: scratch\n',
        "d.yaml": "names: {0: scratch, 1: 'pit, deep'}\n",
        "e.yaml": "names: [\n  'scratch',\n  'pit, deep',\n]\n",
        "f.yaml": "names:\n- scratch\n- pit, deep\nval: b\n",
    }
    for file, text in forms.items():
        assert parse_names(text.encode(), file) == ["scratch", "pit, deep"], file
    wrong = {
        "a.yaml": ("nc: 2\n", "0 lines 'names:'"), "b.yaml": ("names: [a\n", "no ] ends"),
        "c.yaml": ("names: &x {}\n", "give a list"), "d.yaml": ("names:\n  0: a\n  2: b\n", "gap"),
        "e.yaml": ("names:\n  0: a\n  0: b\n", "two names"),
        "f.yaml": ("names:\n  ? x\n", "no name"),
        "classes.txt": ("", "1 to 10,000"),
    }  # fmt: skip
    for file, (text, message) in wrong.items():
        with pytest.raises(AnnotationError, match=message) as caught:
            parse_names(text.encode(), file)
        assert caught.value.file == file


LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""
ONE = b"<annotation><object><name>a</name><bndbox>%s</bndbox></object></annotation>"


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (LAUGHS, 2, "document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', 1, "document type"),
        (b"<annotation>\n<filename>&x;</filename></annotation>", 2, "no whole XML"),
        (b"<annotation>\n<object>", 2, "no whole XML"),
        (b"", 1, "no whole XML"),
        (b"<html/>", 1, "begins with"),
        (b"<annotation>" + b"<a>" * 40, 1, "deep"),
        (b"<annotation><filename>" + b"a" * 9_999 + b"</filename></annotation>", 1, "characters"),
        (b"<annotation>" + b" " * (5 << 20) + b"</annotation>", 0, "bytes"),
        (b"<annotation>" + b"<object/>" * 10_001 + b"</annotation>", 1, "boxes"),
        (b'<?xml version="1.0" encoding="martian"?><annotation/>', 1, "encoding|save it as UTF-8"),
        (ONE % b"<xmin>nan</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>", 1, "xmin is 'nan'"),
        (ONE % b"\n<xmin>1</xmin>\n<ymin>1e999</ymin>", 3, "ymin is"),
        (ONE % b"<xmin>9</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>", 0, "holds no pixel"),
        (ONE % b"<xmin>9</xmin><xmin>9</xmin>", 1, "a second <xmin>"),
        (ONE % b"<xmin>1</xmin>", 1, "ymin is ''"),
    ],
)
def test_hostile_voc_is_refused_with_the_line(data, line, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        parse_voc(data, "a.xml")
    assert caught.value.file == "a.xml"
    assert line in {0, caught.value.line}


def coco(**changed):
    whole = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "pit"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}],
    }
    return json.dumps(whole | changed).encode()


def one_shape(held, **more):
    entry = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": held}
    return coco(annotations=[{k: v for k, v in (entry | more).items() if v is not None}])


def one_box(*sides):
    return coco(annotations=[{"image_id": 1, "category_id": 1, "bbox": list(sides)}])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"images": [' + b" " * MAX_BYTES, "bytes"),
        (b'{"images":\n[1', "a.json:2"),
        (b"[]", "no COCO"),
        (b'{"images": [1]}', r"images\[0\] must be an object"),
        (b'{"images": [], "annotations": {}}', "annotations must be a list"),
        (b'{"images": [{"id": 1e5}]}', "id must be"),
        (b'{"images": [{"id": %s}]}' % (b"9" * 5_000), "digits|integer"),
        (b"\xff{}", "UTF-8"),
        (coco(images=[{"id": 1, "file_name": "a"}] * 2), "occurs twice"),
        (coco(annotations=[{"image_id": 2, "category_id": 1, "bbox": [0, 0, 1, 1]}]), "image_id 2"),
        (one_box(0, 0, float("nan"), 1), "NaN is no number"),
        (one_box(0, 0, -5, 1), r"annotations\[0\]: box .* holds no pixel"),
        (one_box(0, 0, 10**400, 1), "digits|beyond"),
        (one_box(0, 0, True, 1), "bbox must be"),
        (one_box(0, 0, 1), "bbox must be"),
        (one_shape("a"), r"annotations\[0\]: segmentation: must be polygons or runs"),
        (one_shape([[0, 0, 1, 1]]), "at least three corners"),
        (one_shape([[0, 0, 1, 1, 0, "1"]]), "at least three corners"),
        (one_shape([[0, 0, 1, 1, 0, 1e300]]), "beyond every image"),
        (one_shape([[0, 0, 1, 1, 0, 10**400]]), "digits|too large"),
        (one_shape({"size": [2, 2], "counts": [3]}), "runs of 3 pixels, but 2 x 2"),
        (one_shape({"size": [2, 2], "counts": [5.0]}), "a list of numbers from 0"),
        (one_shape({"size": [2, 2, 2], "counts": []}), "size must be"),
        (one_shape({"size": [2, True], "counts": []}), "size must be"),
        (one_shape({"size": [1048576, 1048576], "counts": [1 << 40]}), "of no image"),
        (one_shape({"size": [2, 2], "counts": "PPPPPPPPPPP0"}), "longer than every image"),
        (one_shape({"size": [2, 2], "counts": [4]}, bbox=None), "mark no pixel"),
        (one_shape([], bbox=None), "bbox must be"),
    ],
)  # fmt: skip
def test_hostile_coco_is_refused(data, message):
    with pytest.raises(AnnotationError, match=message):
        parse_coco(data, "a.json")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("0 .5 .5 .1 .1\n0 .5 .5 nan .1", 2, "finite"),
        ("0 .5 .5 .1", 1, "4 fields"),
        ("0 100 100 20 20", 1, "not pixels"),
        ("7 .5 .5 .1 .1", 1, "class 7, but 2 names"),
        ("pit .5 .5 .1 .1", 1, "no number"),
        ("-1 .5 .5 .1 .1", 1, "no number"),
        ("0 .5 .5 0 .1", 1, "holds no pixel"),
        ("0 .5 .5 .1 .1\n" * 10_001, 10_001, "more than"),
        ("0 .1 .1 .2 .2 .3", 1, "6 fields"),
    ],
)
def test_wrong_yolo_is_refused_with_the_line(text, line, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        parse_yolo(text.encode(), "a.txt", ["a", "b"], (10, 10))
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("name,label\na,ok", 1, "lacks the column image"),
        ("image,label,label\n", 1, "a column twice"),
        ("image,label\na,ok\nb,good", 3, "write ok, ng"),
        ("image,label\na,ok\na,ok", 3, "a second row"),
        ("image,label\na", 2, "1 fields"),
        ("image,left,top,right,bottom\na,1,2,x,4", 2, "right is 'x'"),
        ("image,label,left,top,right,bottom\na,ok,1,2,3,4", 2, "a box on an image labelled ok"),
        ('image\n"a', 2, "no CSV"),
        ("image,part\na," + "x" * 5_000, 2, "characters"),
    ],
)
def test_wrong_index_is_refused_with_the_line(text, line, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        parse_index(text.encode(), "index.csv")
    assert caught.value.line == line


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=200),
    start=st.sampled_from([b"", b"<annotation>", b'{"images":[', b"0 "]),
)
def test_any_bytes_are_read_or_refused(data, start):
    for parse in (
        lambda d: parse_voc(d, "a"), lambda d: parse_coco(d, "a"), lambda d: parse_index(d, "a"),
        lambda d: parse_yolo(d, "a", [], (9, 9)), lambda d: parse_names(d, "a.yaml"),
    ):  # fmt: skip
        with suppress(AnnotationError):
            parse(start + data)
