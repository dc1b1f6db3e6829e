"""Export-parity: one trained net in every format that runs here, held against itself.

Two nets: a small classifier, trained for each seed on nine kinds of surface and judged on parts
that neither training nor calibration saw, and the inspection net as it stands on the edge. Each is
written in every format, opened again and run by that format's own engine. A flip is a decision
that differs from the trained net's; ``max_rel`` is the largest difference of two values in units of
the largest. Int8 is made once as ONNX and run by ONNX Runtime and OpenVINO.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from kernels.compression.export import ExportConfig, export_onnx
from kernels.compression.formats.protocol import Arrays, Format, FormatError
from kernels.compression.formats.ship import ShipConfig, ship, source_runner
from kernels.compression.formats.table import FORMATS
from kernels.compression.qdq import QdqConfig, quantise
from models.defect_net import DefectNet, DefectNetShape
from tasks.compress.onnx_subject import answer_loss
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.fit import fit
from tasks.defects.edge.build import SIZES
from tasks.defects.edge.graph import EdgeGraph
from tasks.defects.edge.trim import trimmed
from tasks.defects.judgement import Thresholds
from tasks.defects.samples import rgb
from tasks.defects.textures.line import LineConfig, make_line
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table, threads
from tests.benchmarks._texture_task import PARTS, Task, accuracy, inputs, make_task, train

SMOKE = ("onnx", "openvino", "torch-export")
PER_BATCH = 30
ANY = ShipConfig(flips=0.99, max_rel=1e9, rounds=0)
"""Nothing is refused here: what differs is counted and shown."""


class Small(nn.Module):
    """Four filters with norms, the mean, one product: 24 k parameters."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 16, 24, 32, 48)
        self.filters = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b))
            for a, b in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits [n, classes] of [n, 3, h, w]."""
        for each in self.filters:
            pixels = functional.relu(each(pixels))
        return self.head(pixels.mean((2, 3)))


@dataclass
class Row:
    """What one format did over all nets."""

    decisions: int = 0
    flips: int = 0
    max_rel: float = 0.0
    bytes: int = 0
    ms: list[float] = field(default_factory=list)
    failed: str = ""

    def add(self, apart: Mapping[str, Any]) -> None:
        """Count one more net."""
        self.decisions += apart["decisions"]
        self.flips += apart["flips"]
        self.max_rel = max(self.max_rel, apart["max_rel"])


def batches(images: torch.Tensor) -> list[dict[str, np.ndarray]]:
    """Return the inputs of uint8 images, some at a time."""
    return [{"pixels": inputs(part).numpy()} for part in images.split(PER_BATCH)]


def classifier(seed: int, steps: int, parts: tuple[int, int, int]) -> tuple[nn.Module, Task]:
    """Return a trained classifier and its task."""
    task = make_task(seed, parts)
    torch.manual_seed(seed)
    net = Small(task.classes)
    train(net, task, steps, 3e-3)
    return net.eval(), task


def inspection(seed: int, count: int) -> tuple[nn.Module, list[dict[str, np.ndarray]]]:
    """Return the edge module of a detector fitted to a few parts, and parts it has not seen."""
    kinds = {"scratch": 5, "pit": 5}
    fitted = make_line(LineConfig(texture="brushed", shape=(64, 96), ok=16, ng=kinds, seed=seed))
    torch.manual_seed(seed)
    net = DefectNet(DefectNetShape()).eval()
    scorer = fit(fitted, DetectConfig(steps=0, memory=64, folds=2, piece=32), net).scorer
    kinds = {"scratch": count // 4, "pit": count // 4}
    unseen = make_line(
        LineConfig(texture="brushed", shape=(64, 96), ok=count // 2, ng=kinds, seed=seed + 1000)
    )
    images = [{"pixels": np.ascontiguousarray(rgb(each.pixels))} for each in unseen]
    run = source_runner(EdgeGraph(trimmed(scorer), Thresholds(0.0, 1.0)).eval(), EDGE_CONFIG)
    # Limits amid the scores: where all verdicts are alike, none can flip.
    limits = np.quantile([float(run(one)["score"]) for one in images], [0.4, 0.7])
    return EdgeGraph(trimmed(scorer), Thresholds(*limits.tolist())).eval(), images


CONFIG = ExportConfig(
    inputs=("pixels",), outputs=("logits",), dynamic={"pixels": {0: ("n", 1, 256)}}
)
EDGE_CONFIG = ExportConfig(
    inputs=("pixels",), outputs=("score", "heat", "kinds", "verdict"), dynamic={"pixels": SIZES}
)
LARGER = {"pixels": np.zeros((70, 90, 3), np.uint8)}
"""Example of the export: sides that are no multiples of anything."""


def written(
    net: nn.Module | bytes,
    form: Format,
    held: Sequence[Arrays],
    config: ExportConfig,
    row: Row,
    reference: Callable[[Arrays], dict[str, np.ndarray]] | None = None,
    rounds: int = 0,
    example: Arrays | None = None,
) -> None:
    """Export one net and count what differs; a format that cannot is told in its row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"net{form.suffix}"
        asked = replace(ANY, rounds=rounds)
        try:
            card = ship(
                net, form, path, held, config, asked=asked, reference=reference, example=example
            )
        except FormatError as error:
            row.failed = row.failed or str(error)[:200]
            return
        row.bytes = max(row.bytes, card.size)
        if card.parity["run"]:
            row.add(card.parity)
        if form.name in card.latency:
            row.ms.append(card.latency[form.name]["median_ms"])


