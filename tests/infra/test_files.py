from __future__ import annotations

import os

import pytest

from infra.errors import PenstockError
from infra.files import free_bytes, is_disk_full, require_room, write_atomically


def test_a_failed_write_leaves_the_old_text_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_says_what_and_how_to_mend_it():
    assert str(PenstockError("port 1 is taken", "Choose another")) == (
        "port 1 is taken. Choose another"
    )
    assert str(PenstockError("port 1 is taken")) == "port 1 is taken"


def test_a_full_disk_is_known_by_any_words(tmp_path):
    cause = RuntimeError("wrapped")
    cause.__cause__ = RuntimeError("(sqlite3.OperationalError) database or disk is full")
    assert is_disk_full(cause, tmp_path)
    assert is_disk_full(OSError(28, "No space left on device"), tmp_path)
    assert not is_disk_full(OSError(2, "No such file or directory"), tmp_path)


def test_room_is_asked_of_the_disk_a_folder_will_be_on(tmp_path):
    future = tmp_path / "not" / "yet"
    assert free_bytes(future) > 0
    require_room(future, 1)
    with pytest.raises(OSError, match="MiB are free") as refused:
        require_room(future, 2**40)
    assert refused.value.errno == 28
