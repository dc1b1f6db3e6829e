"""Pages of a case and of a model: whole, escaped, self-contained, right, quiet in a browser."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from tasks.explain.counterfactual import SearchConfig
from tasks.explain.drift import DriftConfig
from tasks.explain.errors import ExplanationError
from tasks.explain.record import RowFacts
from tasks.explain_report import plots
from tasks.explain_report.case import CaseConfig, collect_case, steps_of
from tasks.explain_report.model import ModelConfig, collect_model
from tasks.explain_report.render import case_page, model_page

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
QUICK = ModelConfig(redraws=2, redrawn=10, drift=DriftConfig(draws=200))


class Page(HTMLParser):
    """Collects what a test asks about, and that every element is closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, html):
        super().__init__()
        self.ids, self.tags, self.attributes, self.open, self.text = [], [], [], [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(k, v or "") for k, v in attrs]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def worst(subject):
    return int(np.argmax(subject.facts.decided))


def test_a_case_shows_reasons_a_verified_change_neighbours_and_history(subject):
    made = subject()
    case = collect_case(made, worst(made))
    page = Page(case_page(case, bad="fraud", good="genuine"))
    sections = ("reasons", "waterfall", "change", "neighbours", "history", "features", "record")
    assert [s for s in sections if s not in page.ids] == []
    assert len(page.ids) == len(set(page.ids))
    assert "Blocked" in page.text
    assert case.reasons[0].text in page.text
    changed = case.found.data[0].copy()
    for one in case.change.changes:
        changed[made.background.names.index(one.feature)] = one.after
    assert made.score(changed[None])[0] == pytest.approx(case.change.score)
    assert case.change.score < 1.0
    assert len(case.neighbours) == 6
    assert 0 < len(case.history) <= 12
    assert all(h.time <= made.facts.times[worst(made)] for h in case.history)
    assert all(made.entity[made.facts.keys.index(h.key)] == made.entity[worst(made)]
               for h in case.history)  # fmt: skip


def test_the_steps_of_the_waterfall_add_up(subject):
    made = subject()
    found = made.explain(np.arange(5)).found
    for row in range(5):
        for most in (1, 2, 14):
            steps = steps_of(found.contract.labels, found.values[row], found.errors[row], most)
            total = found.contract.base + sum(s.value for s in steps)
            assert total == pytest.approx(found.scores[row])
            assert len(steps) <= most + 1
    few = steps_of(found.contract.labels, found.values[0], found.errors[0], 1)
    assert few[-1].label.endswith("others")


def test_a_case_below_the_threshold_needs_no_change(subject):
    made = subject()
    calm = int(np.argmin(made.facts.decided))
    case = collect_case(made, calm)
    assert case.change is None
    assert case.below is None
    assert "nothing had to change" in case_page(case)


def test_where_no_change_is_found_the_page_says_so(subject):
    made = subject(fixed=frozenset({"amount", "place", "age"}))
    case = collect_case(made, worst(made))
    assert case.change is None
    html = case_page(case)
    assert "No change was found" in html
    assert "Never changed: amount; place; age" in html


def test_a_case_without_outcomes_entities_times_and_thresholds_is_whole(subject):
    plain = subject()
    facts = RowFacts(plain.facts.keys, plain.facts.decided)
    made = subject(
        outcomes=np.full(400, -1, np.int8), entity=None, entity_name="", facts=facts, thresholds={}
    )
    page = Page(case_page(collect_case(made, 3)))
    assert "No column says which rows belong together" in page.text
    assert "no threshold given" in page.text
    assert "Scored" in page.text


def test_directions_are_kept_in_the_change(subject):
    made = subject()
    config = CaseConfig(search=SearchConfig(directions={"amount": 1, "city": 1, "country": 1}))
    case = collect_case(made, worst(made), config)
    assert case.change is None or all(
        c.after >= c.before for c in case.change.changes if c.feature != "age"
    )


