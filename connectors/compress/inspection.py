"""An inspection model as a plan of compression sees it: bundle, images, promise.

The parts of the line keep the roles that they had in training: channels go and int8 ranges are
measured by images that the detector was trained on, thresholds are settled anew on the calibration
parts by what the compressed file itself says of them, and what is lost is told of the test parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.defects.training import MOST_EXPORTED, grouped
from kernels.compression.export import ExportError
from kernels.compression.mixed import MixedConfig, narrowest
from kernels.compression.pruning.errors import PruningError
from kernels.compression.qdq import QdqConfig, quantise
from kernels.compression.sensitivity import LayerSensitivity, measure_sensitivity
from tasks.compress.device import CompressError
from tasks.compress.footprint import Inputs
from tasks.compress.recipe import Recipe
from tasks.compress.subject import Lost, Made, Say
from tasks.defects import training
from tasks.defects.bundle.bundle import EDGE, DefectBundle
from tasks.defects.bundle.parts import digest_of
from tasks.defects.detect.detector import Detector
from tasks.defects.edge.build import EdgeConfig, export_float, score_loss
from tasks.defects.edge.format import INPUT, EdgeFile, read_facts
from tasks.defects.edge.pruned import PruneConfig, pruned, why_not
from tasks.defects.edge.session import EdgeSession
from tasks.defects.paired import compare_paired
from tasks.defects.promise.parts import scored
from tasks.defects.promise.rates import escape_rates, false_reject_rate
from tasks.defects.promise.thresholds import Promise, Promised
from tasks.defects.samples import Sample, parts_of, rgb
from tasks.defects.scorer import Scorer

Scores = NDArray[np.float64]
_SKETCHED = QdqConfig(rules=("min-max",), most_float=0, correct_bias=False, float_start=1)
_PAGE = 4_096
"""Bytes that what an edge file tells of itself takes at most."""
_RANKED = 8
"""Images by which layers are compared."""


@dataclass(frozen=True, slots=True)
class _Shipped:
    """An edge file with the thresholds and the promise that are its own."""

    edge: EdgeFile
    promised: Promised


@dataclass(slots=True)
class InspectionSubject:
    """A bundle of an inspection model with the images it was made of.

    Attributes:
        bundle: The model.
        samples: Images by role: train, calibration, test.
        repair: How pruned nets are trained.
        edge: How edge files are made.
    """

    bundle: DefectBundle
    samples: Mapping[str, Sequence[Sample]]
    repair: PruneConfig = field(default_factory=lambda: PruneConfig(share=0.3))
    edge: EdgeConfig = field(default_factory=EdgeConfig)
    family: str = "inspection"
    _detector: Detector = field(init=False)
    _floats: tuple[Promised, Scores] | None = field(init=False, default=None)
    _float_files: dict[float, bytes] = field(init=False, default_factory=dict)
    _pruned: dict[float, Scorer] = field(init=False, default_factory=dict)
    _shipped: dict[str, _Shipped] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Open the detector, and refuse data that cannot carry a comparison."""
        self._detector = self.bundle.detector()
        missing = [role for role in ("train", "calibration", "test") if not self.samples.get(role)]
        if missing:
            raise CompressError(
                f"{self.name}: no {missing[0]} images are left of those it was made with; give the "
                "folder that it was trained on"
            )

    @property
    def name(self) -> str:
        """Of the line."""
        return self.bundle.manifest.dataset

    def can(self) -> Mapping[str, str]:
        """Return the methods, and why one cannot be used."""
        return {
            "float": "",
            "int8": "",
            "int8+int4": "",
            "dynamic": "its filters run faster with ranges fixed before",
            "prune": why_not(self._detector.scorer),
        }

    def example(self) -> Inputs:
        """Return one image of the line."""
        return _input(self.samples["test"][0])

    def whole(self) -> bytes:
        """Return the detector as a float ONNX file."""
        return self._sketched(0.0)

    def sketch(self, recipe: Recipe) -> bytes:
        """Return a file of the recipe's size and speed, without training."""
        try:
            model = self._sketched(recipe.prune)
            if recipe.bits == "float":
                return model
            images = self._inputs(4)
            eight = quantise(model, images, score_loss, _SKETCHED).model
            return eight if recipe.bits == "int8" else narrowest(eight, images)
        except (PruningError, ExportError) as error:
            raise CompressError(str(error)) from error

    def make(self, recipe: Recipe, say: Say, size: int = 0) -> Made:
        """Carry the recipe out: prune and repair, quantise, settle the file's own thresholds.

        See `Subject`.
        """
        train, calibration = self.samples["train"], self.samples["calibration"]
        if recipe.prune not in self._pruned:
            if recipe.prune:
                taken = f"{recipe.prune:.0%} of the products"
                say(f"pruning {taken}, repairing {self.repair.steps} steps")
            self._pruned[recipe.prune] = self._scorer(recipe.prune, self.repair)
        say(f"exporting {recipe.name}")
        proof = [sample.pixels for sample in [*self.samples["test"], *calibration]]
        bits = read_facts(self.bundle.read(EDGE)).bits
        mixed = MixedConfig(size=max(1, size - _PAGE) if size else 0)
        config = replace(
            self.edge,
            int8=recipe.bits != "float",
            four_bits=mixed if recipe.bits == "int8+int4" else None,
            bits=bits,
        )
        try:
            edge, promised = training.export(
                self._pruned[recipe.prune],
                self._of_detector()[0],
                calibration,
                [sample.pixels for sample in train[:: max(1, len(train) // MOST_EXPORTED)]],
                proof[:MOST_EXPORTED],
                config,
            )
        except ExportError as error:
            raise CompressError(str(error)) from error
        self._shipped[recipe.name] = _Shipped(edge, promised)
        return Made(
            model=edge.model,
            facts={**edge.record.facts, "thresholds": training.promise_record(promised)},
            files={"parity.json": edge.record.to_json().encode()},
        )

    def lost(self, made: Made) -> Lost:
        """Compare the file with the float detector on the test parts."""
        shipped = next(one for one in self._shipped.values() if one.edge.model == made.model)
        test = self.samples["test"]
        promised, before = self._of_detector()
        session = EdgeSession(made.model)
        after = np.array([session.judge(one.pixels).score for one in test], dtype=np.float64)
        defective = np.array([sample.label == "ng" for sample in test], dtype=np.bool_)
        parts = parts_of(test)
        try:
            result = compare_paired(defective, parts, before, after)
        except ValueError as error:
            raise CompressError(f"{self.name}: {error}") from error
        own, others = shipped.promised.thresholds, promised.thresholds
        flips = sum(
            own.verdict(float(a)) != others.verdict(float(b))
            for a, b in zip(after, before, strict=True)
        )
        return Lost(
            figure="AUROC",
            before=result.first,
            after=result.second,
            low=result.low,
            high=result.high,
            items=len(test),
            flips=flips,
            beyond=beyond_promise(test, after, shipped.promised),
        )

    def layers(self, recipe: Recipe) -> list[LayerSensitivity]:
        """Return what each layer of a recipe's float file loses alone in 8 and in 4 bits."""
        return measure_sensitivity(
            self._shipped[recipe.name].edge.float32, self._inputs(_RANKED), score_loss, _SKETCHED
        )

    def shipped(self, recipe: Recipe) -> tuple[EdgeFile, Promised, Promised]:
        """Return the edge file of a recipe that was made, its promise, and the float detector's."""
        found = self._shipped[recipe.name]
        return found.edge, found.promised, self._of_detector()[0]

    def _inputs(self, most: int) -> list[Inputs]:
        """Return images that the detector was trained on, spread over all of them."""
        train = self.samples["train"]
        return [_input(sample) for sample in train[:: max(1, len(train) // most)][:most]]

    def _sketched(self, share: float) -> bytes:
        """Return the float file with a share of the products taken out, untrained, made once."""
        if share not in self._float_files:
            untrained = replace(self.repair, steps=0, rounds=1)
            self._float_files[share] = export_float(self._scorer(share, untrained))
        return self._float_files[share]

    def _scorer(self, share: float, config: PruneConfig) -> Scorer:
        if not share:
            return self._detector.scorer
        images = [sample.pixels for sample in self.samples["train"]]
        return pruned(self._detector.scorer, images, replace(config, share=share))

    def _of_detector(self) -> tuple[Promised, Scores]:
        """Return the float detector's thresholds by the bundle's promise, and its test scores."""
        if self._floats is None:
            asked = Promise(**self.bundle.promise["promise"])
            calibration, test = (
                [one.score for one in training.judge(self._detector, self.samples[role])]
                for role in ("calibration", "test")
            )
            promised = training.settle(self.samples["calibration"], calibration, asked)
            self._floats = promised, np.array(test, dtype=np.float64)
        return self._floats


def _input(sample: Sample) -> Inputs:
    return {INPUT: np.ascontiguousarray(rgb(sample.pixels))}


def beyond_promise(test: Sequence[Sample], scores: Scores, promised: Promised) -> int:
    """Return how many test parts are decided wrongly above the shares that were promised."""
    ng, ok = scored(test, [float(one) for one in scores])
    limits, asked = promised.thresholds, promised.promise
    over = 0
    if asked.max_escape is not None and len(ng):
        found = escape_rates(ng, limits)[0]
        over += max(0, found.wrong - int(asked.max_escape * found.parts))
    if asked.max_false_reject is not None and len(ok):
        rejected = false_reject_rate(ok, limits)
        over += max(0, rejected.wrong - int(asked.max_false_reject * rejected.parts))
    return over


def read_subject(bundle: Path, folder: Path, options: Any = None) -> InspectionSubject:
    """Return a bundle with the images that it was made of.

    Args:
        bundle: Folder of the bundle.
        folder: Images that it was trained on, with their labels.
        options: How the folder is read (`DatasetOptions`).

    Raises:
        CompressError: Images were altered or are missing.
    """
    from connectors.defects.training import opened

    model = DefectBundle.load(bundle)
    roles: dict[str, list[Sample]] = {"train": [], "calibration": [], "test": []}
    with opened(folder, options) as dataset:
        names = model.images["image"].to_list()
        if missing := sorted(set(names) - set(dataset.frame["name"])):
            raise CompressError(
                f"{folder}: {missing[0]} is missing, which the model was made with; give its folder"
            )
        made_with = model.images.select("digest", "role").iter_rows()
        for sample, (digest, role) in zip(grouped(dataset, names), made_with, strict=True):
            if digest_of(sample.pixels) != digest:
                raise CompressError(
                    f"{folder}: {sample.name} is not the image that the model was made with; "
                    "restore it, or train again"
                )
            roles[role].append(sample)
    return InspectionSubject(model, roles)
