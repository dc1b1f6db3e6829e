"""The manifest of a fraud bundle, which vouches for its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from kernels.bundle.folder import BundleError, FileEntry, parse_files

FORMAT_VERSION = 1

HeadName = Literal["both", "tabular", "logistic", "mlp", "graph"]
HEAD_NAMES: tuple[str, ...] = get_args(HeadName)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Contents of ``manifest.json``.

    Attributes:
        dataset: Name of the dataset config.
        active: Head that scores.
        heads: Names of the heads present under ``heads/``.
        features_version: Version of the feature definition.
        trained_until: Newest event time any part of the model learnt from, epoch milliseconds; a
            comparison must lie after it.
        data_digest: SHA-256 of the input file.
        git_commit: Commit of the code that trained, or ``"unknown"``.
        created: ISO instant, UTC.
        files: Path inside the bundle -> size and hash, every file but the manifest itself.
        format: Version of this layout.
    """

    dataset: str
    active: str
    heads: tuple[str, ...]
    features_version: int
    trained_until: int
    data_digest: str
    git_commit: str
    created: str
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    format: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Reject manifests that name impossible heads."""
        unknown = sorted(set(self.heads) - set(HEAD_NAMES))
        if unknown:
            raise BundleError(f"bundle head {unknown[0]!r} is not one of {', '.join(HEAD_NAMES)}")
        if self.active not in self.heads:
            raise BundleError(
                f"active head {self.active!r} is not in the bundle ({', '.join(self.heads)})"
            )

    def to_json(self) -> str:
        """Return the text of ``manifest.json``, keys sorted so that equal bundles hash equal."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> Manifest:
        """Parse a manifest.

        Raises:
            BundleError: When it is no JSON, lacks fields or has another format version.
        """
        try:
            data = json.loads(text)
            if data.get("format") != FORMAT_VERSION:
                raise BundleError(
                    f"{where}: bundle format {data.get('format')!r}, this version reads "
                    f"{FORMAT_VERSION}; train and publish again"
                )
            unknown = sorted(set(data) - {f.name for f in fields(cls)})
            if unknown:
                raise BundleError(f"{where}: unknown field {unknown[0]!r}")
            data["files"] = parse_files(data)
            data["heads"] = tuple(data["heads"])
            return cls(**data)
        except (json.JSONDecodeError, AttributeError, TypeError, KeyError) as error:
            raise BundleError(f"{where} is no bundle manifest: {error}") from error