def onnx_of(net: nn.Module, example: Arrays, config: ExportConfig) -> bytes:
    """Return the net as ONNX, which OpenVINO's files are made of, too."""
    return export_onnx(net, [torch.from_numpy(example[n]) for n in config.inputs], config)


def int8_of(float32: bytes, task: Task) -> bytes:
    """Return the net in int8, calibrated on the held part; two filters of five layers stay float.

    As in the inspection's edge file the first one does; of the others the one that loses most.
    """
    # By the shift of all logits: of decisions, too few calibration images are near their limits.
    config = QdqConfig(threads=1, tolerance=0.0, most_float=1, float_start=1)
    return quantise(float32, batches(task.held[0]), answer_loss, config).model


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("export-parity", __doc__.splitlines()[0])
    made.add_argument("--seeds", type=int, default=5, help="trainings (default %(default)s)")
    made.add_argument("--steps", type=int, default=600, help="of training (default %(default)s)")
    made.add_argument("--formats", nargs="+", choices=list(FORMATS), help="default: all installed")
    made.add_argument("--inspection", type=int, default=1, help="inspection nets (default 1)")
    args = made.parse_args(argv)
    if args.smoke:
        args.seeds, args.steps, args.inspection = 1, 3, 0
    names = args.formats or list(SMOKE if args.smoke else FORMATS)
    absent = {name: FORMATS[name].available() for name in names}
    forms = [FORMATS[name] for name in names if not absent[name]]
    rows = {form.name: Row() for form in forms}
    edge_rows = {form.name: Row() for form in forms}
    int8_rows = {form.name: Row() for form in forms if form.from_onnx}
    accuracies = []
    parts = (6, 4, 4) if args.smoke else PARTS
    with threads(1), stopwatch() as timing:
        for seed in range(args.seed, args.seed + args.seeds):
            net, task = classifier(seed, args.steps, parts)
            accuracies.append(accuracy(net, task.test))
            held = batches(task.test[0])
            float32, run = onnx_of(net, held[0], CONFIG), source_runner(net, CONFIG)
            for form in forms:
                source = float32 if form.from_onnx else net
                written(source, form, held, CONFIG, rows[form.name], run, rounds=5)
            int8 = int8_of(float32, task)
            for name, row in int8_rows.items():
                written(int8, FORMATS[name], held, CONFIG, row, run)
        for seed in range(args.seed, args.seed + args.inspection):
            net, images = inspection(seed, 40)
            float32 = onnx_of(net, LARGER, EDGE_CONFIG)
            run = source_runner(net, EDGE_CONFIG)
            for form in forms:
                source = float32 if form.from_onnx else net
                written(source, form, images, EDGE_CONFIG, edge_rows[form.name], run, 3, LARGER)
    _show(rows, edge_rows, int8_rows)
    ran = [name for name, row in rows.items() if row.decisions and not row.failed]
    int8 = [row.flips / row.decisions for row in int8_rows.values() if row.decisions]
    emit(
        {
            "formats": ran,
            "formats_run": len(ran),
            "not_run": {
                n: absent[n] or rows[n].failed or "not run here" for n in names if n not in ran
            },
            "flips_fp32": sum(rows[name].flips + edge_rows[name].flips for name in ran),
            "decisions_fp32": sum(rows[name].decisions + edge_rows[name].decisions for name in ran),
            "flips_int8": max(int8, default=None),
            "max_rel": max((rows[name].max_rel for name in ran), default=None),
            "max_rel_inspection": max((edge_rows[name].max_rel for name in ran), default=None),
            "formats_inspection": [n for n, row in edge_rows.items() if row.decisions],
            "accuracy": float(np.mean(accuracies)),
            "rows": {name: _plain(row) for name, row in rows.items()},
            "rows_inspection": {name: _plain(row) for name, row in edge_rows.items()},
            "rows_int8": {name: _plain(row) for name, row in int8_rows.items()},
            "cpu_seconds": timing.cpu,
            "wall_seconds": timing.wall,
        },
        args,
    )


def _show(*groups: Mapping[str, Row]) -> None:
    titles = ("classifier, float32", "inspection net, float32", "classifier, int8")
    for title, rows in zip(titles, groups, strict=True):
        table(
            f"export-parity: {title}",
            ("format", "decisions", "flips", "max_rel", "bytes", "ms", "failed"),
            [(name, *_plain(row).values()) for name, row in rows.items()],
        )


def _plain(row: Row) -> dict[str, Any]:
    return {
        "decisions": row.decisions,
        "flips": row.flips,
        "max_rel": row.max_rel,
        "bytes": row.bytes,
        "ms": float(np.median(row.ms)) if row.ms else None,
        "failed": row.failed,
    }


if __name__ == "__main__":
    run_program("export-parity", main)
