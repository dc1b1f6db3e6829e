"""Quantize: nets in 8 and 4 bits against themselves in 32: size, time, accuracy.

For each seed ResNet-18, MobileNetV2 and a small transformer learn nine kinds of surface (64 x 64
pixels). Ranges and choices come from the held part, accuracy from the test part alone. Training on
the grid of the int8 file sees the float net's answers and no labels, so that it cannot get ahead by
more training. Times are CPU time of one thread, batch 1 at 224 pixels, all contenders in turns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torchvision.models
from numpy.typing import NDArray
from torch import nn

from kernels.compression.distillation import DistillationConfig, Learner
from kernels.compression.export import ExportConfig, export_onnx
from kernels.compression.mixed import MixedConfig, mix
from kernels.compression.qat import QatConfig, QuantisedNet
from kernels.compression.qdq import QdqConfig, quantise
from kernels.compression.sessions import answers_to, open_session
from tests.benchmarks._compared import mean_interval, milliseconds
from tests.benchmarks._harness import emit, parser, run_program, table, threads
from tests.benchmarks._patches import Patches
from tests.benchmarks._seeds import add_trainings, over_seeds
from tests.benchmarks._texture_nets import add_kept, trained
from tests.benchmarks._texture_task import Part, Task, inputs, some_task, train

LATENCY_SIDE = 224
HELD_PER_INPUT = 20
RULES = ("min-max", "99.99", "mse")
NETS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": lambda n: torchvision.models.resnet18(weights=None, num_classes=n),
    "mobilenet_v2": lambda n: torchvision.models.mobilenet_v2(weights=None, num_classes=n),
    "transformer": Patches,
    "smoke": lambda n: Patches(n, 32, 2, 1),
}
KEYS = ("acc", "acc_ptq", "acc_qat", "acc_int4", "x_size", "int4_size_ratio")
Fed = list[dict[str, NDArray[np.float32]]]


def apart(reference: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of other decisions, and a hundredth of how far answers moved."""
    before = np.concatenate([one["logits"] for one in reference])
    after = np.concatenate([one["logits"] for one in answers])
    turned = float((before.argmax(1) != after.argmax(1)).mean())
    return turned + 0.01 * float(np.sqrt(np.mean((after - before) ** 2)) / before.std())


def fed(images: torch.Tensor) -> Fed:
    """Return images as inputs of a file, some at once."""
    return [{"pixels": inputs(some).numpy()} for some in images.split(HELD_PER_INPUT)]


def kept_float(whole: bytes) -> tuple[str, ...]:
    """Return what stays float in a transformer: products and sums of two activations.

    The sums are its shortcuts, through which all that is rounded would go on to the end.
    """
    graph = onnx.load_model_from_string(whole).graph
    if not any(node.op_type == "Softmax" for node in graph.node):
        return ()
    constants = {tensor.name for tensor in graph.initializer}
    kinds = {"MatMul", "Add"}
    return tuple(
        node.name
        for node in graph.node
        if node.op_type in kinds and not constants.intersection(node.input)
    )


def file_accuracy(file: bytes, part: Part) -> float:
    """Return the share of images that a file names right."""
    answers = answers_to(file, fed(part[0]), threads=1)
    named = np.concatenate([one["logits"] for one in answers]).argmax(1)
    return float((named == part[1].numpy()).mean())


def exported(net: nn.Module) -> bytes:
    """Return the float file, for batches of any size and images of any side."""
    dynamic = {"pixels": {0: ("batch", 1, 512)}}
    config = ExportConfig(inputs=("pixels",), outputs=("logits",), dynamic=dynamic)
    return export_onnx(net.eval(), [torch.zeros(2, 3, 64, 64)], config)


