"""Export with proof: write beside the target, run on held data, and only then move into place."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.compression.export import ExportConfig, ExportError
from kernels.compression.formats.card import (
    Card,
    card_path,
    digest_of,
    held_path,
    size_of,
    tensors_told,
)
from kernels.compression.formats.decisions import Apart, compare
from kernels.compression.formats.onnx_file import onnx_runner
from kernels.compression.formats.protocol import (
    Arrays,
    Format,
    FormatError,
    FormatUnavailableError,
    Local,
    Opened,
    Source,
    Written,
)
from kernels.compression.formats.table import format_named
from kernels.compression.formats.torch_export import torch_runner

WARM = 2


class ParityFailedError(FormatError):
    """The file decides otherwise than the net; it was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipConfig:
    """What is asked of an exported file.

    Attributes:
        flips: Share of the decisions that may differ: 0 for float nets, .005 for int8.
        max_rel: Largest drift, see `kernels.compression.formats.decisions.Apart`.
        limit: A single score at or above it is a yes.
        rounds: Runs of each engine for the latency table; 0 leaves it out.
        keep: Bytes of held inputs that are kept beside the file, to check it elsewhere.
        held: What the held inputs are, in words.
    """

    flips: float = 0.0
    max_rel: float = 1e-3
    limit: float = 0.5
    rounds: int = 20
    keep: int = 32 * 2**20
    held: str = "given"

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 0 <= self.flips < 1 or not self.max_rel > 0 or self.rounds < 0 or self.keep < 0:
            raise ValueError("0 <= flips < 1, max_rel > 0, rounds >= 0 and keep >= 0 are needed")


def ship(
    source: Source,
    form: Format,
    path: Path,
    held: Sequence[Arrays],
    config: ExportConfig,
    *,
    asked: ShipConfig | None = None,
    reference: Callable[[Arrays], dict[str, NDArray[Any]]] | None = None,
    example: Arrays | None = None,
) -> Card:
    """Export to a format; what comes to lie at ``path`` has decided as the source does.

    Args:
        source: Module in evaluation mode, or an ONNX file.
        form: The format.
        path: Where to; what lies there is replaced, card and held inputs beside it too.
        held: Inputs by name that the source was neither trained nor calibrated on.
        config: Names and free sizes.
        asked: What is asked of the file.
        reference: What to hold it against; None: the source itself.
        example: Input that graphs are traced with, free sizes larger than 1 in it; None: the first
            of ``held``.

    Raises:
        FormatUnavailableError: When the format is not installed.
        FormatError: When the source does not become a file, or inputs do not fit.
        ParityFailedError: When the file decides otherwise or drifts too far.
    """
    asked = asked or ShipConfig()
    if reason := form.available():
        raise FormatUnavailableError(reason)
    _require_inputs(held, config)
    if isinstance(source, bytes) and not form.from_onnx:
        raise FormatError(
            f"an ONNX file does not become {form.name}; export the trained net, or take onnx or "
            "openvino"
        )
    wanted = Local(reference or source_runner(source, config))
    with closing(wanted):
        answers = [wanted(one).outputs for one in held]
        traced = held[0] if example is None else example
        tensors = [torch.from_numpy(np.ascontiguousarray(traced[n])) for n in config.inputs]
        with _draft(path) as draft:
            written = _write(form, source, tensors, draft / path.name, config)
            parity, latency = _proof(form, draft / path.name, held, config, wanted, answers, asked)
            card = _card(form, written, held[0], answers[0], config, parity, latency)
            _keep_held(draft / held_path(path).name, held, answers, asked.keep)
            (draft / card_path(path).name).write_text(card.to_json(), encoding="utf-8")
            _publish(draft, path, written)
    return card


