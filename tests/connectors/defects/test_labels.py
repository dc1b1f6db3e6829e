"""Labels beside the images: what holds, what is kept, who writes at once, what a crash costs."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.defects.labelling.history import (
    Decision,
    History,
    LabelError,
    Undo,
    checked_kind,
    parsed,
)
from connectors.defects.labelling.store import (
    HISTORY,
    INDEX,
    LabelConflictError,
    LabelStore,
    decision,
    read_labels,
)
from tasks.defects.data.index import Entry, parse_index
from tasks.defects.samples import Box, Sample


def index_of(folder):
    with (folder / INDEX).open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_what_holds_is_in_the_index_and_everything_in_the_history(tmp_path):
    store = LabelStore(tmp_path)
    store.say("a.png", "ok")
    store.say("b.png", "ng", kind="scratch", boxes=[Box(1, 2, 30.5, 4), Box(5, 6, 7, 8, "pit")])
    store.say("c.png", "unsure")
    store.say("a.png", "ng", drawn=True)
    rows = index_of(tmp_path)
    assert [(r["image"], r["label"], r["kind"], r["right"], r["drawn"]) for r in rows] == [
        ("a.png", "ng", "", "", "yes"),
        ("b.png", "ng", "scratch", "", ""),
        ("b.png", "ng", "scratch", "30.5", ""),
        ("b.png", "ng", "pit", "7", ""),
    ]
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 4
    assert LabelStore(tmp_path).history().holding() == store.history().holding()


def test_the_index_is_read_as_that_of_a_dataset(tmp_path):
    store = LabelStore(tmp_path)
    store.say("b.png", "ng", kind="scratch", boxes=[Box(1, 2, 30.5, 4), Box(5, 6, 7, 8, "pit")])
    store.say("a, b.png", "ok", drawn=True)
    assert parse_index((tmp_path / INDEX).read_bytes(), INDEX) == [
        Entry(
            "b.png", "ng", "scratch", boxes=(Box(1, 2, 30.5, 4, "scratch"), Box(5, 6, 7, 8, "pit"))
        ),
        Entry("a, b.png", "ok"),
    ]


def test_undo_brings_back_what_held_before_and_stays_in_the_history(tmp_path):
    store = LabelStore(tmp_path)
    first, second = store.say("a.png", "ok"), store.say("a.png", "ng")
    assert store.undo([second.id]) == [second]
    assert store.history().holds("a.png") == first
    store.undo([first.id, first.id])
    assert index_of(tmp_path) == []
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 4
    for gone in (first.id, "nobody"):
        with pytest.raises(LabelError, match="nothing to undo"):
            store.undo([gone])


def test_two_pages_do_not_write_over_each_other(tmp_path):
    one, other = LabelStore(tmp_path), LabelStore(tmp_path)
    one.say("a.png", "ok", seen="")
    other.say("b.png", "ng", seen="")
    with pytest.raises(LabelConflictError, match="labelled elsewhere"):
        other.say("a.png", "ng", seen="")
    held = other.history().holds("a.png")
    assert held.said == "ok"
    other.say("a.png", "ng", seen=held.id)
    assert one.history().holds("a.png").said == "ng"
    batch = [decision("c.png", "ok"), decision("a.png", "ok")]
    with pytest.raises(LabelConflictError):
        one.say_all(batch, {"c.png": "", "a.png": held.id})
    assert one.history().holds("c.png") is None


def write_many(folder, name):
    store = LabelStore(folder)
    for i in range(20):
        store.say(f"{name}-{i}.png", "ok")


def test_processes_writing_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(LabelStore(tmp_path).history().holding()) == 40
    assert len(index_of(tmp_path)) == 40


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_a_crash_cut_costs_nothing_else(tmp_path, cut):
    store = LabelStore(tmp_path)
    store.say("a.png", "ok")
    store.say("b.png", "ok")
    path = tmp_path / HISTORY
    path.write_bytes(path.read_bytes()[:-cut])
    later = LabelStore(tmp_path)
    assert list(later.history().holding()) == ["a.png"]
    later.say("c.png", "ng")
    assert list(LabelStore(tmp_path).history().holding()) == ["a.png", "c.png"]


def test_a_full_disk_leaves_the_history_as_it_was(tmp_path, monkeypatch):
    store = LabelStore(tmp_path)
    store.say("a.png", "ok")
    before = (tmp_path / HISTORY).read_bytes()
    write = os.write

    def full(descriptor, data):
        if len(data) > 10:
            return write(descriptor, bytes(data[:10]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        store.say("b.png", "ok")
    monkeypatch.undo()
    assert (tmp_path / HISTORY).read_bytes() == before
    store.say("b.png", "ok")
    assert list(LabelStore(tmp_path).history().holding()) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 2: no decision"),
        ("[]", "no JSON object"),
        ('{"id": "x"}', "no 'image'"),
        ('{"id": "x", "image": "a", "said": "maybe"}', "no decision"),
        ('{"id": "x", "image": "a", "said": "ok", "kind": "pit"}', "ok with a type"),
        ('{"id": "x", "image": "a", "said": "ng", "boxes": [[0, 0, 0, 1, ""]]}', "holds no pixel"),
        ('{"id": "x", "image": "a", "said": "ng", "boxes": [[0, 0, 1e999, 1, ""]]}', "finite"),
        ('{"id": "x", "image": 7, "said": "ng"}', "7 is no text"),
        ('{"undone": "x"}', "nothing to undo"),
        ("[" * 5_000, "no decision"),
        (json.dumps({"id": "x", "image": "a" * 70_000, "said": "ok"}), "longer than"),
    ],
)  # fmt: skip
def test_a_spoilt_history_is_told_with_its_line(tmp_path, line, why):
    LabelStore(tmp_path).say("a.png", "ok")
    with (tmp_path / HISTORY).open("a") as handle:
        handle.write(line + "\n")
    with pytest.raises(LabelError, match=why):
        LabelStore(tmp_path)


def test_an_index_of_somebody_else_is_not_written_over(tmp_path):
    (tmp_path / INDEX).write_text("image,label\na.png,ok\n")
    with pytest.raises(LabelError, match="was not made by this page"):
        LabelStore(tmp_path)


@pytest.mark.parametrize("kind", ["unknown", "OK", "=1+1", "a\nb", "x" * 61, "\u202eabc"])
def test_names_that_cannot_be_types_are_refused(kind):
    with pytest.raises(LabelError):
        checked_kind(kind)


def test_labels_are_merged_onto_samples(tmp_path):
    pixels = np.zeros((20, 30), np.uint8)
    mask = pixels.astype(bool)
    mask[3, 3] = True
    store = LabelStore(tmp_path)
    store.say("ok.png", "ok")
    store.say("ng.png", "ng", kind="pit", boxes=[Box(1, 1, 5, 5)])
    store.say("kept.png", "ng")
    store.say("unsure.png", "unsure")
    samples = [
        Sample("ok.png", pixels, "ng", "scratch", mask),
        Sample("ng.png", pixels, "ng", "scratch", mask),
        Sample("kept.png", pixels, "ng", "scratch", mask),
        Sample("unsure.png", pixels, "ok"),
        Sample("other.png", pixels, "ok"),
    ]
    ok, ng, kept, unsure, other = read_labels(tmp_path, samples)
    assert (ok.label, ok.kind, ok.mask) == ("ok", "", None)
    assert (ng.label, ng.kind, ng.mask, ng.boxes) == ("ng", "pit", None, (Box(1, 1, 5, 5, "pit"),))
    assert (kept.kind, kept.mask is mask) == ("scratch", True)
    assert unsure.label is None
    assert other is samples[4]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["ok", "ng", "unsure", "undo"])),
        max_size=30,
    )
)
def test_a_history_read_again_says_the_same(steps):
    history, lines = History(), []
    for number, (image, what) in enumerate(steps):
        entry: Decision | Undo = Decision(f"{number}", image, what) if what != "undo" else Undo("0")
        try:
            history.add(entry)
        except LabelError:
            assert what == "undo"
            continue
        lines.append(entry.line())
    again = History()
    for entry in parsed("".join(lines).encode(), "here"):
        again.add(entry)
    assert again == history
    for image, held in history.holding().items():
        said = [d for d in history.decisions.values() if d.image == image]
        assert held == [d for d in said if d.id not in history.undone][-1]
