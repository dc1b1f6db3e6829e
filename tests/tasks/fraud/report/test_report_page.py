"""The page: complete, escaped, self-contained, and quiet in a real browser."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tasks.fraud.report import build_report
from tasks.fraud.report.model import CheckSummary, EntityCount, Environment, Promotion, RuleCount
from tasks.fraud.report.rows import AlertRow, FoldRow, ReasonRow, Scores

SECTIONS = ("data", "folds", "heads", "trust", "drivers", "thresholds", "alerts", "promotion",
            "environment")  # fmt: skip
EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Collects what a test asks about, and that every element is closed in order."""

    VOID = frozenset({"meta", "br", "link", "input", "hr", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_has_every_section_and_is_well_formed(example_inputs):
    html = build_report(example_inputs(0))
    page = Page(html)
    assert [s for s in SECTIONS if s not in page.ids] == []
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") > 10
    assert len(html) < 400_000


def test_page_is_the_same_for_the_same_inputs(example_inputs):
    assert build_report(example_inputs(3)) == build_report(example_inputs(3))
    assert build_report(example_inputs(3)) != build_report(example_inputs(4))


def test_page_loads_nothing_and_allows_only_its_own_style(example_inputs):
    html = build_report(example_inputs(0))
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    names = {name for _, name, _ in page.attributes}
    assert not {"src", "srcset", "style", "onload", "onerror"} & names
    assert all(v.startswith("#") for _, name, v in page.attributes if name == "href")
    css = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert "url(" not in css
    assert "@import" not in css
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = next(v for tag, name, v in page.attributes if name == "content" and "default-src" in v)
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")


def test_tables_and_pictures_are_accessible(example_inputs):
    html = build_report(example_inputs(0))
    assert html.count("<caption>") == html.count("<table")
    header_cells = re.findall(r"<th[ >][^>]*", html)
    assert all("scope=" in cell for cell in header_cells)
    pictures = re.findall(r"<svg[^>]*>", html)
    assert all('role="img"' in p or 'aria-hidden="true"' in p for p in pictures)
    described = re.findall(r'aria-labelledby="(\S+) (\S+)"', html)
    assert described
    assert all(f'id="{a}"' in html and f'id="{b}"' in html for a, b in described)


def test_markup_in_user_data_stays_text(example_inputs):
    base = example_inputs(0)
    evil = replace(
        base, title=EVIL, model=EVIL, alert_day=EVIL, top_entity=EVIL, explained_by=EVIL,
        dataset=replace(base.dataset, source=EVIL, entities=(EntityCount(EVIL, EVIL, 3),)),
        checks=CheckSummary(2, 1, 1, (RuleCount(EVIL, EVIL, 1, EVIL, EVIL),), notes=(EVIL,)),
        heads=tuple(replace(h, name=EVIL + str(i)) for i, h in enumerate(base.heads)),
        pr=tuple(replace(c, name=EVIL) for c in base.pr),
        precision_by_day=tuple(replace(d, day=EVIL) for d in base.precision_by_day),
        importance=tuple(replace(i, label=EVIL) for i in base.importance),
        thresholds=tuple(replace(t, policy=EVIL) for t in base.thresholds),
        alerts=(
            AlertRow(EVIL, EVIL, 1.0, {EVIL: EVIL}, 0.5, None, (ReasonRow(EVIL, 1.0),)),
        ),
        promotion=Promotion("kept", EVIL, EVIL, EVIL, EVIL),
        environment=Environment(EVIL, EVIL, EVIL, {EVIL: EVIL}, {EVIL: 1.0}, EVIL),
    )  # fmt: skip
    html = build_report(evil)
    page = Page(html)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert html.count("&lt;script&gt;") > 20


def test_lone_surrogates_and_long_ids_do_not_break_the_file(example_inputs):
    alert = AlertRow("\ud800" * 3 + "x" * 9_000, "t", 1.0, {"a": "\u202e" + "y" * 5_000}, 0.1)
    html = build_report(replace(example_inputs(0), alerts=(alert,)))
    html.encode("utf-8")
    assert "x" * 100 not in html
    assert "y" * 100 not in html


def test_published_rows_appear_only_on_the_public_folds(example_inputs):
    assert "XGBoost" not in build_report(example_inputs(0))
    html = build_report(example_inputs(0, public=True))
    assert "XGBoost" in html
    assert "0.687 ± 0.01" in html
    assert html.count("best published") == 4  # three tiles and the note below the table


def test_empty_parts_are_left_out(example_inputs):
    base = example_inputs(0)
    plain = replace(
        base, folds=(), heads=(), pr=(), precision_by_day=(), calibration=(), score_bins=(),
        importance=(), thresholds=(), alerts=(), alerts_total=0, alert_day="",
        promotion=Promotion("none", "not asked"), scores=Scores(),
        checks=CheckSummary(10, 10, 0),
        dataset=replace(base.dataset, rows=10, frauds=0, unlabelled=10, amount_median=None),
        environment=Environment("now", "unknown", "a machine"),
    )  # fmt: skip
    html = build_report(plain)
    page = Page(html)
    assert {s for s in SECTIONS if s in page.ids} == {"data", "alerts", "environment"}
    assert "No row was quarantined." in html
    assert "No alert on this day." in html


def test_missing_metrics_become_dashes_and_no_tile(example_inputs):
    base = example_inputs(0)
    folds = (FoldRow(0, "week 1", 10, 2, 0.5, None, None, float("nan")),)
    html = build_report(replace(base, folds=folds, scores=replace(base.scores, cp=None)))
    assert html.count('class="tile"') == 3
    assert '<th scope="col" class="n">CP@100</th>' not in html
    assert '<td class="n">–</td>' in html
    assert "nan" not in html.lower().replace("finance", "")


def test_long_alert_lists_unfold_and_are_counted(example_inputs):
    base = example_inputs(0)
    many = tuple(replace(base.alerts[0], event_id=f"row-{i}") for i in range(260))
    html = build_report(replace(base, alerts=many, alerts_total=300))
    assert "188 more alerts" in html
    assert "100 further alerts are not listed" in html
    assert "row-199" in html
    assert "row-200" not in html
    assert len(html.encode()) < 2_000_000


@pytest.fixture(scope="module")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium: install the Debian package 'chromium' to open the report in it")
    return path


def _browse(chromium: str, tmp_path, page, *options: str) -> tuple[str, str]:
    command = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
        "--v=0", "--virtual-time-budget=2000", *options, page.as_uri(),
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


def test_chromium_opens_the_page_without_complaint(example_inputs, chromium, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(build_report(example_inputs(0, public=True)), encoding="utf-8")
    dom, log = _browse(chromium, tmp_path, file, "--dump-dom")
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    assert [s for s in SECTIONS if f'id="{s}"' not in dom] == []
    assert dom.count("<svg") > 10


def test_chromium_does_complain_about_a_page_that_breaks_the_policy(
    example_inputs, chromium, tmp_path
):
    html = build_report(example_inputs(0)).replace("</body>", "<script>1</script></body>")
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    _, log = _browse(chromium, tmp_path, file, "--dump-dom")
    assert any("CONSOLE" in line for line in log.splitlines())
