"""The models of a stream: folders by digest, where every worker finds the one a row names."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle

SHORT_DIGEST = 16
"""Hex digits of a digest that name a model in scores and folders."""


def model_stamp(bundle: Bundle) -> str:
    """Return the name by which rows are stamped with a model."""
    return bundle.digest[:SHORT_DIGEST]


def place_model(source: Path, models: Path) -> Bundle:
    """Copy a bundle among the models of a stream, after checking that it loads and scores.

    Args:
        source: Bundle folder.
        models: Folder of all models of the stream.

    Returns:
        The bundle in its new place, ``models/STAMP``.

    Raises:
        BundleError: When it is broken: nothing is copied, the model in service stays.
    """
    from tasks.fraud.bundle import Bundle

    found = Bundle.load(source)
    found.self_check()
    folder = models / model_stamp(found)
    if folder.is_dir():
        return Bundle.load(folder, digest=found.digest)
    models.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=models))
    try:
        shutil.copytree(source, draft, dirs_exist_ok=True)
        Bundle.load(draft, digest=found.digest)
        os.replace(draft, folder)  # noqa: PTH105 - within one file system, atomically
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Bundle.load(folder)
