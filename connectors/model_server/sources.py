"""Finds the ONNX files of an address and reads them: a folder, a bundle, the registry."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from connectors.model_server.addresses import Address, valid_name
from connectors.registry_client import ModelVersion, RegistryClient, RegistryError
from connectors.uris import without_login
from infra.errors import PenstockError
from kernels.bundle.folder import (
    MANIFEST,
    BundleError,
    FileEntry,
    parse_files,
    read_manifest,
    read_verified,
)

MODEL = "model.onnx"
SUFFIX = ".onnx"
EDGE = "edge.onnx"
MOST_BYTES = 4 * 2**30
FIRST = "1"
"""Version of a file that has none."""


class SourceError(PenstockError):
    """An address that no models can be read from now."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model as it was found.

    Attributes:
        name: To serve it under.
        version: Its version.
        alias: Alias that led to it; empty: none.
        content: The file.
    """

    name: str
    version: str
    alias: str
    content: bytes


class Source(Protocol):
    """An address that is looked at again and again; both calls are slow."""

    address: Address

    def newest(self) -> Hashable:
        """Return what changes when there is something else to serve.

        Raises:
            SourceError: Nobody can say.
        """

    def load(self) -> Iterator[Found]:
        """Read every model.

        Raises:
            SourceError: One cannot be read.
        """


def open_source(address: Address, tracking_uri: str = "") -> Source:
    """Return the source of an address.

    Args:
        address: The address.
        tracking_uri: MLflow of the registry; empty: ``MLFLOW_TRACKING_URI``.
    """
    if address.path is None:
        return RegistrySource(address, tracking_uri)
    return FolderSource(address, address.path)


@dataclass(frozen=True, slots=True)
class _Manifest:
    """Of a bundle of any kind.

    Attributes:
        files: Path -> size and digest.
        data: All of it.
    """

    files: Mapping[str, FileEntry]
    data: Mapping[str, Any]

    def to_json(self) -> str:
        """Return its text."""
        return json.dumps(self.data)


class FolderSource:
    """A file, a bundle's folder, or ``folder/NAME/VERSION/model.onnx``."""

    def __init__(self, address: Address, path: Path) -> None:
        self.address, self._path = address, path

    def newest(self) -> Hashable:
        """Return places, sizes and times of the files; see `Source`."""
        try:
            stats = [(path, path.stat()) for _, _, path in self._files()]
        except OSError as error:
            raise self._error(str(error)) from error
        return tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)

    def load(self) -> Iterator[Found]:
        """Read every model; see `Source`."""
        if (self._path / MANIFEST).is_file():
            name = self.address.name or self._path.resolve().name
            yield from bundle_models(self._path, "", self.address, name, FIRST)
            return
        for name, version, path in self._files():
            if path.stat().st_size > MOST_BYTES:
                raise self._error(f"{path} has more than {MOST_BYTES} bytes")
            try:
                content = path.read_bytes()
            except OSError as error:
                raise self._error(str(error)) from error
            yield Found(_checked(name, self.address), version, "", content)

    def _files(self) -> list[tuple[str, str, Path]]:
        """Return name, version and place of every file."""
        path, name = self._path, self.address.name
        if (path / MANIFEST).is_file():
            return [("", "", path / MANIFEST)]
        if path.is_file():
            return [(name or path.stem, FIRST, path)]
        if not path.is_dir():
            raise self._error("there is no such file or folder")
        own = _versions(path, name or path.resolve().name)
        files = [(each.stem, FIRST, each) for each in sorted(path.glob(f"*{SUFFIX}"))]
        for folder in sorted(each for each in path.iterdir() if each.is_dir()):
            files += _versions(folder, folder.name)
        if name and files:
            if len({found for found, _, _ in files}) > 1:
                raise self._error(f"there are several models, which cannot all be called {name}")
            files = [(name, version, each) for _, version, each in files]
        if not own + files:
            raise self._error(f"holds no NAME/VERSION/{MODEL}, no *{SUFFIX} and no {MANIFEST}")
        return own + files

    def _error(self, why: str) -> SourceError:
        return SourceError(
            f"{self.address.text}: {why}", f"Give a file, or FOLDER/NAME/VERSION/{MODEL}"
        )


