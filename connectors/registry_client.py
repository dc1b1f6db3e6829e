"""A thin, typed door to MLflow's model registry: versions, aliases and tags of any model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from io import StringIO
from types import ModuleType
from typing import TYPE_CHECKING, Any

from connectors.uris import without_login

if TYPE_CHECKING:
    from connectors.tracking import TrackedRun

logger = logging.getLogger(__name__)

CHAMPION = "champion"
CHALLENGER = "challenger"
DIGEST_TAG = "bundle_sha256"


class RegistryError(RuntimeError):
    """The registry has no such model, or what it holds must not be used."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model.

    Attributes:
        name: Registered model.
        version: Number, as the registry writes it.
        digest: SHA-256 of the bundle's manifest.
        run_id: Run that made it, empty if none.
        tags: Tags of the version.
    """

    name: str
    version: str
    digest: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """Address that ``mlflow.pyfunc.load_model`` takes."""
        return f"models:/{self.name}/{self.version}"


class RegistryClient:
    """What is registered where.

    Attributes:
        uri: Tracking URI.
        client: MLflow's own.
    """

    def __init__(self, uri: str = "") -> None:
        """Connect to a tracking URI; empty: ``MLFLOW_TRACKING_URI``."""
        import mlflow
        from mlflow import MlflowClient

        # What this process loads must never be able to run pickled code.
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        self.uri = uri or mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(self.uri)
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def place(self) -> str:
        """Where models are kept, as it may be shown: without a login."""
        return without_login(self.uri)

    def version(self, name: str, number: str) -> ModelVersion:
        """Return one version by number."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_model_version(name, number)
        except MlflowException as error:
            raise RegistryError(f"no version {number} of model {name} at {self.place}") from error
        tags = {str(k): str(v) for k, v in found.tags.items()}
        return ModelVersion(name, number, tags.get(DIGEST_TAG, ""), found.run_id or "", tags)

    def by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version an alias points to, or None."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise
        return self.version(name, str(found.version))

    def log(self, run: TrackedRun, flavor: ModuleType, name: str, **how: Any) -> ModelVersion:
        """Write a model to a run as a new version of a registered model.

        Not by ``log_model`` of the flavor: that needs an active run and ends it as FINISHED, though
        the work goes on and must be found unfinished when it is killed.

        Args:
            run: Whose status stays as it is.
            flavor: Module of MLflow, such as ``mlflow.pyfunc``.
            name: Of the registered model.
            how: Arguments of the flavor's ``save_model``.
        """
        import mlflow
        from mlflow.models import Model

        model = mlflow.initialize_logged_model(
            name="model",
            source_run_id=run.run_id,
            params=self.client.get_run(run.run_id).data.params,
            experiment_id=run.experiment_id,
        )
        with redirect_stderr(StringIO()):  # MLflow prints what it registered; we log it
            info = Model.log(
                None,
                flavor,
                registered_model_name=name,
                run_id=run.run_id,
                model_id=model.model_id,
                **how,
            )
        logger.debug("%s: version %s registered", name, info.registered_model_version)
        return self.version(name, str(info.registered_model_version))

    def set_alias(self, name: str, alias: str, number: str) -> None:
        """Point an alias to a version."""
        self.client.set_registered_model_alias(name, alias, number)

    def drop_alias(self, name: str, alias: str) -> None:
        """Remove an alias; nothing happens when there is none."""
        if self.by_alias(name, alias) is not None:
            self.client.delete_registered_model_alias(name, alias)

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> ModelVersion:
        """Set tags of a version, in their order, and return it with them."""
        for key, value in tags.items():
            self.client.set_model_version_tag(version.name, version.version, key, value)
        both = {**version.tags, **tags}
        return replace(version, digest=both.get(DIGEST_TAG, ""), tags=both)


def pinned(requirements: tuple[str, ...]) -> list[str]:
    """Pin what loading needs to the versions at hand (MLflow's own guess takes a minute).

    Our own code must be importable too, but is in no package index and so is not listed.
    """
    return [f"{name}=={installed_version(name)}" for name in requirements]
