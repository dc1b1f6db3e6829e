"""From a trained scorer to the edge file: export, int8, and the proof beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from kernels.compression.export import ExportConfig, export_onnx, with_metadata
from kernels.compression.parity import ParityRecord, answers_of, image_digest
from kernels.compression.qdq import QdqConfig, Quantised, quantise
from kernels.compression.ranges import Outputs
from tasks.defects.edge.format import INPUT, MAX_SIDE, MIN_SIDE, OUTPUTS, EdgeFacts, EdgeFile
from tasks.defects.edge.graph import EdgeGraph
from tasks.defects.judgement import Thresholds
from tasks.defects.samples import Pixels, rgb
from tasks.defects.scorer import Scorer


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """How the edge file is made.

    Attributes:
        int8: Quantise; False ships the float32 graph.
        qdq: How.
        calibration: Images, of those given, that ranges are measured on; spread evenly.
        tile: Longest side judged in one go by a scorer without a size of its own, as its detector
            does; None: every image whole.
    """

    int8: bool = True
    qdq: QdqConfig = field(default_factory=QdqConfig)
    calibration: int = 32
    tile: int | None = 1024

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.calibration < 1:
            raise ValueError("calibration needs at least one image")


def build_edge(
    scorer: Scorer,
    thresholds: Thresholds,
    images: Sequence[Pixels],
    *,
    proof: Sequence[Pixels] = (),
    created_by: str = "penstock",
    config: EdgeConfig | None = None,
) -> EdgeFile:
    """Make the edge file of a detector.

    Args:
        scorer: In evaluation mode.
        thresholds: Fixed before, on the float scorer.
        images: Calibrate int8: images of the line, good and bad.
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
    graph = EdgeGraph(scorer, thresholds).eval()
    float32 = export_edge(graph)
    colour = [np.ascontiguousarray(rgb(image)) for image in images]
    facts: dict[str, object] = {"int8": config.int8}
    model = float32
    if config.int8:
        step = max(1, len(colour) // config.calibration)
        chosen = [{INPUT: image} for image in colour[::step][: config.calibration]]
        made = quantise(float32, chosen, decision_loss, config.qdq)
        model = made.model
        facts |= _told(made, config.qdq)
    proven = [np.ascontiguousarray(rgb(image)) for image in proof] or colour
    record = ParityRecord(
        model="",
        images=tuple(image_digest(image) for image in proven),
        trained=tuple(_trained(graph, image) for image in proven),
        float32=tuple(answers_of(float32, proven)),
        shipped=tuple(answers_of(model, proven)),
        runtime=_runtime(),
        facts=facts,
    )
    page = EdgeFacts(
        kinds=scorer.kinds,
        thresholds=thresholds,
        size=scorer.size,
        tile=config.tile if scorer.size is None else None,
        model=weights_digest(scorer),
        parity=record.digest(),
        created_by=created_by,
        int8=config.int8,
    )
    sealed = with_metadata(model, page.to_metadata())
    record = replace(record, model=hashlib.sha256(sealed).hexdigest())
    return EdgeFile(sealed, record, float32)


def export_edge(graph: EdgeGraph) -> bytes:
    """Return the float32 ONNX file of a graph, for images of any size."""
    sizes = {0: ("height", MIN_SIDE, MAX_SIDE), 1: ("width", MIN_SIDE, MAX_SIDE)}
    config = ExportConfig(inputs=(INPUT,), outputs=OUTPUTS, dynamic={INPUT: sizes})
    return export_onnx(graph, (torch.zeros(70, 90, 3, dtype=torch.uint8),), config)


def decision_loss(reference: Sequence[Outputs], answers: Sequence[Outputs]) -> float:
    """Return share of verdicts flipped + root mean square shift of the score in its own spreads."""
    flipped = [
        int(a["verdict"]) != int(b["verdict"]) for a, b in zip(reference, answers, strict=True)
    ]
    scores = np.array(
        [[float(a["score"]), float(b["score"])] for a, b in zip(reference, answers, strict=True)]
    )
    if not np.isfinite(scores).all():
        return float("inf")
    shift = float(np.sqrt(((scores[:, 0] - scores[:, 1]) ** 2).mean()))
    return float(np.mean(flipped)) + shift / max(float(scores[:, 0].std()), 1e-6)


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
