"""The audit record: right figures, nothing unescaped, sealed, whole without other files."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from tasks.defects.audit.examples import MOST, examples
from tasks.defects.audit.figures import error_curve, held_against, type_table, verdict_table, worst
from tasks.defects.audit.page import MAX_PICTURE, build_record, plots, seal_holds
from tasks.defects.audit.plots import document
from tasks.defects.audit.record import AuditInputs, Facts, Judged, Pictures
from tasks.defects.judgement import Thresholds
from tasks.defects.promise.cost import CostModel, Costs
from tasks.defects.promise.parts import Scored
from tasks.defects.promise.thresholds import Promise, promised_thresholds
from tasks.defects.samples import Sample
from tests.benchmarks._watched_line import surfaces

FACTS = Facts(
    title="Casting line 3",
    time="2026-11-27 12:00 UTC",
    data="castings/",
    data_sha256="1f" * 32,
    model_sha256="2e" * 32,
    split="60 % of the parts to train, 20 % to calibrate, 20 % to test, by part",
    split_sha256="3d" * 32,
    counts={"train": "180 parts, 540 images", "calibration": "60 parts", "test": "60 parts"},
    seeds={"split": 7, "training": 1},
    config={"backbone": "shipped, 1.9 M parameters", "size": "256 x 256"},
    environment={"penstock": "0.4.0", "python": "3.11.7", "torch": "2.11.0"},
)


def png(pixels):
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def inputs(names="part", kinds=("scratch", "pit"), shift=3.0, **changes):
    rng = np.random.default_rng(0)
    pictures = surfaces(1, 12)
    samples, scores = [], []
    for part in range(120):
        bad = part % 2 == 0
        level = rng.normal(shift if bad else 0, 1)
        for shot in range(2):
            name = f"{names}{part}_{shot}.png"
            kind = kinds[part // 2 % len(kinds)] if bad else ""
            samples.append(
                Sample(name, pictures[part % 12], "ng" if bad else "ok", kind, part=str(part))
            )
            scores.append(level + rng.normal(0, 0.2))
    ng = Scored(rng.normal(shift, 1, 120), [str(i) for i in range(120)])
    ok = Scored(rng.normal(0, 1, 200), [str(i) for i in range(200)])
    promised = promised_thresholds(Promise(max_escape=0.05, max_false_reject=0.05), ng, ok)
    named = [one.kind if i % 5 else "unknown" for i, one in enumerate(samples)]
    tested = Judged(samples, np.array(scores), named)

    def draw(place):
        heat = np.repeat(samples[place].pixels[:, :, None], 3, axis=2).copy()
        heat[40:70, 50:80, 0] = 255
        return Pictures(png(samples[place].pixels), png(heat))

    cost = CostModel(*tested.sides(), Costs(200, 5, 1), 0.02, draws=100)
    made = {"facts": FACTS, "tested": tested, "promised": promised, "cost": cost, "draw": draw}
    return AuditInputs(**(made | {"notes": ("Lamp replaced before the test.",)} | changes))


@pytest.fixture(scope="module")
def page():
    return build_record(inputs())


def test_a_record_is_whole_and_sealed(page):
    assert seal_holds(page)
    assert not seal_holds(page.replace("Casting line 3", "Casting line 4", 1))
    assert not seal_holds(page.replace('<code id="seal">', "<code>", 1))
    for word in ("1f" * 32, "2e" * 32, "3d" * 32, "0.4.0", "Lamp replaced", "Released by"):
        assert word in page
    assert not re.search(r"<script|https?://|<link|style=", page)
    assert page.count('<svg class="plot"') == 3
    assert page.count("data:image/png;base64,") == 32
    assert len(page) < 2_000_000


def test_same_inputs_make_the_same_record(page):
    assert build_record(inputs()) == page


def test_names_types_and_settings_are_escaped():
    evil = '"><img src=x onerror=alert(1)>{{ 7*7 }}<code id="seal">'
    facts = Facts(
        title=evil, time=evil, data=evil, data_sha256="0" * 64, model_sha256="a" * 64, split=evil,
        counts={evil: evil}, config={evil: evil}, environment={evil: evil}, seeds={evil: 1},
    )  # fmt: skip
    html = build_record(
        inputs(names=evil, kinds=(evil, "pit"), facts=facts, notes=(evil, "\ud800"))
    )
    assert "<img src=x" not in html
    assert "{{ 7*7 }}" in html
    assert seal_holds(html)


def test_tables_count_every_image():
    made = inputs()
    table = verdict_table(made.tested, made.promised.thresholds)
    assert [name for name, _ in table.rows] == ["good", "pit", "scratch"]
    assert sum(sum(row) for _, row in table.rows) == 240
    assert sum(sum(row) for _, row in type_table(made.tested).rows) == 120
    assert type_table(Judged(made.tested.samples, made.tested.scores)) is None


def test_the_curve_agrees_with_counting():
    rng = np.random.default_rng(1)
    bad, good = rng.integers(0, 9, 40) + 2.0, rng.integers(0, 9, 50).astype(float)
    names = [str(i) for i in range(50)]
    curve = error_curve(Scored(bad, names[:40]), Scored(good, names), "every image")
    wins = (bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean()
    assert curve.auroc == pytest.approx(wins)
    assert np.trapezoid(1 - curve.misses, curve.false_rejects) == pytest.approx(wins)
    assert (curve.misses[0], curve.false_rejects[0]) == (1, 0)
    assert (curve.misses[-1], curve.false_rejects[-1]) == (0, 1)


def test_a_test_that_contradicts_the_promise_is_told(page):
    """The line got worse after the calibration."""
    assert "the test contradicts it" not in page
    good = inputs()
    tested = Judged(good.tested.samples, good.tested.scores - 2.5)
    worse = inputs(tested=tested, cost=None)
    assert [one.contradicted for one in held_against(worse)] == [True, False]
    assert "the test contradicts it" in build_record(worse)


def test_worst_cases_are_of_parts_and_ordered():
    made = inputs()
    misses, rejects = worst(made.tested)
    scores, samples = made.tested.scores, made.tested.samples
    assert len({samples[i].part for i in misses}) == 8
    assert sorted(scores[misses]) == list(scores[misses])
    assert scores[misses[0]] == min(scores[[one.label == "ng" for one in samples]])
    assert scores[rejects[0]] == max(scores[[one.label == "ok" for one in samples]])


def test_pictures_are_bounded():
    large = Pictures(b"\x89PNG\r\n\x1a\n" + bytes(MAX_PICTURE))
    html = build_record(inputs(draw=lambda _: large))
    assert "data:image" not in html
    assert "no picture" in html
    assert "data:image" not in build_record(inputs(draw=None))
    with pytest.raises(ValueError, match="no PNG"):
        build_record(inputs(draw=lambda _: Pictures(b"<svg>")))


def test_plots_are_files_of_their_own():
    evil = '<script>&"'
    found = plots(inputs(kinds=(evil, "pit")))
    assert [one.key for one in found] == ["roc", "det", "cost", "verdicts", "types"]
    for one in found:
        text = document(one)
        root = ET.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.get("width")) > 100
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "<script" not in text
    counts = [e.text for e in ET.fromstring(document(found[3])).iter() if e.get("class") == "cn"]
    assert sum(int(text) for text in counts) == 240


def test_examples_are_the_worst_and_the_usual():
    tested, at = inputs(shift=1.0).tested, Thresholds(0.5, 1.5)
    found = examples(tested, at)
    assert set(found) == {"surest-finds", "missed", "rejected", "typical-defective", "typical-good"}
    for name, places in found.items():
        assert len(places) <= MOST
        label = "ok" if name in {"rejected", "typical-good"} else "ng"
        assert {tested.samples[i].label for i in places} == {label}
    missed = tested.scores[found["missed"]]
    assert (missed < at.ok_below).all()
    assert (np.diff(missed) >= 0).all()
    assert (tested.scores[found["rejected"]] >= at.ng_from).all()
    assert "missed" not in examples(inputs(shift=40.0).tested, at)


def test_named_types_are_held_against_floors():
    types = {
        "name": "all", "parts": 60, "right": 45, "low": 0.6, "high": 0.85, "unknown": 0.1,
        "by_type": [{"name": "pit", "parts": 30, "right": 20, "low": 0.4, "high": 0.8}],
        "floors": {"always the commonest type": 30}, "strange": {"parts": 4, "unknown": 3},
        "decides": False, "view": "hottest spot", "self_trained": True, "left_out": {"crack": 1},
    }  # fmt: skip
    tested = inputs().tested
    like = [("pit/1.png", "pit/2.png")] * len(tested.samples)
    html = build_record(
        inputs(types=types, tested=Judged(tested.samples, tested.scores, tested.named, like))
    )
    for text in ("75 %", "66.7 %", "always the commonest type", "hottest spot", "crack",
                 "looks like pit/1.png, pit/2.png", "Of 4 parts of other types, 3",
                 "The prototypes name more", "was chosen by these very parts"):  # fmt: skip
        assert text in html
    assert 'id="types"' not in build_record(inputs())
    with pytest.raises(ValueError, match="lists of likes"):
        Judged(tested.samples, tested.scores, tested.named, like[:3])


def test_boxes_are_held_against_contours():
    boxes = {"images": 12, "good": 7, "boxes": 31, "strange": 2}
    measured = {
        "map50": 0.4321, "low": 0.3, "high": 0.5, "contours_map50": 0.2345,
        "by_type": [{"name": "<pit>", "boxes": 31, "ap": 0.4321}],
        "told": {"from": 0.3, "boxes": 40, "right": 19},
    }  # fmt: skip
    html = build_record(inputs(boxes=boxes | measured))
    for text in ("on 12 images with 31 boxes and 7 good ones", "0.432", "0.300 to 0.500", "0.234",
                 "&lt;pit&gt;", "of 40 in the images with boxes 19 are right",
                 "2 labelled boxes are of types that it does not know"):  # fmt: skip
        assert text in html
    assert "no image with boxes of known types was held out" in build_record(inputs(boxes=boxes))
    assert 'id="boxes"' not in build_record(inputs())


def test_what_cannot_be_a_record_is_refused():
    made = inputs()
    with pytest.raises(ValueError, match="64 hexadecimal"):
        Facts("a", "b", "c", "d", "e", "f")
    with pytest.raises(ValueError, match="good and defective"):
        Judged([one for one in made.tested.samples if one.label == "ok"], np.zeros(120))
    with pytest.raises(ValueError, match="give each"):
        Judged(made.tested.samples, np.zeros(3))
