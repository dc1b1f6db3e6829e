"""The manifest of an inspection bundle, which vouches for its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from kernels.bundle.folder import BundleError, FileEntry, parse_files

FORMAT_VERSION = 1
WRITTEN_BY = {"inspection": "penstock defects train", "golden": "penstock defects golden"}
"""What writes each kind."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Contents of ``manifest.json``.

    Attributes:
        dataset: Name of the line; names the registered model.
        data_digest: Digest of the images and labels it learnt from.
        git_commit: Commit of the code that trained, or ``"unknown"``.
        created: ISO instant, UTC.
        files: Path inside the bundle -> size and hash, every file but the manifest itself.
        kind: One of `WRITTEN_BY`.
        format: Version of this layout.
    """

    dataset: str
    data_digest: str
    git_commit: str
    created: str
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    kind: str = "inspection"
    format: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Return the text of ``manifest.json``, keys sorted so that equal bundles hash equal."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path, kind: str = "inspection") -> Manifest:
        """Parse a manifest of a kind.

        Raises:
            BundleError: When it is no JSON, is of another kind or format, or lacks fields.
        """
        try:
            data = json.loads(text)
            if data.get("kind") != kind:
                raise BundleError(
                    f"{where} is of kind {data.get('kind', 'fraud')!r}, not {kind!r}; "
                    f"give the folder that '{WRITTEN_BY[kind]}' wrote"
                )
            if data.get("format") != FORMAT_VERSION:
                raise BundleError(
                    f"{where}: bundle format {data.get('format')!r}, this version reads "
                    f"{FORMAT_VERSION}; train and publish again"
                )
            unknown = sorted(set(data) - {f.name for f in fields(cls)})
            if unknown:
                raise BundleError(f"{where}: unknown field {unknown[0]!r}")
            data["files"] = parse_files(data)
            return cls(**data)
        except (json.JSONDecodeError, AttributeError, TypeError, KeyError) as error:
            raise BundleError(f"{where} is no bundle manifest: {error}") from error
