"""Steps on disk: complete or absent, found again by their inputs."""

from __future__ import annotations

import pytest

from tasks.workspace import WorkspaceError, fill, place_of, source_digest


def test_a_place_depends_on_every_input(tmp_path):
    one = place_of(tmp_path, "step", {"a": 1, "b": [1, 2]})
    assert one == place_of(tmp_path, "step", {"b": [1, 2], "a": 1})
    assert one.key != place_of(tmp_path, "step", {"a": 2, "b": [1, 2]}).key
    assert len(source_digest()) == 20


def test_a_step_runs_once(tmp_path):
    place = place_of(tmp_path, "step", {})
    calls = []

    def work(draft):
        calls.append(draft)
        (draft / "x.txt").write_text("1")
        return {"n": 1}

    first = fill(place, work)
    assert fill(place, work) == first == {"n": 1, "folder": str(place.folder)}
    assert len(calls) == 1
    assert (place.folder / "x.txt").read_text() == "1"


def test_a_step_that_fails_leaves_nothing(tmp_path):
    place = place_of(tmp_path, "step", {})

    def work(draft):
        (draft / "half.txt").write_text("1")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill(place, work)
    assert not place.done
    assert list(place.folder.parent.iterdir()) == []
    place.folder.mkdir()
    (place.folder / "half.txt").write_text("of a killed run")
    assert fill(place, lambda draft: {})["folder"] == str(place.folder)
    assert not (place.folder / "half.txt").exists()
    (place.folder / "done.json").write_text("{")
    with pytest.raises(WorkspaceError, match="run the flow again"):
        place.record()
