"""A classifier of types as bytes: arrays as npz, the rest as JSON inside; no pickle."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.descriptors import FAMILIES
from tasks.defects.classify.discriminant import Discriminant
from tasks.defects.classify.ensemble import Ensemble, Member
from tasks.defects.classify.fit import TypeClassifier, TypesConfig
from tasks.defects.classify.novelty import Novelty
from tasks.defects.classify.self_training import SelfTrainingConfig

FORMAT = "penstock-defect-types-1"
LARGEST = 64 * 2**20
"""Bytes of the largest classifier that is opened, packed and unpacked."""
_UNREADABLE = (
    KeyError, TypeError, ValueError, EOFError, MemoryError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What archives, arrays and JSON that are damaged, or made to harm, end with."""
_PARTS = ("centre", "scale", "axes", "centroids")


class TypesFileError(ValueError):
    """Bytes that hold no classifier of types; says what was found."""


def packed(classifier: TypeClassifier) -> bytes:
    """Return the classifier as bytes."""
    members = classifier.ensemble.members
    notes = {
        "format": FORMAT,
        "kinds": classifier.kinds,
        "names": classifier.names,
        "self_trained": classifier.self_trained,
        "config": asdict(classifier.config),
        "temperature": classifier.ensemble.temperature,
        "members": {name: member.temperature for name, member in members.items()},
    }
    arrays: dict[str, NDArray[np.generic]] = {
        "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8),
        "usual": classifier.novelty.usual,
        "scores": classifier.novelty.scores,
        "places": classifier.places,
    }
    for name, member in members.items():
        for part in _PARTS:
            arrays[f"{name}.{part}"] = getattr(member.discriminant, part)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpacked(content: bytes) -> TypeClassifier:
    """Return the classifier that `packed` wrote.

    Raises:
        TypesFileError: Too large, damaged, or something else.
    """
    try:
        _check_size(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        notes = json.loads(arrays.pop("notes").tobytes())
        if notes["format"] != FORMAT:
            raise TypesFileError(f"its format is {notes['format']!r}, not {FORMAT!r}")
        found = _built(notes, arrays)
    except _UNREADABLE as error:
        raise TypesFileError(
            f"no classifier of defect types: {error}; give a file written by this version"
        ) from error
    return found


def _check_size(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = max(len(content), sum(entry.file_size for entry in archive.infolist()))
    if size > LARGEST:
        raise TypesFileError(f"it holds {size:,} bytes, more than {LARGEST:,}")


def _built(notes: dict[str, Any], arrays: dict[str, NDArray[np.generic]]) -> TypeClassifier:
    kinds, names = tuple(map(str, notes["kinds"])), tuple(map(str, notes["names"]))
    numbers = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    if not all(np.isfinite(array).all() for array in numbers.values()):
        raise TypesFileError("it holds numbers that are not finite")
    members, axes = {}, 0
    for name, temperature in notes["members"].items():
        if name not in FAMILIES:
            raise TypesFileError(f"it uses the descriptors {name!r}, which are not known")
        centre, scale, along, centroids = (numbers[f"{name}.{part}"] for part in _PARTS)
        wanted = (len(centre),), (len(centre), along.shape[1]), (len(kinds), along.shape[1])
        if (scale.shape, along.shape, centroids.shape) != wanted:
            raise TypesFileError(f"the sizes of {name} do not fit each other")
        members[name] = Member(Discriminant(centre, scale, along, centroids), float(temperature))
        axes += along.shape[1]
    if numbers["usual"].shape != (len(kinds),) or numbers["places"].shape != (len(names), axes):
        raise TypesFileError("the numbers of types, samples and axes do not fit each other")
    config = dict(notes["config"])
    config["self_training"] = SelfTrainingConfig(**config["self_training"])
    return TypeClassifier(
        kinds=kinds,
        ensemble=Ensemble(members, float(notes["temperature"])),
        novelty=Novelty(numbers["usual"], np.sort(numbers["scores"].ravel())),
        names=names,
        places=numbers["places"],
        self_trained=bool(notes["self_trained"]),
        config=TypesConfig(**config),
    )