class RegistrySource:
    """One version of a registered model, or the one an alias points to."""

    def __init__(self, address: Address, tracking_uri: str) -> None:
        self.address, self._uri = address, tracking_uri
        self._kept: RegistryClient | None = None

    def newest(self) -> Hashable:
        """Return the version; see `Source`."""
        version = self._version()
        return (version.version, version.digest)

    def load(self) -> Iterator[Found]:
        """Fetch every ONNX file of the version; see `Source`."""
        import mlflow
        from mlflow.exceptions import MlflowException

        version = self._version()
        client = self._client()
        with tempfile.TemporaryDirectory(prefix="penstock-models-") as folder:
            try:
                root = Path(
                    mlflow.artifacts.download_artifacts(
                        version.uri, dst_path=folder, tracking_uri=client.uri
                    )
                )
            except (MlflowException, OSError) as error:
                raise self._error(without_login(str(error))) from error
            yield from self._models(root, version)

    def _models(self, root: Path, version: ModelVersion) -> Iterator[Found]:
        address, alias = self.address, self.address.alias
        if version.digest:
            bundle = root / "artifacts" / "bundle"
            found = bundle_models(bundle, version.digest, address, address.name, version.version)
            yield from (Found(one.name, one.version, alias, one.content) for one in found)
            return
        paths = {path.relative_to(root).as_posix(): path for path in root.rglob(f"*{SUFFIX}")}
        main = MODEL if MODEL in paths else next(iter(paths), "") if len(paths) == 1 else ""
        for name, place in _named(list(paths), main, address):
            yield Found(name, version.version, alias, paths[place].read_bytes())

    def _version(self) -> ModelVersion:
        client, address = self._client(), self.address
        try:
            if address.version:
                return client.version(address.model, address.version)
            found = client.by_alias(address.model, address.alias)
        except RegistryError as error:
            raise self._error(str(error)) from error
        except Exception as error:
            # A server that is down fails in as many ways as there are ways to reach one.
            raise self._error(without_login(str(error))[:300]) from error
        if found is None:
            raise self._error(f"{address.model} has no {address.alias} at {client.place}")
        return found

    def _client(self) -> RegistryClient:
        if self._kept is None:
            self._kept = RegistryClient(self._uri)
        return self._kept

    def _error(self, why: str) -> SourceError:
        return SourceError(f"{self.address.text}: {why}", "Register a model, or start the registry")


def bundle_models(
    folder: Path, digest: str, address: Address, name: str, version: str
) -> Iterator[Found]:
    """Read the ONNX files of a bundle, each as its manifest says.

    Args:
        folder: The bundle.
        digest: Of its manifest; empty: any.
        address: Where it was asked for.
        name: Of the file that decides: a fraud model's active head, a defect model's edge file. The
            others are called ``NAME.STEM``.
        version: Its version.

    Raises:
        SourceError: It is damaged.
    """

    def parse(text: str, path: Path) -> _Manifest:
        try:
            data = json.loads(text)
            return _Manifest(parse_files(data), data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path} is no manifest: {error}") from error

    try:
        manifest = read_manifest(folder, parse, digest=digest)
        places = [place for place in manifest.files if place.endswith(SUFFIX)]
        main = f"heads/{manifest.data.get('active')}{SUFFIX}"
        main = main if main in places else EDGE
        called = Address(address.text, name, file=address.file)
        for each, place in _named(places, main, called):
            yield Found(each, version, "", read_verified(folder, manifest, place))
    except (BundleError, OSError) as error:
        raise SourceError(f"{address.text}: {error}", "Publish the bundle anew") from error


def _named(places: list[str], main: str, address: Address) -> list[tuple[str, str]]:
    """Return the name and place of every file to serve."""
    if address.file:
        if address.file not in places:
            raise SourceError(
                f"{address.text}: there is no {address.file}",
                f"Choose from {', '.join(sorted(places)) or 'none'}",
            )
        return [(address.name, address.file)]
    if not places:
        raise SourceError(
            f"{address.text}: holds no ONNX file", "Register a model that was exported to ONNX"
        )
    if main not in places and len(places) == 1:
        main = places[0]
    named = [
        (address.name if place == main else f"{address.name}.{Path(place).stem}", place)
        for place in sorted(places)
    ]
    return [(_checked(name, address), place) for name, place in named]


def _versions(folder: Path, name: str) -> list[tuple[str, str, Path]]:
    found = [
        (name, each.name, each / MODEL)
        for each in folder.iterdir()
        if each.name.isdecimal() and (each / MODEL).is_file()
    ]
    return sorted(found, key=lambda one: int(one[1]))


def _checked(name: str, address: Address) -> str:
    if not valid_name(name):
        raise SourceError(
            f"{address.text}: {name!r} cannot be the name of a model",
            "Use letters, digits, dots, _ and - in names of files and folders",
        )
    return name
