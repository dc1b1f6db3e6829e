"""Where models come from: a bundle folder, or an alias of the registry."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from connectors.api.served_model import ModelError, ModelOrigin, ServedModel

if TYPE_CHECKING:
    from connectors.registry import Registry
    from tasks.explain.languages import Language
    from tasks.fraud.bundle import Bundle

logger = logging.getLogger(__name__)

REGISTRY = "registry:"


class ModelSource(NamedTuple):
    """A place a model is loaded from, again and again.

    Attributes:
        address: ``registry:DATASET``, or a folder.
        alias: Alias in the registry.
        cache: Folder of fetched bundles.
        tracking_uri: MLflow of the registry; empty: MLFLOW_TRACKING_URI.
        catalogue: File of codes and words of the reasons, read at each load; None: the bundle's.
        language: Language of the reasons.
    """

    address: str
    alias: str
    cache: Path
    tracking_uri: str = ""
    catalogue: Path | None = None
    language: Language = "en"

    def load(self) -> ServedModel:
        """Load what is there now; slow, so not for the event loop.

        Raises:
            ModelError: There is none, or it cannot be served; the message says why.
        """
        from tasks.explain.catalogue.files import read_catalogue
        from tasks.explain.errors import CatalogueError

        try:
            bundle, origin = self._fetch()
            words = None if self.catalogue is None else read_catalogue(self.catalogue)
            return ServedModel(bundle, origin, catalogue=words, language=self.language)
        except ModelError:
            raise
        except CatalogueError as error:
            raise ModelError(
                f"the reasons of {self.address} cannot be told: {error}",
                "Publish a bundle with a sound catalogue"
                if self.catalogue is None
                else "Mend the file that PENSTOCK_API_CATALOGUE names",
            ) from error
        except Exception as error:
            # A damaged bundle fails in as many ways as it can be damaged; none may stop the API.
            raise ModelError(
                f"the model of {self.address} cannot be served: {error}",
                "Publish a sound bundle; the model in service stays",
            ) from error

    def newest(self) -> str:
        """Return what tells whether there is another model now; empty when nobody can say.

        For the registry the version's digest, for a folder the digest of its manifest.
        """
        if not self.address.startswith(REGISTRY):
            from kernels.bundle.folder import BundleError, bundle_digest

            try:
                return bundle_digest(Path(self.address))
            except (OSError, BundleError):
                return ""
        registry = self._registry()
        name = registry.kind.model_name(self.address.removeprefix(REGISTRY))
        version = registry.by_alias(name, self.alias)
        return "" if version is None else version.digest

    def _fetch(self) -> tuple[Bundle, ModelOrigin]:
        if not self.address.startswith(REGISTRY):
            from tasks.fraud.bundle import Bundle

            bundle = Bundle.load(Path(self.address))
            return bundle, ModelOrigin(self.address, f"fraud-{bundle.config.name}", "")
        registry = self._registry()
        name = registry.kind.model_name(self.address.removeprefix(REGISTRY))
        version = registry.by_alias(name, self.alias)
        if version is None:
            raise ModelError(
                f"{name} has no {self.alias} at {registry.place}",
                "Train and promote one: penstock fraud train DATA",
            )
        return registry.fetch(version, self.cache), ModelOrigin(self.address, name, version.version)

    def _registry(self) -> Registry[Bundle]:
        from connectors.fraud_models import fraud_registry

        return fraud_registry(self.tracking_uri)