def recheck(path: Path, asked: ShipConfig | None = None) -> tuple[Card, Apart]:
    """Run an exported file here on the held inputs beside it, against the answers kept with them.

    Raises:
        FormatError: When something is missing or broken, or does not run here.
        ParityFailedError: When it decides otherwise than when it was exported.
    """
    card = Card.read(path)
    form = format_named(card.format)
    if not form.runs:
        raise FormatError(f"{path}: {card.format} is not run here")
    beside = held_path(path)
    if not beside.is_file():
        raise FormatError(f"{path}: no held inputs {beside.name} lie beside it; copy them along")
    held, answers = _read_held(beside, card.config)
    told = card.parity
    asked = asked or ShipConfig(
        flips=float(told["flips_allowed"]),
        max_rel=float(told["max_rel_allowed"]),
        limit=float(told["limit"]),
    )
    with closing(form.open(path, card.config)) as opened:
        apart = _compared([opened(one).outputs for one in held], answers, asked, card.format)
    return card, apart


def source_runner(
    source: Source, config: ExportConfig
) -> Callable[[Arrays], dict[str, NDArray[Any]]]:
    """Return what a source answers, by the names of the configuration."""
    if isinstance(source, bytes):
        made: Callable[[Arrays], dict[str, NDArray[Any]]] = onnx_runner(source, "model", config)
    else:
        made = torch_runner(source, config)
    return made


