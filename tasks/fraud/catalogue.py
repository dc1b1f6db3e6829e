"""Where the words of reasons come from: a bank's own catalogue, the columns of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.explain.catalogue.files import from_toml, house_catalogue, read_catalogue
from tasks.explain.catalogue.model import Catalogue
from tasks.explain.languages import Language
from tasks.explain.wording import Wording

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle

CATALOGUE_FILE = "catalogue.toml"
"""Name of the whole catalogue in a bundle."""


def find_catalogue(config: str) -> Catalogue | None:
    """Read the catalogue beside a dataset config: ``bank.catalogue.toml`` for ``bank.toml``.

    Args:
        config: Path of the config, or the name of a shipped one.

    Returns:
        The catalogue; None where there is no such file.

    Raises:
        tasks.explain.errors.CatalogueError: When the file is no catalogue.
    """
    path = Path(config).with_suffix(".catalogue.toml")
    return read_catalogue(path) if Path(config).suffix == ".toml" and path.exists() else None


def bundle_catalogue(bundle: Bundle) -> Catalogue:
    """Return the catalogue a bundle holds; older bundles have none and take the house's.

    Raises:
        tasks.explain.errors.CatalogueError: When this version cannot read it.
    """
    if CATALOGUE_FILE not in bundle.manifest.files:
        return house_catalogue()
    content = bundle.read_extra(CATALOGUE_FILE)
    return from_toml(content, source=f"{CATALOGUE_FILE} of the bundle")


def bundle_wording(bundle: Bundle, language: Language = "en") -> Wording:
    """Return how the numbers and categories of a bundle's columns are said."""
    categories = {column: tuple(values) for column, values in bundle.categories.items()}
    return Wording(bundle.config.decimals, categories, language)
