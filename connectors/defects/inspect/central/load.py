"""The central inspector from files: one model, or several averaged on one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from connectors.cleaning.image_files import list_images, read_image_file
from connectors.defects.inspect.boxed import with_boxes
from connectors.defects.inspect.central.ensemble import (
    USUAL_POSITIONS,
    EnsembleInspector,
    Member,
    calibrated,
)
from connectors.defects.inspect.inspector import Inspector, open_inspector
from connectors.defects.inspect.typed import with_types
from infra.errors import ConfigurationError
from tasks.cleaning.images.decode import ImageRefusedError
from tasks.cleaning.images.sandbox import Sandbox
from tasks.defects.bundle.bundle import DefectBundle
from tasks.defects.samples import DEEPEST, Pixels, eight_bits

MOST_GOOD = 100
"""Good images that scales are measured on."""


def load_central(
    models: Sequence[Path],
    good: Path | None = None,
    *,
    positions: int = USUAL_POSITIONS,
    exposures: Sequence[float] = (1.0,),
) -> Inspector:
    """Return the inspector of some model files.

    Args:
        models: Edge files, or bundles' folders. The first bundle that knows types names what all of
            them find; the first that has a detector of boxes draws them.
        good: Folder of good images, needed where there are several models.
        positions: Positions that each image is judged in.
        exposures: Factors of its gray values.

    Raises:
        ConfigurationError: Several models without good images, too few of those, or models that
            read deep images differently.
    """
    inspectors = [open_inspector(path, typed=False) for path in models]
    depths = sorted({inspector.bits for inspector in inspectors})
    if len(depths) > 1:
        raise ConfigurationError(
            f"the models were trained on images of {depths} bits, which cannot be averaged",
            "Train them on images of one camera setting",
        )
    if len(inspectors) == 1:
        members = [Member(inspectors[0])]
    elif good is None:
        raise ConfigurationError(
            "scores of several models have no common scale", "Give --good FOLDER of good images"
        )
    else:
        images = good_images(good, inspectors[0].bits)
        if len(images) < 5:
            raise ConfigurationError(f"{good} holds {len(images)} images", "Give at least 5")
        members = [calibrated(inspector, images) for inspector in inspectors]
    inspector: Inspector = EnsembleInspector(members, positions=positions, exposures=exposures)
    bundles = [DefectBundle.load(path) for path in models if path.is_dir()]
    return _added(with_boxes, _added(with_types, inspector, bundles), bundles)


def good_images(folder: Path, bits: int = DEEPEST) -> list[Pixels]:
    """Return up to `MOST_GOOD` images of a folder, spread over it; broken ones are left out."""
    files = list_images(folder).files
    chosen = files[:: max(1, len(files) // MOST_GOOD)][:MOST_GOOD]
    found = []
    with Sandbox(workers=1) as sandbox:
        for file in chosen:
            try:
                pixels = sandbox.pixels(read_image_file(file, sandbox.limits.max_bytes))
            except ImageRefusedError:
                continue
            found.append(eight_bits(pixels, bits))
    return found


def _added(
    add: Callable[[Inspector, DefectBundle], Inspector],
    inspector: Inspector,
    bundles: Sequence[DefectBundle],
) -> Inspector:
    """Return the inspector with what the first bundle that has it adds."""
    for bundle in bundles:
        if (added := add(inspector, bundle)) is not inspector:
            return added
    return inspector