def held_inputs(task: Task, count: int) -> Fed:
    """Return held images of all kinds in turns."""
    images, labels = task.held
    order = torch.argsort(torch.arange(len(labels)) % (len(labels) // task.classes), stable=True)
    return fed(images[order[:count]])


def trained_on_grid(file: bytes, whole: bytes, net: nn.Module, task: Task, steps: int) -> bytes:
    """Return the int8 file after training on its grid, taught by the float net."""
    config = QatConfig(stages=((32, steps // 12), (16, steps // 12)))
    grid = QuantisedNet(file, config, float_file=whole)
    learner = Learner(
        grid, net, torch.zeros(2, 3, 64, 64), DistillationConfig(labels=0.0, answers=1.0)
    )

    def unlabelled(answers: torch.Tensor, batch: Any) -> tuple[torch.Tensor, int]:
        return answers.sum() * 0, len(batch[1])

    # On the CPU, as its file will compute.
    there = dataclasses.replace(task, device="cpu")
    train(learner, there, steps, 1e-4, learner.loss(unlabelled), begin=1_000_000)
    return grid.to_file()


def of_seed(seed: int, args: Any) -> list[tuple[dict[str, Any], nn.Module]]:
    """Return the figures of each net, and the float net."""
    task = some_task(seed, args)
    return [measured(name, task, args) for name in args.nets]


def measured(name: str, task: Task, args: Any) -> tuple[dict[str, Any], nn.Module]:
    """Return figures of one net and one task, and the float net."""
    torch.manual_seed(task.seed)
    kept = None if args.data else args.kept
    net = trained(name, NETS[name](task.classes), task, args.steps, kept)
    whole = exported(net)
    calibration = held_inputs(task, args.held)
    config = QdqConfig(
        rules=RULES[:1] if args.smoke else RULES,
        most_float=0,
        whole=True,
        threads=1,
        keep_float=kept_float(whole),
    )
    int8 = quantise(whole, calibration, apart, config)
    reference = answers_to(whole, calibration, threads=1)
    mixed = mix(
        int8.model, calibration, reference, apart,
        MixedConfig(tolerance=args.tolerance, ranking_inputs=2, threads=1),
    )  # fmt: skip
    better = trained_on_grid(int8.model, whole, net, task, args.qat_steps)
    row = {
        "seed": task.seed,
        "net": name,
        "acc": file_accuracy(whole, task.test),
        "acc_ptq": file_accuracy(int8.model, task.test),
        "acc_qat": file_accuracy(better, task.test),
        "acc_int4": file_accuracy(mixed.model, task.test),
        "x_size": len(whole) / len(better),
        "int4_size_ratio": len(mixed.model) / len(whole),
    }
    return row, net


def times(net: nn.Module, rounds: int, side: int, *, openvino: bool) -> dict[str, float]:
    """Return median CPU milliseconds of eager torch, ONNX Runtime and OpenVINO, one thread."""
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    names = ExportConfig(inputs=("pixels",), outputs=("logits",))
    whole = export_onnx(net.eval(), [example], names)
    given = {"pixels": example.numpy()}
    quick = QdqConfig(
        rules=("min-max",),
        correct_bias=False,
        most_float=0,
        threads=1,
        whole=True,
        keep_float=kept_float(whole),
    )
    int8 = quantise(whole, [given], apart, quick).model
    sessions = {n: open_session(f, threads=1) for n, f in (("ort", whole), ("ort_int8", int8))}
    files = {"openvino": whole, "openvino_int8": int8} if openvino else {}
    compiled = {n: _openvino(file) for n, file in files.items()}

    def eager() -> None:
        with torch.inference_mode():
            net(example)

    contenders: dict[str, Callable[[], object]] = {"eager": eager}
    contenders |= {n: lambda s=s: s.run(None, given) for n, s in sessions.items()}  # type: ignore[misc]
    contenders |= {n: lambda s=s: s.infer(given) for n, s in compiled.items()}  # type: ignore[misc]
    taken = milliseconds(contenders, rounds)
    return {name: float(np.median(each)) for name, each in taken.items()}


def _openvino(file: bytes) -> Any:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    return core.compile_model(core.read_model(file), "CPU", settings).create_infer_request()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("quantize", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of class folders, in the place of textures")
    add_trainings(made)
    made.add_argument("--steps", type=int, default=250, help="of training (default %(default)s)")
    made.add_argument("--qat-steps", type=int, default=48, help="on the grid (default %(default)s)")
    made.add_argument("--held", type=int, default=180, help="images to calibrate on")
    made.add_argument("--tolerance", type=float, default=0.01, help="loss that 4 bits may add")
    made.add_argument("--nets", nargs="+", default=list(NETS)[:3], choices=list(NETS), help="which")
    made.add_argument("--no-openvino", action="store_true", help="without the second engine")
    add_kept(made)
    args = made.parse_args(argv)
    if args.smoke:
        args.seeds, args.steps, args.qat_steps, args.held = 1, 1, 2, 18
        args.nets = ["smoke"]
    rounds, side = (3, 64) if args.smoke else (40, LATENCY_SIDE)
    with threads(1):
        found, cpu = over_seeds(partial(of_seed, args=args), args)
        timed = {
            row["net"]: times(net, rounds, side, openvino=not args.no_openvino)
            for row, net in found[0]
        }
    rows = [row for some in found for row, _ in some]
    nets = {
        name: _summary([r for r in rows if r["net"] == name], timed[name]) for name in args.nets
    }
    shown = [key for key in nets[args.nets[0]] if not key.endswith("_interval")]
    table("quantize", ("net", *shown), [(n, *(f[k] for k in shown)) for n, f in nets.items()])
    first = nets[args.nets[0]]
    emit({**first, "nets": nets, "rows": rows, "ms": timed, "cpu_seconds": cpu}, args)


def _summary(rows: Sequence[dict[str, Any]], ms: Mapping[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {key: float(np.mean([row[key] for row in rows])) for key in KEYS}
    for key, after in (
        ("acc_loss_ptq", "acc_ptq"),
        ("acc_loss_qat", "acc_qat"),
        ("int4_acc_loss", "acc_int4"),
    ):
        mean, low, high = mean_interval([row["acc"] - row[after] for row in rows])
        found |= {key: mean, f"{key}_interval": (low, high)}
    for ending, taken in (("", "ort_int8"), ("_openvino", "openvino_int8")):
        if taken in ms:
            found[f"x_ort_fp32{ending}"] = ms["ort"] / ms[taken]
            found[f"x_torch_eager{ending}"] = ms["eager"] / ms[taken]
    return found


if __name__ == "__main__":
    run_program("quantize", main)
