"""An ONNX file as a plan of compression sees it: quantised by examples, judged by others."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compression.export import ExportError
from kernels.compression.mixed import MixedConfig, mix, narrowest
from kernels.compression.onnx_wire import OnnxWireError, read_outline
from kernels.compression.qdq import QdqConfig, quantise
from kernels.compression.ranges import Outputs
from kernels.compression.sensitivity import LayerSensitivity, measure_sensitivity
from kernels.compression.sessions import answers_to
from tasks.compress.device import CompressError
from tasks.compress.footprint import Inputs
from tasks.compress.recipe import Recipe
from tasks.compress.subject import Lost, Made, Say

LABELS = "labels"
MOST_CALIBRATED = 64
MOST_BYTES = 2**30
LEAST_ITEMS = 32
RESAMPLES = 2_000
_SKETCHED = QdqConfig(rules=("min-max",), most_float=0, correct_bias=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxSubject:
    """A file and examples of its inputs; half of them calibrate, the others judge.

    Attributes:
        name: Of the model.
        model: The float file.
        items: Inputs of single items, each with a leading dimension of 1.
        labels: int64 [n], the right class of each; None: the float file's own decision.
        seed: Of the halves.
    """

    name: str
    model: bytes
    items: Sequence[Inputs]
    labels: NDArray[np.int64] | None = None
    seed: int = 0
    family: str = "onnx"

    def __post_init__(self) -> None:
        """Refuse examples that the file does not take, or that are no numbers."""
        if len(self.items) < LEAST_ITEMS:
            raise CompressError(
                f"{self.name}: {len(self.items)} examples; half calibrate and half judge, so give "
                f"{LEAST_ITEMS} or more"
            )
        if self.labels is not None and len(self.labels) != len(self.items):
            raise CompressError(
                f"{self.name}: {len(self.labels)} labels for {len(self.items)} examples"
            )
        for number, item in enumerate(self.items):
            for given, values in item.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise CompressError(
                        f"{self.name}: example {number} of {given} holds NaN or infinity; leave "
                        "it out, int8 ranges would be none"
                    )
        try:
            answers_to(self.model, self.items[:1], threads=1)
        except Exception as error:
            raise CompressError(
                f"{self.name}: the file does not run on example 0: {_first_line(error)}"
            ) from error

    def can(self) -> Mapping[str, str]:
        """Return the methods, and why one cannot be used."""
        return {
            "float": "",
            "int8": "",
            "int8+int4": "",
            "dynamic": "ranges fixed by the examples are faster and lose no more",
            "prune": "channels go before the export: prune the torch net, then export it",
        }

    def example(self) -> Inputs:
        """Return the first item."""
        return self.items[0]

    def whole(self) -> bytes:
        """Return the file."""
        return self.model

    def sketch(self, recipe: Recipe) -> bytes:
        """Return a file of the recipe's size and speed, calibrated by four items."""
        items = self.items[:4]
        try:
            eight = quantise(self.model, list(items), answer_loss, _SKETCHED).model
            return eight if recipe.bits == "int8" else narrowest(eight, items)
        except ExportError as error:
            raise CompressError(str(error)) from error

    def make(self, recipe: Recipe, say: Say, size: int = 0) -> Made:
        """Quantise, ranges and rounding chosen by the calibration half; see `Subject`."""
        say(f"quantising {recipe.name}")
        chosen, _ = self._halves()
        calibration = [self.items[place] for place in chosen[:MOST_CALIBRATED]]
        try:
            return self._quantised(recipe, calibration, size)
        except ExportError as error:
            raise CompressError(str(error)) from error

    def lost(self, made: Made) -> Lost:
        """Compare decisions with those of the float file, or with the labels, on the other half."""
        _, judged = self._halves()
        items = [self.items[place] for place in judged]
        before, after = (
            _decisions(answers_to(m, items, threads=1)) for m in (self.model, made.model)
        )
        wanted = before if self.labels is None else self.labels[judged]
        right = (before == wanted).astype(float), (after == wanted).astype(float)
        apart = right[0] - right[1]
        rng = np.random.default_rng(self.seed)
        drawn = apart[rng.integers(len(apart), size=(RESAMPLES, len(apart)))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Lost(
            figure="agreement" if self.labels is None else "accuracy",
            before=float(right[0].mean()),
            after=float(right[1].mean()),
            low=float(low),
            high=float(high),
            items=len(items),
            flips=int((before != after).sum()),
        )

    def layers(self, recipe: Recipe) -> list[LayerSensitivity]:
        """Return what each layer of the file loses alone in 8 and in 4 bits."""
        del recipe  # each begins with the same float file
        chosen, _ = self._halves()
        calibration = [self.items[place] for place in chosen[: _SKETCHED.ranking_inputs]]
        return measure_sensitivity(self.model, calibration, answer_loss, _SKETCHED)

    def _halves(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.random.default_rng(self.seed).permutation(len(self.items))
        return order[: len(order) // 2], order[len(order) // 2 :]

    def _quantised(self, recipe: Recipe, calibration: Sequence[Inputs], size: int) -> Made:
        made = quantise(self.model, list(calibration), answer_loss, QdqConfig())
        facts: dict[str, Any] = {"rule": made.rule, "losses": made.losses}
        if recipe.bits != "int8+int4":
            return Made(model=made.model, facts=facts)
        reference = answers_to(self.model, calibration, threads=1)
        config = MixedConfig(size=size)
        fewer = mix(made.model, list(calibration), reference, answer_loss, config)
        facts["four_bits"] = fewer.facts()
        return Made(model=fewer.model, facts=facts)


def answer_loss(reference: Sequence[Outputs], answers: Sequence[Outputs]) -> float:
    """Return the root mean square shift of the first output, in its own spread."""
    name = next(iter(reference[0]))
    first, second = (
        np.concatenate([np.asarray(one[name], dtype=np.float64).ravel() for one in each])
        for each in (reference, answers)
    )
    if not np.isfinite(second).all():
        return float("inf")
    return float(np.sqrt(np.square(second - first).mean()) / max(float(first.std()), 1e-9))


def read_onnx_subject(path: Path, data: Path) -> OnnxSubject:
    """Return a file with its examples.

    Args:
        path: ONNX file.
        data: ``.npz`` of arrays [n, ...] named as the file's inputs, and optionally ``labels``
            int64 [n].

    Raises:
        CompressError: No such file, a corrupt one, or arrays that do not fit.
    """
    for one in (path, data):
        if not one.is_file():
            raise CompressError(f"{one}: there is no such file")
        if one.stat().st_size > MOST_BYTES:
            raise CompressError(f"{one}: {one.stat().st_size:,} bytes, at most {MOST_BYTES:,}")
    model = path.read_bytes()
    try:
        read_outline(model)
    except OnnxWireError as error:
        raise CompressError(f"{path}: the file {error}") from error
    try:
        with np.load(data, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise CompressError(
            f"{data}: no npz of plain arrays ({error}); write it by np.savez"
        ) from error
    labels = arrays.pop(LABELS, None)
    lengths = {len(values) if values.ndim else 0 for values in arrays.values()}
    if len(lengths) != 1:
        raise CompressError(
            f"{data}: give arrays [n, ...] of one n, named as the inputs; there are "
            f"{', '.join(f'{n} {v.shape}' for n, v in arrays.items()) or 'none'}"
        )
    items = [
        {name: values[place : place + 1] for name, values in arrays.items()}
        for place in range(lengths.pop())
    ]
    return OnnxSubject(name=path.stem, model=model, items=items, labels=labels)


def _decisions(answers: Sequence[Outputs]) -> NDArray[np.int64]:
    """Return the place of the highest number of each item's first output."""
    first = [np.asarray(next(iter(one.values()))) for one in answers]
    return np.array([int(one.ravel().argmax()) for one in first], dtype=np.int64)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
