"""The labelling page as the command serves it: who may come in, what is written, form and keys."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
from html import unescape
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from connectors.cleaning.image_files import ImageFolderError
from connectors.defects.labelling import app as app_module
from connectors.defects.labelling import server as server_module
from connectors.defects.labelling.detector import EdgeDetector, odds_of
from connectors.defects.labelling.history import LabelError
from connectors.defects.labelling.pictures import Pictures, to_8_bits
from connectors.defects.labelling.progress import progress_of
from connectors.defects.labelling.server import serve_labelling
from connectors.defects.labelling.store import HISTORY, INDEX, LabelStore
from tasks.cleaning.images.sandbox import Sandbox
from tasks.defects.edge.format import EdgeFileError
from tasks.defects.judgement import Judgement
from tests.connectors.defects.contrast import SIDE, place_of, write_contrast, write_spotted
from tests.connectors.page_server import PageServer

PICTURES = os.environ.get("TEST_PICTURES", "")
COMMAND = """
import typer
from flows.cli.defects_label import label
typer.run(label)
"""


def make(folder: Path) -> Path:
    """Twelve colour images of noise and one that repeats another, a spoilt one, a hostile name."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(12):
        pixels = rng.integers(0, 255, (60, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"part-{number:02d}.png")
    shutil.copy(folder / "part-03.png", folder / "same-as-03.png")
    shutil.copy(folder / "part-11.png", folder / "<b>&'.png")
    (folder / "part-11.png").unlink()
    (folder / "spoilt.png").write_bytes(b"no image")
    return folder


class Server(PageServer):
    """The command, its folder, and what its page is asked."""

    def __init__(self, folder: Path, *words: str, script: str = COMMAND) -> None:
        self.folder = folder
        super().__init__("-c", script, str(folder), *words)

    def history(self):
        """Return what was said up to now."""
        return LabelStore(self.folder).history()

    def get(self, path=""):
        """Return the markup of a page."""
        answer = self.client.get(path, follow_redirects=True)
        assert answer.status_code == 200, answer.text
        return answer.text

    def say(self, do, page=None, **fields):
        """Press a button of the page of one image; returns the markup that follows."""
        page = page or self.get("next")
        form = page[page.index('<form id="one"') :]
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)[:4])
        sent = {name: unescape(value) for name, value in hidden.items()}
        answer = self.post("say", {**sent, "do": do, **fields})
        assert answer.status_code == 200, answer.text
        return answer.text

    def forget(self):
        """Take all labels away."""
        for one in reversed(self.history().by_time()):
            LabelStore(self.folder).undo([one.id])


def named(page):
    """Return the image that a page shows."""
    return unescape(re.search(r'name="image" value="([^"]*)"', page)[1])


def told(page):
    """Return the message on a page."""
    return unescape(re.search(r'role="status">(.*?)</p>', page)[1])


@pytest.fixture(scope="module")
def running(tmp_path_factory, end_with_run):
    started = Server(make(tmp_path_factory.mktemp("labels") / "line"), "--kind", "scratch")
    end_with_run(started.process.pid)
    while "are being measured" in started.get("next"):
        time.sleep(0.1)
    yield started
    code, said = started.close()
    assert code == 0
    assert said.endswith(f"closed; what was labelled lies in {started.folder / INDEX}\n")
    end_with_run(-started.process.pid)


@pytest.fixture
def server(running):
    """The page without any label."""
    running.forget()
    return running


def test_only_the_printed_address_is_served_with_a_strict_policy(server):
    base = f"http://127.0.0.1:{server.port}"
    for path in ("/", "/next", "/one/0", "/image/0.png", "/token-of-somebody-else/next"):
        assert server.client.get(base + path).status_code == 404
    assert server.client.get("next", headers={"host": "evil.example"}).status_code == 421
    headers = server.client.get("many").headers
    assert "unsafe" not in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    for path in ("one/999", "one/x", "one/-1", "image/999.png", "secret/0.png", "heat/0.png"):
        assert server.client.get(path).status_code == 404


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "none"}]
)
def test_other_sites_label_nothing(server, headers):
    token = httpx.URL(server.url).path.strip("/")
    fields = {"token": token, "image": "part-00.png", "seen": "", "do": "ok", "ids": "x"}
    for path in ("say", "say-many", "undo"):
        assert server.post(path, fields, **headers).status_code == 403
        assert server.post(path, fields | {"token": "guess"}).status_code == 403
        assert server.client.post(path, json=fields, headers={
            "origin": f"http://127.0.0.1:{server.port}"
        }).status_code == 413  # fmt: skip
    assert not server.history().holding()


