"""Boxes drawn by a bundle's detector of boxes: on the line, at the centre, in results."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from connectors.defects.edge_file import open_edge_file
from connectors.defects.inspect.boxed import BoxedInspector
from connectors.defects.inspect.central.load import load_central
from connectors.defects.inspect.inspector import EdgeInspector, Opinion, open_inspector
from connectors.defects.models import edge_model
from tasks.defects.bundle.bundle import write_bundle
from tests.tasks.defects.bright import box_detector, parts, plate

BAD, FINE = plate(50, 230), plate(7)


@pytest.fixture(scope="module")
def boxes():
    return box_detector()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, boxes):
    """A bundle with a detector of boxes; beside it one without, and one that finds nothing."""
    place, made = tmp_path_factory.mktemp("boxed"), parts()
    write_bundle(place / "plain", made)
    blind = replace(boxes, config=replace(boxes.config, told=1.0))
    write_bundle(place / "blind", replace(made, boxes=blind.to_bytes()))
    return write_bundle(place / "boxed", replace(made, boxes=boxes.to_bytes()))


def edges(found):
    return [(box.left, box.top, box.right, box.bottom, box.score) for box in found]


def test_what_is_not_ok_has_the_boxes_of_the_detector_and_else_those_of_before(bundle, boxes):
    drawn, edge = open_inspector(bundle.folder), open_inspector(bundle.folder / "edge.onnx")
    assert isinstance(drawn, BoxedInspector)
    assert isinstance(open_inspector(bundle.folder, typed=False), EdgeInspector)
    assert isinstance(open_inspector(bundle.folder.parent / "plain"), EdgeInspector)
    assert (drawn.thresholds, drawn.bits) == (edge.thresholds, edge.bits)
    said, before = drawn.judge(BAD), edge.judge(BAD)
    assert (said.verdict, said.score, said.kinds) == ("NG", before.score, before.kinds)
    (found,) = boxes.judge([BAD])
    assert said.boxes[:5] == tuple(found)
    assert set(said.boxes[5:]) <= set(before.boxes)
    fine, plain = drawn.judge(FINE), edge.judge(FINE)
    assert (fine.verdict, fine.boxes) == ("OK", plain.boxes)
    opinion = json.loads(json.dumps(Opinion.of(said, drawn).to_json()))
    assert opinion["model"] == drawn.digest
    assert [box[:2] for box in opinion["boxes"]][:5] == [
        [round(box.left, 2), round(box.top, 2)] for box in found
    ]


def test_where_no_box_is_found_contours_stay(bundle):
    blind = open_inspector(bundle.folder.parent / "blind")
    plain = open_inspector(bundle.folder.parent / "plain")
    assert blind.judge(BAD).boxes == plain.judge(BAD).boxes != ()
    digests = {open_inspector(bundle.folder).digest, blind.digest, plain.digest}
    assert len(digests) == 3


def test_the_centre_draws_once_the_boxes_of_the_detector(bundle, boxes):
    central = load_central([bundle.folder])
    said = central.judge(BAD)
    assert said.verdict == "NG"
    assert edges(said.boxes[:5]) == edges(boxes.judge([BAD])[0])
    assert central.judge(FINE).verdict == "OK"
    plain = load_central([bundle.folder.parent / "plain"])
    assert central.judge(FINE).boxes == plain.judge(FINE).boxes
    assert edges(plain.judge(BAD).boxes) != edges(said.boxes)


def test_the_edge_file_stays_alone(bundle):
    session = open_edge_file(edge_model(str(bundle.folder)), threads=1)
    assert session.judge(BAD).verdict == "NG"
    assert not isinstance(load_central([bundle.folder / "edge.onnx"]), BoxedInspector)
