"""The model registry: bundles published as MLflow models, found again by alias.

A bundle becomes a version of a registered model such as ``fraud-<dataset>``. The MLflow model holds
a script of `connectors.model_scripts` and the bundle's files; nothing is pickled. The version's tag
``bundle_sha256`` says which bundle it is, and a fetched copy must match it. What differs between
the kinds of models stands in a `BundleKind`.
"""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from connectors.registry_client import (
    CHALLENGER,
    CHAMPION,
    DIGEST_TAG,
    ModelVersion,
    RegistryClient,
    RegistryError,
    pinned,
)
from connectors.uris import without_login

logger = logging.getLogger(__name__)

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "DIGEST_TAG",
    "BundleFacts",
    "BundleKind",
    "ModelBundle",
    "ModelVersion",
    "Registry",
    "RegistryError",
]


class ModelBundle(Protocol):
    """A folder that is all there is of a model, sealed by the digest of its manifest."""

    folder: Path
    digest: str

    def self_check(self) -> float:
        """Score the bundle's example; raises where that differs from what it should be."""


B = TypeVar("B", bound=ModelBundle)


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """What the registry notes of a bundle.

    Attributes:
        dataset: What it was trained for; names the registered model.
        data_digest: SHA-256 of the data.
        git_commit: Code that trained it.
        tags: Further tags of its version.
    """

    dataset: str
    data_digest: str
    git_commit: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BundleKind(Generic[B]):
    """A kind of model, as far as the registry must know it.

    Attributes:
        prefix: The registered model is called ``<prefix>-<dataset>``.
        script: File of `connectors.model_scripts` that scores with it; the model that it sets
            keeps the opened bundle as ``bundle``.
        requirements: Packages that loading needs.
        load: ``(folder, digest) -> bundle``; a ``ValueError`` where it must not be used.
        facts: What is noted of a bundle.
        example: Inputs and the scores that the script must give for them, float ``[n]``.
        signature: Its MLflow signature.
        tolerance: Largest difference of scores that another machine may make.
        train: Command that makes one.
    """

    prefix: str
    script: Path
    requirements: tuple[str, ...]
    load: Callable[[Path, str], B]
    facts: Callable[[B], BundleFacts]
    example: Callable[[B], tuple[Any, NDArray[np.float64]]]
    signature: Callable[[B], Any]
    tolerance: float
    train: str

    def model_name(self, dataset: str) -> str:
        """Return the registered model's name of a dataset."""
        return f"{self.prefix}-{dataset}"