def test_a_verdict_is_written_and_the_next_image_follows(server):
    first = server.get("next")
    after = server.say("ok", first)
    assert told(after) == f"{named(first)}: OK."
    assert named(after) != named(first)
    assert server.history().holds(named(first)).said == "ok"
    server.say("kind:scratch", after)
    assert server.history().holds(named(after)).kind == "scratch"
    server.say("unsure")
    assert len((server.folder / INDEX).read_text().splitlines()) == 3


def test_a_new_type_becomes_a_button(server):
    page = server.say("enter", new="deep pit")
    assert 'value="kind:deep pit" data-key="2"' in page
    assert "unknown" in told(server.say("ng", new="unknown"))
    assert "Enter alone" in told(server.say("enter"))


def test_boxes_are_cut_at_the_edge_and_named(server):
    first = server.get("next")
    fields = {"left-0": "-5", "top-0": "10", "right-0": "30.5", "bottom-0": "5", "kind-0": ""}
    fields |= {"left-2": "1", "top-2": "1", "right-2": "900", "bottom-2": "40", "kind-2": "pit"}
    server.say("kind:scratch", first, **fields)
    held = server.history().holds(named(first))
    assert [(b.left, b.top, b.right, b.bottom, b.kind) for b in held.boxes] == [
        (0, 5, 30.5, 10, "scratch"),
        (1, 1, 90, 40, "pit"),
    ]
    place = re.search(r'image/(\d+)\.png" width', first)[1]
    again = server.get(f"one/{place}")
    assert again.count("<rect x=") == 2
    assert 'name="left-1" data-corner="left" min="0" max="90" step="any" value="1"' in again


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"left-0": "1"}, "four numbers"),
        ({"left-0": "1", "top-0": "x", "right-0": "2", "bottom-0": "2"}, "four numbers"),
        ({"left-0": "1", "top-0": "nan", "right-0": "2", "bottom-0": "2"}, "four numbers"),
        ({"left-0": "95", "top-0": "1", "right-0": "99", "bottom-0": "9"}, "no pixel"),
    ],
)
def test_boxes_that_are_none_are_told(server, fields, why):
    assert why in told(server.say("ng", **fields))
    assert not server.history().holding()


def test_ok_with_a_box_is_refused(server):
    box = {"left-0": "1", "top-0": "1", "right-0": "9", "bottom-0": "9"}
    assert "there are boxes" in told(server.say("ok", **box))
    assert not server.history().holding()


def test_what_another_tab_said_is_not_written_over(server):
    page = server.get("next")
    server.say("ok", page)
    assert "labelled elsewhere" in told(server.say("ng", page))
    assert server.history().holds(named(page)).said == "ok"


def test_undo_takes_back_what_was_said_last_and_shows_it(server):
    first = server.get("next")
    after = server.say("ok", first)
    ids = re.search(r'name="ids" value="(\w+)"', after)[1]
    token = re.search(r'name="token" value="([^"]+)"', after)[1]
    back = server.post("undo", {"token": token, "ids": ids})
    assert named(back.text) == named(first)
    assert not server.history().holding()
    assert len(server.history().undone) >= 1
    assert "nothing to undo" in told(server.post("undo", {"token": token, "ids": ids}).text)


