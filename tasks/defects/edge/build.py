"""From a trained scorer to the edge file: export, int8, and the proof beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from kernels.compression.export import ExportConfig, export_onnx, with_metadata, with_scalars
from kernels.compression.mixed import MixedConfig, mix
from kernels.compression.parity import ParityRecord, answers_of, image_digest
from kernels.compression.qdq import QdqConfig, Quantised, quantise
from kernels.compression.ranges import Outputs
from kernels.compression.sessions import answers_to
from tasks.defects.edge.format import INPUT, MAX_SIDE, OUTPUTS, EdgeFacts, EdgeFile
from tasks.defects.edge.graph import LIMITS, EdgeGraph, float32_up
from tasks.defects.edge.session import EdgeSession
from tasks.defects.edge.trim import trimmed
from tasks.defects.judgement import Thresholds
from tasks.defects.samples import DEEPEST, Pixels, rgb
from tasks.defects.scorer import Scorer

Settle = Callable[[EdgeSession], Thresholds]
"""Returns thresholds by what a session scores; the verdicts that it gives mean nothing yet."""

_APART = Thresholds(0.123, 0.321)
"""Exported with: of two equal thresholds the exporter would make one constant."""
_TRACED = 34
"""Least side that is told to the exporter: below, it would trace twice. The file takes any."""
SIZES = {0: ("height", _TRACED, MAX_SIDE), 1: ("width", _TRACED, MAX_SIDE)}
"""Free sizes of the pixels."""


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """How the edge file is made.

    Attributes:
        int8: Quantise; False ships the float32 graph.
        qdq: How; the first convolution, of three channels, is no faster in int8 and stays float.
        four_bits: Quantise weights further, to 4 bits, where the scores bear it; None: none.
        calibration: Images, of those given, that ranges are measured on; spread evenly.
        tile: Longest side judged in one go by a scorer without a size of its own, as its detector
            does; None: every image whole.
        bits: In use of the pixels of deep images; the same that the detector's images were read by.
    """

    int8: bool = True
    qdq: QdqConfig = field(default_factory=lambda: QdqConfig(float_start=1))
    four_bits: MixedConfig | None = None
    calibration: int = 32
    tile: int | None = 1024
    bits: int = DEEPEST

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.calibration < 1:
            raise ValueError("calibration needs at least one image")
        if self.four_bits is not None and not self.int8:
            raise ValueError("four_bits begins with an int8 file; leave int8 on")


def build_edge(
    scorer: Scorer,
    thresholds: Thresholds,
    images: Sequence[Pixels],
    *,
    settle: Settle | None = None,
    proof: Sequence[Pixels] = (),
    created_by: str = "penstock",
    config: EdgeConfig | None = None,
) -> EdgeFile:
    """Make the edge file of a detector.

    Args:
        scorer: In evaluation mode.
        thresholds: Of the detector, fixed before.
        images: Calibrate int8: images of the line, good and bad.
        settle: Sets the file's own thresholds by what the file itself scores, so that what they
            promise holds for what runs on the line; None: those of the detector.
        proof: Images of the parity record; ``images`` where none are given. The verdicts of images
            that int8 was calibrated on flatter it: give others where there are any.
        created_by: Program and version, kept in the file.
        config: How.

    Raises:
        ValueError: Without images.
        ExportError: When the scorer cannot be expressed in ONNX.
    """
    config = config or EdgeConfig()
    if not images:
        raise ValueError("no images: int8 ranges and the parity record need some of the line")
    float32 = with_limits(export_float(scorer), thresholds)
    colour = [np.ascontiguousarray(rgb(image)) for image in images]
    facts: dict[str, object] = {"int8": config.int8}
    model = float32
    if config.int8:
        step = max(1, len(colour) // config.calibration)
        chosen = [{INPUT: image} for image in colour[::step][: config.calibration]]
        made = quantise(float32, chosen, score_loss, config.qdq)
        model = made.model
        facts |= _told(made, config.qdq)
        if config.four_bits is not None:
            reference = answers_to(float32, chosen, threads=config.four_bits.threads)
            fewer = mix(model, chosen, reference, score_loss, config.four_bits)
            model = fewer.model
            facts["four_bits"] = fewer.facts()
    page = EdgeFacts(
        kinds=scorer.kinds,
        thresholds=thresholds,
        size=scorer.size,
        tile=config.tile if scorer.size is None else None,
        model=weights_digest(scorer),
        parity="",
        created_by=created_by,
        int8=config.int8,
        bits=config.bits,
    )
    own = thresholds
    if settle is not None:
        own = settle(EdgeSession(with_metadata(model, page.to_metadata()), threads=1))
        model = with_limits(model, own)
    facts["thresholds"] = {"detector": thresholds.to_json(), "edge": own.to_json()}
    proven = [np.ascontiguousarray(rgb(image)) for image in proof] or colour
    graph = EdgeGraph(scorer, thresholds).eval()
    record = ParityRecord(
        model="",
        images=tuple(image_digest(image) for image in proven),
        trained=tuple(_trained(graph, image) for image in proven),
        float32=tuple(answers_of(float32, proven)),
        shipped=tuple(answers_of(model, proven)),
        runtime=_runtime(),
        facts=facts,
    )
    page = replace(page, thresholds=own, parity=record.digest())
    sealed = with_metadata(model, page.to_metadata())
    record = replace(record, model=hashlib.sha256(sealed).hexdigest())
    return EdgeFile(sealed, record, float32)


def with_limits(model: bytes, thresholds: Thresholds) -> bytes:
    """Return the file with other thresholds in its graph; its page is left as it is."""
    return with_scalars(model, {name: float32_up(getattr(thresholds, name)) for name in LIMITS})


def export_float(scorer: Scorer) -> bytes:
    """Return the float32 ONNX file of a scorer, trimmed; its thresholds mean nothing yet."""
    return export_edge(EdgeGraph(trimmed(scorer), _APART).eval())


def export_edge(graph: EdgeGraph) -> bytes:
    """Return the float32 ONNX file of a graph, for images of any size."""
    config = ExportConfig(inputs=(INPUT,), outputs=OUTPUTS, dynamic={INPUT: SIZES})
    return export_onnx(graph, (torch.zeros(70, 90, 3, dtype=torch.uint8),), config)


def score_loss(reference: Sequence[Outputs], answers: Sequence[Outputs]) -> float:
    """Return the root mean square shift of the scores, in their own spread."""
    both = [[float(one["score"]) for one in answers] for answers in (reference, answers)]
    first, second = np.array(both)
    if not np.isfinite(both).all():
        return float("inf")
    shift = float(np.sqrt(np.square(second - first).mean()))
    return shift / max(float(first.std()), 1e-6)


def weights_digest(scorer: Scorer) -> str:
    """Return SHA-256 of all parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(scorer.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _trained(graph: EdgeGraph, image: Pixels) -> tuple[float, int]:
    with torch.inference_mode():
        score, _, _, verdict = graph(torch.from_numpy(image))
    return float(score), int(verdict)


def _told(made: Quantised, config: QdqConfig) -> dict[str, object]:
    return {
        "range_rule": made.rule,
        "bias_corrected": made.bias_corrected,
        "seven_bit_weights": config.seven_bits,
        "float_nodes": list(made.float_nodes),
        "loss": made.loss,
        "losses": made.losses,
        "sensitivity": made.sensitivity,
    }


def _runtime() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__.split('+')[0]}"
