"""Opening, scoring with and writing of a bundle folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.arrays import load_arrays, save_arrays
from kernels.bundle.folder import (
    BundleError,
    bundle_digest,
    read_json,
    read_manifest,
    read_verified,
    write_sealed,
)
from tasks.fraud.bundle.card import render_card
from tasks.fraud.bundle.embeddings import Embeddings
from tasks.fraud.bundle.format import Manifest
from tasks.fraud.bundle.heads import SIGNALS, OnnxHead
from tasks.fraud.bundle.parts import BundleParts
from tasks.fraud.dataset import DatasetConfig

EXAMPLE_ROWS = 16
SCORE_TOLERANCE = 1e-5


class Bundle:
    """A loaded, verified bundle.

    Attributes:
        folder: Where it lies.
        manifest: Its manifest.
        digest: SHA-256 of the manifest.
        config: Dataset config.
        feature_names: Feature columns, in order.
        categories: Known values of categorical columns.
        thresholds: Scores at which to alert.
        metrics: Figures with intervals.
        embeddings: Entity embeddings (false when there are none).
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Verify and read every file; use ``Bundle.load``."""
        self.folder = folder
        self.manifest = manifest
        self.digest = bundle_digest(folder)
        self.config = DatasetConfig.from_dict(read_json(folder, manifest, "dataset.json"))
        features = read_json(folder, manifest, "features.json")
        self.feature_names: tuple[str, ...] = tuple(features["names"])
        self.categories: dict[str, list[str]] = dict(features["categories"])
        self.thresholds: dict[str, Any] = read_json(folder, manifest, "thresholds.json")
        self.metrics: dict[str, Any] = read_json(folder, manifest, "metrics.json")
        self.embeddings = (
            Embeddings.load(read_verified(folder, manifest, "embeddings.npz"))
            if "embeddings.npz" in manifest.files
            else Embeddings()
        )
        self._heads = {
            name: OnnxHead(name, read_verified(folder, manifest, f"heads/{name}.onnx"))
            for name in manifest.heads
        }
        for name in set(manifest.files) - {"embeddings.npz"}:
            if not name.startswith("heads/"):
                read_verified(folder, manifest, name)

    @classmethod
    def load(cls, folder: Path, *, digest: str = "") -> Bundle:
        """Open a bundle after checking names, sizes and hashes of everything in it.

        Args:
            folder: The bundle's folder.
            digest: SHA-256 the manifest must have (kept in the registry); empty: not checked.

        Raises:
            BundleError: On anything missing, added, altered or not runnable.
        """
        folder = Path(folder)
        try:
            return cls(folder, read_manifest(folder, Manifest.from_json, digest=digest))
        except (KeyError, TypeError) as error:
            raise BundleError(f"{folder}: a file of the bundle lacks {error}") from error

    @property
    def active(self) -> str:
        """Name of the head that scores."""
        return self.manifest.active

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads present."""
        return self.manifest.heads

    def inputs(self, head: str = "") -> tuple[str, ...]:
        """Return the input names of a head (default: the active one)."""
        return tuple(self._head(head).inputs)

    def input_shapes(self, head: str = "") -> dict[str, tuple[int, ...]]:
        """Return input name -> shape of a head; -1 where any size will do."""
        return dict(self._head(head).inputs)

    def needs_graph(self, head: str = "") -> bool:
        """Tell whether a head wants more than ``features``."""
        return self.inputs(head) != ("features",)

    def reads_embeddings(self, head: str = "") -> bool:
        """Tell whether a head reads embeddings that hold anything."""
        widths = [part.vectors.shape[1] for part in self.embeddings.kinds.values()]
        return "embeddings" in self.inputs(head) and any(widths)

    @property
    def mail_length(self) -> int:
        """Messages of a transaction that the graph heads read; 0 without such a head."""
        shapes = [head.inputs["mail"] for head in self._heads.values() if "mail" in head.inputs]
        return max((shape[1] for shape in shapes), default=0)

    def score(
        self,
        features: NDArray[np.float32],
        *,
        mail: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        embeddings: NDArray[np.float32] | None = None,
        head: str = "",
    ) -> NDArray[np.float64]:
        """Return calibrated fraud probabilities float64 ``[n]``.

        Args:
            features: float32 ``[n, F]`` in the order of ``feature_names``.
            mail: float32 ``[n, T, d]`` mailbox messages (graph heads).
            mask: bool ``[n, T]``, true where a message is present.
            embeddings: float32 ``[n, C, E]``, one per entity column.
            head: Which head; default: the active one.

        Raises:
            BundleError: On an unknown head, or an input missing or of another shape.
        """
        feed = {"features": features, "mail": mail, "mask": mask, "embeddings": embeddings}
        return self._head(head).score(feed)

    def signals(self, inputs: Mapping[str, NDArray[Any]], *, head: str = "") -> NDArray[np.float32]:
        """Return what the network tells the trees of a composed head, float32 ``[n, H]``."""
        return np.asarray(self._head(head).run(inputs, SIGNALS), dtype=np.float32)

    def background(self, *, signals: bool = False) -> NDArray[np.float32]:
        """Return the SHAP background, float32 ``[b, F]``; with signals ``[b, F + H]``."""
        return _joined(self._background_arrays(), signals=signals)

    def background_or_none(self, *, signals: bool = False) -> NDArray[np.float32] | None:
        """Return ``background``; None where an old bundle has none of what is asked for."""
        if "background.npz" not in self.manifest.files:
            return None
        arrays = self._background_arrays()
        return None if signals and "signals" not in arrays else _joined(arrays, signals=signals)

    def _background_arrays(self) -> dict[str, NDArray[Any]]:
        content = read_verified(self.folder, self.manifest, "background.npz")
        return load_arrays(content, "background.npz")

    def example(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
        """Return example inputs by name and the scores the active head must give."""
        arrays = load_arrays(
            read_verified(self.folder, self.manifest, "example.npz"), "example.npz"
        )
        scores = np.asarray(arrays.pop("scores"), dtype=np.float64)
        return {name: np.asarray(value) for name, value in arrays.items()}, scores

    def self_check(self) -> float:
        """Score the example; return the largest difference from the scores kept in the bundle.

        Raises:
            BundleError: When it exceeds ``SCORE_TOLERANCE``: another runtime computes otherwise.
        """
        inputs, expected = self.example()
        difference = float(np.abs(self._head("").score(inputs) - expected).max(initial=0.0))
        if not difference <= SCORE_TOLERANCE:
            raise BundleError(
                f"{self.folder}: example scores differ by {difference:.2g} from those at training"
            )
        return difference

    def read_extra(self, name: str) -> bytes:
        """Return a verified further file, for example ``trees.txt``."""
        return read_verified(self.folder, self.manifest, name)

    def _head(self, name: str) -> OnnxHead:
        head = self._heads.get(name or self.active)
        if head is None:
            raise BundleError(f"the bundle has no head {name!r}; it has {', '.join(self.heads)}")
        return head


def write_bundle(folder: Path, parts: BundleParts) -> Bundle:
    """Write a bundle beside ``folder``, check that it loads and scores, then move it into place.

    Raises:
        BundleError: When a head cannot be run or disagrees with the feature list.
    """
    _check_parts(parts)

    def write(draft: Path) -> Manifest:
        _write_files(draft, parts)
        manifest = Manifest(
            dataset=parts.config.name,
            active=parts.active,
            heads=tuple(sorted(parts.heads)),
            features_version=parts.features_version,
            trained_until=parts.trained_until,
            data_digest=parts.data_digest,
            git_commit=parts.git_commit,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        (draft / "MODEL_CARD.md").write_text(render_card(manifest, parts), encoding="utf-8")
        return manifest

    write_sealed(folder, write, lambda draft: Bundle.load(draft).self_check())
    return Bundle.load(folder)


def _check_parts(parts: BundleParts) -> None:
    width = len(parts.feature_names)
    if parts.background.ndim != 2 or parts.background.shape[1] != width:
        raise BundleError(
            f"background has shape {parts.background.shape}, the feature list has {width} names"
        )
    if "features" not in parts.example:
        raise BundleError("the example needs an array 'features'")
    for name in parts.extras:
        if "/" in name or name in {"embeddings.npz", "MODEL_CARD.md"}:
            raise BundleError(f"extra file {name!r} must have a plain name of its own")


def _write_files(draft: Path, parts: BundleParts) -> None:
    (draft / "heads").mkdir()
    for name, content in parts.heads.items():
        (draft / "heads" / f"{name}.onnx").write_bytes(content)
    features = {
        "version": parts.features_version,
        "names": list(parts.feature_names),
        "categories": {k: list(v) for k, v in parts.categories.items()},
    }
    texts = {
        "dataset.json": parts.config.to_dict(),
        "features.json": features,
        "thresholds.json": parts.thresholds,
        "metrics.json": parts.metrics,
    }
    for name, value in texts.items():
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
        (draft / name).write_text(text + "\n", encoding="utf-8")
    for name, content in parts.extras.items():
        (draft / name).write_bytes(content)
    background = parts.background.astype(np.float32)
    kept: dict[str, NDArray[Any]] = {"features": background}
    if parts.background_signals is not None:
        kept["signals"] = parts.background_signals.astype(np.float32)
    save_arrays(draft / "background.npz", kept)
    if parts.embeddings:
        parts.embeddings.save(draft / "embeddings.npz")
    wanted = (
        OnnxHead(parts.active, parts.heads[parts.active]) if parts.active in parts.heads else None
    )
    if wanted is None:
        raise BundleError(f"active head {parts.active!r} is not among {sorted(parts.heads)}")
    example = {k: v[:EXAMPLE_ROWS] for k, v in parts.example.items() if k in wanted.inputs}
    save_arrays(draft / "example.npz", {**example, "scores": wanted.score(example)})


def _joined(arrays: Mapping[str, NDArray[Any]], *, signals: bool) -> NDArray[np.float32]:
    parts = [arrays["features"], *([arrays["signals"]] if signals else [])]
    return np.asarray(np.concatenate(parts, axis=1), dtype=np.float32)