def test_many_are_labelled_at_once_and_taken_back_at_once(server):
    page = server.get("many")
    hidden = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page)
    fields = {name: unescape(value) for name, value in hidden if name != "ids"}
    assert len([name for name in fields if name.startswith("image-")]) == 12
    answer = server.post("say-many", {**fields, "tick-1": "on", "do": "rest-ok"})
    assert told(answer.text) == "11 images OK, 1 NG."
    assert server.history().holds(fields["image-1"]).said == "ng"
    # The same form once more comes too late.
    late = server.post("say-many", {**fields, "do": "rest-ok"})
    assert "labelled elsewhere" in told(late.text)
    ids = re.search(r'name="ids" value="([\w,]+)"', answer.text)[1]
    assert "12 labels" in told(server.post("undo", {"token": fields["token"], "ids": ids}).text)
    assert not server.history().holding()
    nothing = server.post("say-many", {**fields, "do": "ticked-ok"})
    assert "no image is ticked" in told(nothing.text)
    wrong = server.post("say-many", {**fields, "image-0": "/etc/passwd", "do": "rest-ok"})
    assert "is not there" in told(wrong.text)


def test_copies_and_spoilt_images_are_not_asked_for_and_told(server):
    names = set()
    page = server.get("next")
    while 'id="one"' in page:
        names.add(named(page))
        page = server.say("ok", page)
    assert len(names & {"part-03.png", "same-as-03.png"}) == 1
    assert "<b>&'.png" in names
    assert "spoilt.png" not in names
    assert len(names) == 12
    assert "Nothing is left to label" in page
    assert "1 images cannot be shown" in page
    assert "spoilt.png: wrong-format" in page
    assert "<b>&'" not in page


def test_only_labels_drawn_at_random_count_for_a_promise(server):
    for _ in range(3):
        server.say("ng")
    assert "(0 of 29 NG, 0 of 29 OK" in server.get("next")
    server.say("ok", server.get("next?order=drawn"))
    assert re.search(r"\((\d) of 29 NG, 1 of 29 OK", server.get("next"))


def test_images_are_bounded_and_made_anew(server, tmp_path):
    answer = server.client.get("image/0.png")
    assert Image.open(io.BytesIO(answer.content)).size == (90, 60)
    assert answer.headers["cache-control"].startswith("private")
    assert Image.open(io.BytesIO(server.client.get("thumbnail/1.png").content)).size == (90, 60)


def test_a_folder_without_images_and_a_bad_type_are_told(tmp_path):
    with pytest.raises(ImageFolderError, match="holds no image"):
        serve_labelling(tmp_path, idle_seconds=1, tell=print)
    make(tmp_path / "line")
    with pytest.raises(LabelError, match="cannot be the name"):
        serve_labelling(tmp_path / "line", kinds=["unknown"], idle_seconds=1, tell=print)
    (tmp_path / "line" / HISTORY).write_text("{}\n")
    with pytest.raises(LabelError, match="line 1"):
        serve_labelling(tmp_path / "line", idle_seconds=1, tell=print)