def test_a_model_shows_drivers_segments_stability_and_the_week_that_drifted(subject):
    made = subject(n=800)
    model = collect_model(made, np.arange(800), QUICK)
    page = Page(model_page(model))
    sections = ("drivers", "swarm", "dependence", "segments", "stability", "drift", "record")
    assert [s for s in sections if s not in page.ids] == []
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") > 6
    flagged = np.mean(made.facts.decided >= 1.0)
    assert model.flagged == pytest.approx(flagged)
    web = next(s for s in model.divisions["channel"] if s.name == "web")
    chosen = [k == "web" for k in made.facts.segments["channel"]]
    assert web.flagged == pytest.approx(np.mean(made.facts.decided[chosen] >= 1.0))
    assert model.drifted.alarms
    assert "place" in model.drifted.alarms[-1]
    assert set(model.metrics) >= {
        "shap/additivity_max", "shap/rows_per_s", "shap/top4_stability", "shap/drift_alarms",
    }  # fmt: skip
    assert 0 < model.metrics["shap/top4_stability"] <= 1
    assert model.metrics["shap/additivity_max"] <= 1e-6


def test_a_model_without_weeks_says_why_there_is_no_drift(subject):
    plain = subject()
    made = subject(facts=RowFacts(plain.facts.keys, plain.facts.decided))
    model = collect_model(made, np.arange(20), replace(QUICK, redraws=0))
    assert model.steady is None
    text = Page(model_page(model)).text
    assert "the rows have no instants" in text
    assert "no redraws were asked for" in text
    with pytest.raises(ExplanationError, match="no rows to explain"):
        collect_model(made, np.arange(0), QUICK)


def pages(subject):
    names = (EVIL, *("city", "country", "age", "unused"))
    made = subject(names=names, title=EVIL, entity_name=EVIL)
    keys = (EVIL, *made.facts.keys[1:])
    segments = {EVIL: tuple([EVIL] * 200 + ["x"] * 200)}
    facts = replace(made.facts, keys=keys, segments=segments)
    made = subject(names=names, title=EVIL, entity_name=EVIL, facts=facts)
    case = case_page(collect_case(made, 0))
    return case, model_page(collect_model(made, np.arange(100), QUICK))


def test_pages_load_nothing_and_escape_what_strangers_wrote(subject):
    for html in pages(subject):
        page = Page(html)
        assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
        names = {name for name, _ in page.attributes}
        assert not {"src", "style", "onload", "onerror"} & names
        assert all(v.startswith("#") for name, v in page.attributes if name == "href")
        css = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
        assert "url(" not in css
        assert EVIL in page.text


def test_pages_are_the_same_for_the_same_inputs(subject):
    def strip(html):
        return re.sub(r"<dt>made</dt><dd>[^<]*", "", html)

    assert strip(case_page(collect_case(subject(), 3))) == strip(
        case_page(collect_case(subject(), 3))
    )


def test_plots_draw_edge_cases():
    assert "svg" in plots.waterfall([], 0.0, 0.0, "score")
    assert "svg" in plots.bars(["a"], [0.0], [0.0])
    swarm = plots.swarm(["a"], np.zeros((3, 1)), np.full((3, 1), np.nan))
    assert swarm.count("<circle") == 3
    assert "none" in swarm
    empty = plots.dependence("0", "a", "a", np.array([np.nan]), np.array([1.0]))
    assert "<circle" not in empty
    constant = plots.dependence("0", "a", "a", np.ones(5), np.arange(5.0))
    assert constant.count("<circle") == 5


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium: install the Debian package 'chromium' to open the page in it")
    return path


def browse(chromium, tmp_path, page):
    command = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
        "--v=0", "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        return process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("kind", ["case", "model"])
def test_chromium_opens_the_pages_without_complaint(subject, chromium, tmp_path, kind):
    made = subject()
    html = (
        case_page(collect_case(made, worst(made)))
        if kind == "case"
        else model_page(collect_model(made, np.arange(100), QUICK))
    )
    file = tmp_path / f"{kind}.html"
    file.write_text(html, encoding="utf-8")
    dom, log = browse(chromium, tmp_path, file)
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    assert 'id="record"' in dom
