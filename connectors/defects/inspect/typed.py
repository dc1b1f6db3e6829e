"""An inspector whose defects are named by a classifier of types, learned from few labels."""

from __future__ import annotations

from connectors.defects.inspect.added import AddingInspector
from connectors.defects.inspect.inspector import Inspector
from tasks.defects.bundle.bundle import TYPES, DefectBundle
from tasks.defects.classify.found import FoundTypes
from tasks.defects.judgement import Judgement
from tasks.defects.samples import Pixels


class TypedInspector(AddingInspector):
    """Judges as another inspector, and names the type of what is not OK."""

    def __init__(self, inspector: Inspector, types: FoundTypes, digest: str) -> None:
        """Put both together.

        Args:
            inspector: Decides.
            types: Names.
            digest: SHA-256 of the types' file.
        """
        super().__init__(inspector, digest)
        self._types = types

    def _add(self, said: Judgement, pixels: Pixels) -> Judgement:
        return self._types.named(pixels, said)


def with_types(inspector: Inspector, bundle: DefectBundle) -> Inspector:
    """Return an inspector that names what it finds as a bundle does, where that knows types."""
    types = bundle.types()
    if types is None:
        return inspector
    return TypedInspector(inspector, types, bundle.manifest.files[TYPES].sha256)