class Registry(RegistryClient, Generic[B]):
    """The registry for models of one kind."""

    def __init__(self, kind: BundleKind[B], uri: str = "") -> None:
        """Connect to a tracking URI; empty: ``MLFLOW_TRACKING_URI``."""
        super().__init__(uri)
        self.kind = kind

    def name_of(self, bundle: B) -> str:
        """Return the registered model's name of a bundle."""
        return self.kind.model_name(self.kind.facts(bundle).dataset)

    def publish(self, bundle: B, *, run_id: str = "") -> ModelVersion:
        """Upload a bundle as a new version of its dataset's model.

        Args:
            bundle: The bundle.
            run_id: Run it belongs to, whose status stays as it is; empty: a run of its own.
        """
        import mlflow

        from connectors.tracking import RunRequest, resumed_run, tracked_run

        kind, facts = self.kind, self.kind.facts(bundle)
        name = self.name_of(bundle)
        alone = RunRequest(
            dataset=facts.dataset,
            name="publish",
            data_digest=facts.data_digest,
            git_commit=facts.git_commit,
            uri=self.uri,
        )
        context = resumed_run(run_id, uri=self.uri) if run_id else tracked_run(alone)
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder, context as run:
            staged = Path(folder) / "bundle"
            shutil.copytree(bundle.folder, staged)
            version = self.log(
                run,
                mlflow.pyfunc,
                name,
                python_model=str(kind.script),
                artifacts={"bundle": str(staged)},
                signature=kind.signature(bundle),
                input_example=_first_rows(kind.example(bundle)[0]),
                pip_requirements=pinned(kind.requirements),
                model_config={DIGEST_TAG: bundle.digest},
            )
        tags = {
            "dataset": facts.dataset,
            "data_sha256": facts.data_digest,
            "git_commit": facts.git_commit,
            **facts.tags,
            DIGEST_TAG: bundle.digest,  # last: a version without it is not used
        }
        return self.tag(version, tags)

    def fetch(self, version: ModelVersion, cache: Path) -> B:
        """Return the bundle of a version, downloaded once into ``cache`` and verified each time.

        Raises:
            RegistryError: When the download fails or is not the bundle that was published.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        if not version.digest:
            raise RegistryError(f"{version.uri} has no tag {DIGEST_TAG}; it is no bundle of ours")
        place = cache / version.name / f"{version.version}-{version.digest[:16]}"
        kept = self._kept(place, version.digest)
        if kept is not None:
            return kept
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=place.parent) as folder:
            try:
                root = mlflow.artifacts.download_artifacts(
                    version.uri, dst_path=folder, tracking_uri=self.uri
                )
                source = Path(root) / "artifacts" / "bundle"
                self.kind.load(source, version.digest)
                return self._settle(source, place, version.digest)
            except (MlflowException, OSError, ValueError) as error:
                reason = without_login(str(error))
                raise RegistryError(f"{version.uri} cannot be fetched: {reason}") from error

    def champion(self, dataset: str, cache: Path) -> tuple[ModelVersion, B]:
        """Return the serving version of a dataset and its bundle.

        Raises:
            RegistryError: When no model was promoted yet.
        """
        name = self.kind.model_name(dataset)
        version = self.by_alias(name, CHAMPION)
        if version is None:
            raise RegistryError(
                f"no champion of {name} at {self.place}; train one: {self.kind.train}"
            )
        return version, self.fetch(version, cache)

    def smoke_test(self, version: ModelVersion) -> float:
        """Load a version the way any MLflow user would and score the bundle's example.

        Returns:
            Largest difference from the scores at training.

        Raises:
            RegistryError: When it cannot be loaded or scores otherwise.
        """
        import mlflow

        try:
            model = mlflow.pyfunc.load_model(version.uri)
            bundle: B = model.unwrap_python_model().bundle
            inputs, expected = self.kind.example(bundle)
            scores: NDArray[np.float64] = np.asarray(model.predict(inputs), dtype=np.float64)
        except Exception as error:
            # Whatever stops the model from loading or scoring here would stop it in service.
            reason = without_login(str(error))
            raise RegistryError(f"{version.uri} failed its smoke test: {reason}") from error
        if bundle.digest != version.digest:
            raise RegistryError(f"{version.uri} holds another bundle than was published")
        difference = float(np.abs(scores - expected).max(initial=0.0))
        if scores.shape != expected.shape or not difference <= self.kind.tolerance:
            raise RegistryError(f"{version.uri} scores its example {difference:.2g} off")
        return difference

    def _kept(self, place: Path, digest: str) -> B | None:
        """Return the bundle fetched earlier, None when there is none or it is damaged."""
        if not place.is_dir():
            return None
        try:
            return self.kind.load(place, digest)
        except ValueError:
            logger.warning("cached bundle %s is damaged; fetching it again", place)
            return None

    def _settle(self, source: Path, place: Path, digest: str) -> B:
        """Move a fetched bundle to its place, unless someone else brought a sound one meanwhile."""
        kept = self._kept(place, digest)
        if kept is not None:
            return kept
        with suppress(FileNotFoundError):
            place.rename(source.with_name("damaged"))
        try:
            source.rename(place)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        return self.kind.load(place, digest)


def _first_rows(inputs: Any) -> Any:
    """Return the first two rows of arrays by name, or of one array."""
    if isinstance(inputs, Mapping):
        return {name: value[:2] for name, value in inputs.items()}
    return inputs[:2]
