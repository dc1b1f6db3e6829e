"""The audit record: right figures, nothing unescaped, sealed, whole without other files."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from tasks.defects.audit.figures import error_curve, held_against, type_table, verdict_table, worst
from tasks.defects.audit.page import MAX_PICTURE, build_record, seal_holds
from tasks.defects.audit.record import AuditInputs, Facts, Judged, Pictures
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


def test_what_cannot_be_a_record_is_refused():
    made = inputs()
    with pytest.raises(ValueError, match="64 hexadecimal"):
        Facts("a", "b", "c", "d", "e", "f")
    with pytest.raises(ValueError, match="good and defective"):
        Judged([one for one in made.tested.samples if one.label == "ok"], np.zeros(120))
    with pytest.raises(ValueError, match="give each"):
        Judged(made.tested.samples, np.zeros(3))
