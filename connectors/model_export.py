"""What ``penstock export`` takes: an inspection model, an archive of torch.export, an ONNX file.

Each becomes a source with names, free sizes and held data, which
`kernels.compression.formats.ship` exports and holds against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from connectors.defects.models import REGISTRY, model_at
from infra.errors import PenstockError

if TYPE_CHECKING:
    from kernels.compression.export import ExportConfig
    from kernels.compression.formats.protocol import Format, Source

DRAWN = 8
"""Batches that are drawn where no held data is given."""
BATCH = 16
INT8_FLIPS = 0.005
INT8_DRIFT = 0.25
"""Of two engines that round int8 each in its own way: only gross faults are meant to show."""
MAX_DATA_BYTES = 4 * 2**30
MOST_IMAGES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSource:
    """What is exported.

    Attributes:
        name: Of the file to come, without suffix.
        source: Module or ONNX file.
        config: Names and free sizes.
        held: Inputs to hold the file against the source.
        words: What the held inputs are.
        flips: Share of decisions that may differ.
        max_rel: Drift that is allowed.
        notes: For the person.
        reference: What is held against where it is not the source.
        example: What graphs are traced with where it is not the first of ``held``.
    """

    name: str
    source: Source
    config: ExportConfig
    held: Sequence[Mapping[str, NDArray[Any]]]
    words: str
    flips: float = 0.0
    max_rel: float = 1e-3
    notes: tuple[str, ...] = ()
    reference: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]] | None = None
    example: Mapping[str, NDArray[Any]] | None = None


def read_source(
    address: str,
    form: Format,
    *,
    data: Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    float32: bool = False,
) -> ExportSource:
    """Return what stands at an address.

    Args:
        address: Bundle's folder, ``registry:LINE``, ``.pt2`` or ``.onnx``.
        form: Where it shall go.
        data: Held data: a folder of images for an inspection model, else an npz with one array
            [n, ...] per input; None: the bundle's examples, or drawn at random.
        shapes: Input -> shape of an ONNX file that does not say; of a bundle the one size of images
            that its file shall take, for formats that cannot leave it free.
        float32: Of a bundle the float32 graph also where the format takes the int8 file.

    Raises:
        PenstockError: There is no such model.
        FormatError: It is broken, or cannot become the format.
    """
    path = Path(address)
    if address.startswith(REGISTRY) or path.is_dir():
        return _bundle(model_at(address), form, data, shapes or {}, float32=float32)
    if not path.is_file():
        raise PenstockError(
            f"{address}: no such model",
            "Give a bundle's folder, registry:LINE, a .pt2 of torch.export or an .onnx file",
        )
    if path.suffix == ".pt2":
        return _archive(path, data)
    if path.suffix == ".onnx":
        return _onnx(path, data, shapes)
    raise PenstockError(
        f"{address}: is no model that can be exported",
        "Give a bundle's folder, registry:LINE, a .pt2 of torch.export or an .onnx file",
    )


def _bundle(
    folder: Path,
    form: Format,
    data: Path | None,
    shapes: Mapping[str, Sequence[int]],
    *,
    float32: bool,
) -> ExportSource:
    """Return the edge module of a bundle: preprocessing and thresholds inside."""
    from kernels.compression.export import ExportConfig
    from tasks.defects.bundle.bundle import EDGE, DefectBundle
    from tasks.defects.edge.build import SIZES
    from tasks.defects.edge.format import INPUT, OUTPUTS, read_facts

    shape = _only_shape(shapes, INPUT)  # refused now, not after all images were read
    bundle = DefectBundle.load(folder)
    edge = bundle.read(EDGE)
    images, words = _images(data, read_facts(edge).bits) if data else _turned(bundle.example()[0])
    if shape and not (images := [image for image in images if image.shape == shape]):
        raise PenstockError(
            f"none of {words} has {shape[0]} x {shape[1]} pixels",
            "Give the size of the line's images, or a folder of such images by --data",
        )
    config = ExportConfig(inputs=(INPUT,), outputs=OUTPUTS, dynamic={} if shape else {INPUT: SIZES})
    int8 = ExportSource(
        name=bundle.manifest.dataset,
        source=edge,
        config=config,
        held=[{INPUT: image} for image in images],
        words=words,
        flips=INT8_FLIPS,
        max_rel=INT8_DRIFT,
        example={INPUT: np.zeros(shape or (70, 90, 3), np.uint8)},
    )
    if form.from_onnx and not float32 and not shape:
        return int8
    return replace(
        int8,
        source=_edge_module(bundle),
        flips=0.0,
        max_rel=1e-2,
        notes=("float32, with the detector's thresholds; the int8 edge file has its own",),
    )


def _only_shape(shapes: Mapping[str, Sequence[int]], name: str) -> tuple[int, ...]:
    """Return the one shape of images that is asked for, or () where any will do."""
    if not shapes:
        return ()
    shape = tuple(shapes.get(name, ()))
    if len(shapes) > 1 or len(shape) != 3 or min(shape) < 1 or shape[2] != 3:
        told = ", ".join(f"{n}={'x'.join(map(str, each))}" for n, each in shapes.items())
        raise PenstockError(
            f"{told}: is no shape of images",
            f"Give {name}=HEIGHTxWIDTHx3, such as {name}=256x256x3, or no shape for any size",
        )
    return shape


def _edge_module(bundle: Any) -> Any:
    """Return the trained detector with preprocessing and its thresholds, in evaluation mode."""
    from tasks.defects.detect.detector import FACTS, WEIGHTS, Detector
    from tasks.defects.edge.graph import EdgeGraph
    from tasks.defects.edge.trim import trimmed

    files = {WEIGHTS: bundle.read("detector.safetensors"), FACTS: bundle.read("detector.json")}
    detector = Detector.from_bytes(files)
    thresholds = detector.thresholds or bundle.thresholds
    return EdgeGraph(trimmed(detector.scorer), thresholds).eval()


def _archive(path: Path, data: Path | None) -> ExportSource:
    from kernels.compression.formats.program import described, load_program, runnable

    program = load_program(path)
    config, zeros = described(program)
    shapes = {
        name: tuple(
            0 if axis in config.dynamic.get(name, {}) else size
            for axis, size in enumerate(one.shape)
        )
        for name, one in zip(config.inputs, zeros, strict=True)
    }
    dtypes = {name: str(one.numpy().dtype) for name, one in zip(config.inputs, zeros, strict=True)}
    held, words = _held(data, config, shapes, dtypes)
    return ExportSource(
        name=path.stem, source=runnable(program), config=config, held=held, words=words
    )


def _onnx(
    path: Path, data: Path | None, shapes: Mapping[str, Sequence[int]] | None
) -> ExportSource:
    from kernels.compression.foreign import read_foreign

    made = read_foreign(path, shapes=shapes)
    held, words = _held(data, made.config, made.shapes, made.dtypes)
    int8 = b"QuantizeLinear" in made.model
    return ExportSource(
        name=path.stem,
        source=made.model,
        config=made.config,
        held=held,
        words=words,
        flips=INT8_FLIPS if int8 else 0.0,
        max_rel=INT8_DRIFT if int8 else 1e-3,
        notes=made.changes,
        reference=made.reference(),
    )


def _held(
    data: Path | None,
    config: ExportConfig,
    shapes: Mapping[str, Sequence[int]],
    dtypes: Mapping[str, str],
) -> tuple[list[dict[str, NDArray[Any]]], str]:
    """Return batches of held data, the first of two or more where the batch is free."""
    first = next(iter(shapes.values()))
    free = bool(first) and first[0] == 0
    if data is None:
        from kernels.compression.foreign import drawn_inputs

        drawn = drawn_inputs(shapes, dtypes, DRAWN, batch=4 if free else 2)
        return drawn, "drawn at random: no held data was given"
    arrays = _npz(data, config, dtypes)
    count = len(next(iter(arrays.values())))
    size = min(BATCH, count) if free else (first[0] if first else 1)
    if count < max(2, size) or any(len(one) != count for one in arrays.values()):
        raise PenstockError(
            f"{data}: every array must have the same number of samples, {max(2, size)} or more",
            "Stack the samples along the first axis",
        )
    ends = range(size, count + 1, size)
    return [{n: one[end - size : end] for n, one in arrays.items()} for end in ends], data.name


def _npz(data: Path, config: ExportConfig, dtypes: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    if not data.is_file() or data.suffix != ".npz" or data.stat().st_size > MAX_DATA_BYTES:
        raise PenstockError(
            f"{data}: is no .npz file of at most {MAX_DATA_BYTES:,} bytes",
            f"Save one array for each of {', '.join(config.inputs)}",
        )
    try:
        with np.load(data, allow_pickle=False) as held:
            missing = [name for name in config.inputs if name not in held.files]
            if missing:
                raise PenstockError(f"{data}: has no array {missing[0]!r}", "Name them as inputs")
            return {name: held[name].astype(dtypes[name]) for name in config.inputs}
    except (OSError, ValueError) as error:
        raise PenstockError(
            f"{data}: cannot be read ({error})", "Write it by numpy.savez"
        ) from error


def _images(folder: Path, bits: int) -> tuple[list[NDArray[np.uint8]], str]:
    """Return images of a folder as the edge module takes them."""
    from connectors.cleaning.image_files import list_images, read_image_file
    from tasks.cleaning.images.decode import ImageRefusedError
    from tasks.cleaning.images.sandbox import Sandbox
    from tasks.defects.samples import eight_bits, rgb

    files = list_images(folder).files
    found = []
    with Sandbox(workers=1) as sandbox:
        for file in files[:: max(1, len(files) // MOST_IMAGES)][:MOST_IMAGES]:
            try:
                pixels = sandbox.pixels(read_image_file(file, sandbox.limits.max_bytes))
            except ImageRefusedError:
                continue
            found.append(np.ascontiguousarray(rgb(eight_bits(pixels, bits))))
    if not found:
        raise PenstockError(f"{folder}: holds no image", "Give a folder of images of the line")
    return found, f"{len(found)} images of {folder.name}"


def _turned(images: NDArray[np.uint8]) -> tuple[list[NDArray[np.uint8]], str]:
    """Return each image in eight positions."""
    found = [
        np.ascontiguousarray(np.rot90(side, turn))
        for image in images
        for side in (image, image[:, ::-1])
        for turn in range(4)
    ]
    return found, "examples of the bundle in eight positions each"