def test_masks_are_no_images_and_folders_name_types(tmp_path):
    for name in ("good/1.png", "pit/2.png", "pit/2_mask.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 20), 7, np.uint8)).save(path)
    with Sandbox(workers=1) as sandbox:
        pictures = Pictures(tmp_path, sandbox)
    assert [file.name for file in pictures.files] == ["good/1.png", "pit/2.png"]
    assert pictures.kinds == ("pit",)


def test_16_bits_are_spread_over_what_is_there():
    pixels = np.linspace(1_000, 3_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    found = to_8_bits(pixels)
    assert (found.dtype, found.min(), found.max()) == (np.uint8, 0, 255)
    assert to_8_bits(np.full((8, 8), 500, np.uint16)).max() == 0


def press(browser, key, target="document.body", **more):
    event = json.dumps({"key": key, "bubbles": True, **more})
    browser.run(f"{target}.dispatchEvent(new KeyboardEvent('keydown', {event}))")


SHOWN = "document.querySelector('[name=image]').value"


def drag(browser, start, end):
    """Draw with the pointer, in shares of the stage's picture."""
    script = """(([sx, sy, ex, ey]) => {
      const stage = document.querySelector('#stage');
      const on = (x, y) => new DOMPoint(x, y).matrixTransform(stage.getScreenCTM());
      stage.setPointerCapture = () => {};
      for (const [kind, x, y] of [['down', sx, sy], ['move', ex, ey], ['up', ex, ey]]) {
        const at = on(x, y);
        stage.dispatchEvent(new PointerEvent('pointer' + kind, {
          clientX: at.x, clientY: at.y, isPrimary: true, button: 0, pointerId: 1, bubbles: true,
        }));
      }
    })(%s)"""
    browser.run(script % json.dumps([*start, *end]))


def test_a_person_labels_by_key_draws_moves_and_takes_back(server, browser):
    browser.open(server.url)
    first = browser.run(SHOWN)
    press(browser, "o", repeat=True)  # a key that is held down labels nothing
    press(browser, "o", ctrlKey=True)
    press(browser, "O")
    browser.wait_for(f"{SHOWN} !== {json.dumps(first)}")
    second = browser.run(SHOWN)
    assert server.history().holds(first).said == "ok"
    assert not server.history().holds(second)
    drag(browser, (10, 10), (40, 30))
    assert browser.run("document.activeElement.tagName") == "rect"
    rect = "document.activeElement"
    press(browser, "ArrowRight", rect)
    press(browser, "ArrowDown", rect, shiftKey=True)
    drag(browser, (50, 10), (50.1, 10.1))  # a slipped click
    press(browser, "b")
    press(browser, "Delete", rect)
    if PICTURES:
        browser.picture(Path(PICTURES) / "label-one.png")
    press(browser, "1")
    browser.wait_for(f"{SHOWN} !== {json.dumps(second)}")
    held = server.history().holds(second)
    assert held.kind == "scratch"
    (box,) = held.boxes
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((11, 10, 41, 31), abs=0.2)
    press(browser, "z")
    browser.wait_for(f"{SHOWN} === {json.dumps(second)}")
    assert server.history().holds(second) is None
    press(browser, "ArrowLeft")
    browser.wait_for(f"{SHOWN} === {json.dumps(first)}")
    press(browser, "ArrowRight")
    browser.wait_for(f"{SHOWN} !== {json.dumps(first)}")
    press(browser, "t")
    assert browser.run("document.activeElement.id") == "new"
    press(browser, "o", "document.activeElement")  # a letter of the name, no verdict
    press(browser, "g", "document.querySelector('main')")
    browser.wait_for("document.querySelectorAll('.grid img').length === 11")
    browser.wait_for("[...document.images].every((one) => one.naturalWidth > 0)")
    if PICTURES:
        browser.picture(Path(PICTURES) / "label-many.png")
    assert browser.said == []


def test_ok_asks_before_boxes_go(server, browser):
    browser.open(server.url)
    first = browser.run(SHOWN)
    drag(browser, (10, 10), (40, 30))
    browser.run("window.asked = []; window.confirm = (text) => { asked.push(text); return false; }")
    press(browser, "o")
    assert browser.run("asked.length") == 1
    assert browser.run("document.querySelectorAll('#stage rect').length") == 1
    browser.run("window.confirm = () => true")
    press(browser, "o")
    browser.wait_for(f"{SHOWN} !== {json.dumps(first)}")
    assert server.history().holds(first).said == "ok"


def test_without_javascript_it_works_by_buttons(server, browser):
    browser.scripts(on=False)
    browser.open(server.url)
    first = browser.run(SHOWN)
    browser.run("document.querySelector('[name=left-0]').value = '3'")
    for name, value in {"left": 3, "top": 4, "right": 20, "bottom": 30}.items():
        browser.run(f"document.querySelector('[name={name}-0]').value = '{value}'")
    browser.run("document.querySelector('button.ng').click()")
    browser.wait_for(f"{SHOWN} !== {json.dumps(first)}")
    held = server.history().holds(first)
    assert (held.said, len(held.boxes)) == ("ng", 1)


@pytest.fixture(scope="module")
def with_model(tmp_path_factory, end_with_run):
    """The page of thirteen plates by a detector; it doubts the eighth alone."""
    folder = tmp_path_factory.mktemp("doubt")
    write_spotted(folder / "line", [0.02] * 7 + [0.5] + [0.8] * 5)
    model = write_contrast(folder / "edge.onnx")
    started = Server(folder / "line", "--model", str(model), "--part-pattern", r"\d(?=\.)")
    end_with_run(started.process.pid)
    while "are being measured" in started.get("next"):
        time.sleep(0.1)
    yield started
    assert started.close()[0] == 0
    end_with_run(-started.process.pid)


def test_what_a_detector_doubts_comes_first(with_model):
    page = with_model.get("next")
    assert named(page) == "07.png"
    assert re.search(r"undecided: (OK|unknown) 5\d% or (OK|unknown) [45]\d%", page)


def test_a_heat_map_is_laid_over_and_taken_away(with_model, browser):
    heat = Image.open(io.BytesIO(with_model.client.get("heat/8.png").content))
    assert (heat.mode, heat.size) == ("RGBA", (SIDE, SIDE))
    strength = np.asarray(heat)[..., 3]
    row, column = place_of(8)
    assert strength[row + 4, column + 4] > 100 > strength[60, 60]
    browser.open(with_model.url)
    drawn = "document.querySelector('#heat').hasAttribute('href')"
    assert not browser.run(drawn)
    press(browser, "h")
    assert browser.run(drawn)
    press(browser, "h")
    assert not browser.run(drawn)


def test_a_promise_counts_parts_where_they_are_known(with_model):
    page = with_model.get("next?order=drawn")
    while 'id="one"' in page:
        page = with_model.say("ng", page)
    # 13 images: 10.png to 12.png show the parts of 00.png to 02.png.
    assert "(10 of 29 NG, 0 of 29 OK" in page
    assert "there are 10 parts" in page
    with_model.forget()


def test_a_part_is_defective_when_one_of_its_images_is(tmp_path):
    said = {"a1": "ok", "a2": "ng", "b1": "ok", "b2": "ok", "c": "ok"}
    store = LabelStore(tmp_path)
    for name, verdict in said.items():
        store.say(name, verdict, drawn=True)
    parts = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
    found = progress_of(list(said), 0, store.history(), parts)
    assert [one.have for one in found.promises] == [1, 2]
    assert found.parts == 3
    each = progress_of(list(said), 0, store.history())
    assert ([one.have for one in each.promises], each.parts) == ([1, 4], None)


def test_parts_of_an_index_count_before_others(tmp_path, monkeypatch):
    seen = {}
    write_spotted(tmp_path / "line", [0.1, 0.2])
    (tmp_path / "line" / "index.csv").write_text("image,label,part\n00.png,,mine\n01.png,,\n")
    monkeypatch.setattr(server_module, "serve", lambda app, *_args, **_more: seen.update(app=app()))
    monkeypatch.setattr(app_module, "create_app", lambda *given: seen.update(parts=given[-1]))
    serve_labelling(tmp_path / "line", part_pattern=r"\d(?=\.)", idle_seconds=1, tell=print)
    assert seen["parts"] == {"00.png": "mine", "01.png": "1"}


def test_no_detector_and_images_that_it_does_not_judge_are_told(tmp_path, with_model):
    assert with_model.client.get("heat/99.png").status_code == 404
    with pytest.raises(EdgeFileError, match="there is no such file"):
        EdgeDetector(str(tmp_path / "gone.onnx"))
    detector = EdgeDetector(str(write_contrast(tmp_path / "edge.onnx")))
    with Sandbox(workers=1) as sandbox:
        pictures = Pictures(with_model.folder, sandbox, detector)
        assert pictures.judged(np.zeros((40, 40), np.uint8)).verdict == "OK"
        assert pictures.judged(np.zeros((4, 40), np.uint8)) is None
        with pytest.raises(LookupError, match="no detector"):
            Pictures(with_model.folder, sandbox).heat(0)


def test_odds_are_of_all_types_and_of_scores_that_are_no_number():
    kinds = ("pit", "unknown")
    heat = np.zeros((2, 2), np.float32)
    found = odds_of(Judgement(0.8, heat, kinds={"pit": 0.75, "unknown": 0.25}), kinds)
    assert found == pytest.approx([0.2, 0.6, 0.2])
    assert odds_of(Judgement(float("nan"), heat), kinds) == pytest.approx([0.5, 0.25, 0.25])
    assert odds_of(Judgement(7.0, heat), kinds) == pytest.approx([0, 0.5, 0.5])