def _require_inputs(held: Sequence[Arrays], config: ExportConfig) -> None:
    if not held:
        raise FormatError("no held inputs: give some that the net was not trained on")
    first = held[0]
    for place, one in enumerate(held):
        if set(one) != set(config.inputs):
            raise FormatError(f"held input {place} has {sorted(one)}, not {sorted(config.inputs)}")
        for name, array in one.items():
            free = config.dynamic.get(name, {})
            fits = array.ndim == first[name].ndim and all(
                free[axis][1] <= size <= free[axis][2] if axis in free else size == known
                for axis, (size, known) in enumerate(
                    zip(array.shape, first[name].shape, strict=False)
                )
            )
            if array.dtype != first[name].dtype or not fits:
                sizes = {one: (least, most) for one, least, most in free.values()}
                raise FormatError(
                    f"held input {place}: {name} is {array.dtype} {array.shape}, which does not "
                    f"fit {first[name].dtype} {first[name].shape}, free sizes {sizes or 'none'}"
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise FormatError(f"held input {place}: {name} holds values that are no numbers")


def _write(
    form: Format, source: Source, example: Sequence[Tensor], path: Path, config: ExportConfig
) -> Written:
    try:
        return form.write(source, example, path, config)
    except ExportError as error:
        raise FormatError(str(error)) from error


def _proof(
    form: Format,
    path: Path,
    held: Sequence[Arrays],
    config: ExportConfig,
    wanted: Opened,
    answers: Sequence[Mapping[str, NDArray[Any]]],
    asked: ShipConfig,
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Run the file on all held inputs; return what the card says of parity and latency."""
    told: dict[str, Any] = {
        "flips_allowed": asked.flips,
        "max_rel_allowed": asked.max_rel,
        "limit": asked.limit,
        "held": asked.held,
        "inputs": len(held),
    }
    if not form.runs:
        return {"run": False, **told}, {}
    with closing(form.open(path, config)) as opened:
        apart = _compared([opened(one).outputs for one in held], answers, asked, form.name)
        latency = _latency({"source": wanted, form.name: opened}, held[0], asked.rounds)
    return {"run": True, **told, **asdict(apart)}, latency


def _compared(
    found: Sequence[Mapping[str, NDArray[Any]]],
    answers: Sequence[Mapping[str, NDArray[Any]]],
    asked: ShipConfig,
    name: str,
) -> Apart:
    try:
        apart = compare(answers, found, asked.limit)
    except ValueError as error:
        raise ParityFailedError(f"{name}: the file does not answer as the net: {error}") from error
    if apart.share > asked.flips:
        raise ParityFailedError(
            f"{name}: {apart.flips} of {apart.decisions} decisions on held data differ, at most "
            f"{asked.flips:.2%} may (largest drift {apart.max_rel:.3g})"
        )
    if not apart.max_rel <= asked.max_rel:
        raise ParityFailedError(
            f"{name}: values drift by {apart.max_rel:.3g} of the largest, at most "
            f"{asked.max_rel:g} is allowed; no decision of {apart.decisions} is worse than allowed"
        )
    return apart


def _latency(
    engines: Mapping[str, Opened], inputs: Arrays, rounds: int
) -> dict[str, dict[str, float]]:
    """Return CPU milliseconds on one thread; the engines take turns, so that all slow alike."""
    taken: dict[str, list[float]] = {name: [] for name in engines}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(WARM + rounds if rounds else 0):
            for name, engine in engines.items():
                taken[name].append(engine(inputs).ms)
    finally:
        torch.set_num_threads(before)
    return {
        name: {
            "median_ms": float(np.median(ms[WARM:])),
            "p99_ms": float(np.quantile(ms[WARM:], 0.99)),
        }
        for name, ms in taken.items()
        if ms
    }


def _card(
    form: Format,
    written: Written,
    example: Arrays,
    answer: Mapping[str, NDArray[Any]],
    config: ExportConfig,
    parity: Mapping[str, Any],
    latency: Mapping[str, Mapping[str, float]],
) -> Card:
    free = config.dynamic if written.dynamic else {}
    return Card(
        format=form.name,
        file=written.files[0].name,
        digests={one.name: digest_of(one) for one in written.files},
        size=sum(size_of(one) for one in written.files),
        inputs=tensors_told({name: example[name] for name in config.inputs}, free),
        outputs=tensors_told(answer),
        free={n: {str(a): list(one) for a, one in axes.items()} for n, axes in free.items()},
        version=written.version,
        producers=written.producers,
        parity=parity,
        latency=latency,
        notes=written.notes,
    )


def _keep_held(
    path: Path,
    held: Sequence[Arrays],
    answers: Sequence[Mapping[str, NDArray[Any]]],
    most: int,
) -> None:
    """Write as many of the held inputs as have room, without pickle."""
    kept: dict[str, Any] = {}
    size = 0
    for place, (one, answer) in enumerate(zip(held, answers, strict=True)):
        size += sum(array.nbytes for array in (*one.values(), *answer.values()))
        if size > most:
            break
        kept |= {f"{place}/in/{name}": array for name, array in one.items()}
        kept |= {f"{place}/out/{name}": array for name, array in answer.items()}
    if kept:
        np.savez(path, **kept)


def _read_held(
    path: Path, config: ExportConfig
) -> tuple[list[dict[str, NDArray[Any]]], list[dict[str, NDArray[Any]]]]:
    held, answers, place = [], [], 0
    try:
        with np.load(path, allow_pickle=False) as file:
            while f"{place}/in/{config.inputs[0]}" in file.files:
                held.append({name: file[f"{place}/in/{name}"] for name in config.inputs})
                answers.append({name: file[f"{place}/out/{name}"] for name in config.outputs})
                place += 1
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(f"{path}: is broken ({error}); export again") from error
    if not held:
        raise FormatError(f"{path}: holds no inputs of this file; export again")
    return held, answers


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """Yield a folder beside the target, which goes in any case."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(draft: Path, path: Path, written: Written) -> None:
    """Move all into place, the named file last; a card that came first refuses an older file."""
    names = [held_path(path).name, card_path(path).name]
    names += [one.name for one in reversed(written.files)]
    for one in (draft / name for name in names):
        if not one.exists():
            path.with_name(one.name).unlink(missing_ok=True)
            continue
        if one.is_file():
            with one.open("rb") as file:
                os.fsync(file.fileno())
        target = path.with_name(one.name)
        if target.is_dir() and one.is_dir():  # a folder is not replaced in one step
            target.rename(draft / f"old-{one.name}")
        one.replace(target)
