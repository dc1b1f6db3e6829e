"""Intermediate results of a job on disk: each step's files in a folder named by its inputs.

``<root>/<step>/<key>/`` is complete when ``done.json`` is there; the key is a hash of everything
the step depends on. So a repeated or resumed run finds what is finished, and a half-written
folder is never trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DONE = "done.json"


class WorkspaceError(RuntimeError):
    """An intermediate result that is missing or unreadable."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one step keeps its files.

    Attributes:
        folder: The folder.
        key: Hash of the step's inputs.
    """

    folder: Path
    key: str

    @property
    def done(self) -> bool:
        """Whether the step finished."""
        return (self.folder / DONE).is_file()

    @property
    def checkpoints(self) -> Path:
        """Where the step's training loops keep their position; gone once the step is done."""
        return self.folder.with_name(f"{self.key}.checkpoints")

    def record(self) -> dict[str, Any]:
        """Return what the step reported."""
        try:
            record = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
            return {**record, "folder": str(self.folder)}  # the home may have been moved
        except (OSError, json.JSONDecodeError) as error:
            raise WorkspaceError(
                f"{self.folder} holds no finished step: {error}; run the flow again"
            ) from error


def place_of(root: Path, step: str, inputs: Mapping[str, Any]) -> Place:
    """Return the place of a step with these inputs (JSON data, digests instead of paths)."""
    text = json.dumps(inputs, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:20]
    return Place(root / step / key, key)


def fill(place: Place, work: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Run ``work`` in a draft folder and move it into place when it has finished.

    Args:
        place: Where the result belongs; a finished one is returned as it is.
        work: Writes its files into the folder it is given; returns JSON data to report.

    Returns:
        What ``work`` reported, with ``folder`` added.
    """
    if place.done:
        return place.record()
    place.folder.parent.mkdir(parents=True, exist_ok=True)
    draft = place.folder.parent / f".{place.key}-{secrets.token_hex(4)}"
    try:
        draft.mkdir(mode=0o700)  # in here: Ctrl-C may come at any moment after it
        text = json.dumps({**work(draft), "folder": str(place.folder)}, allow_nan=False)
        (draft / DONE).write_text(text, encoding="utf-8")
        _sync(draft)
        if (place.folder / DONE).is_file():  # another run was faster; its files may be in use
            shutil.rmtree(draft)
            return place.record()
        shutil.rmtree(place.folder, ignore_errors=True)
        draft.rename(place.folder)
        shutil.rmtree(place.checkpoints, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return place.record()


def _sync(folder: Path) -> None:
    """Force the files of a folder to the disk, so that its name never outlives their content."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


@cache
def source_digest() -> str:
    """Return a hash of the code that makes results, so that changed code is not served old ones.

    Read once: what counts is the code this process has loaded.
    """
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in ("connectors", "kernels", "models", "tasks"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:20]
