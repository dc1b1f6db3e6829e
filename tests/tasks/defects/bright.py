"""A scorer for tests whose scores are known beforehand: how bright the brightest cell is."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import torch
from torch.nn import functional

from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.boxes.config import BoxConfig
from tasks.defects.boxes.detector import BoxDetector
from tasks.defects.boxes.fit import fit_boxes
from tasks.defects.bundle.parts import IMAGES, BundleParts, digest_of
from tasks.defects.edge.build import EdgeConfig, build_edge
from tasks.defects.promise.parts import Scored
from tasks.defects.promise.thresholds import Promise, promised_thresholds
from tasks.defects.samples import DEEPEST, Box, Sample
from tasks.defects.scorer import Scorer, Scores
from tasks.defects.training import promise_record


class BrightScorer(Scorer):
    """Scores by the brightest cell of 4 x 4 pixels, times a sign."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__(("spot", "unknown"), None)
        self.register_buffer("sign", torch.tensor(sign))

    def forward(self, pixels):
        """Judge float [n, 3, h, w]."""
        heat = functional.avg_pool2d(pixels.mean(1, keepdim=True), 4, ceil_mode=True)
        score = self.sign * heat.amax(dim=(1, 2, 3))
        return Scores(score, heat, torch.stack([score, 1 - score], dim=1))


def plate(number: int, spot: int = 0, side: int = 32):
    """A gray image unlike those of other numbers; with a spot of 8 x 8 pixels if it is above 0."""
    pixels = np.random.default_rng(number).integers(60, 100, (side, side), dtype=np.uint8)
    if spot:
        pixels[8:16, 8:16] = spot
    return pixels


def box_detector(told: float = 0.0) -> BoxDetector:
    """A hardly trained detector of boxes, which tells whatever reaches a score."""
    torch.manual_seed(0)
    net = DefectNet(DefectNetShape(8, (8, 8, 8), (1, 1, 1), 8)).eval()
    box = Box(8, 8, 16, 16)
    samples = [
        Sample(f"{kind}/{i}.png", plate(i, level), "ng", kind, boxes=(box,))
        for kind, level in (("bright", 230), ("dim", 150))
        for i in range(3)
    ]
    config = BoxConfig(steps=2, batch=2, piece=32, most=5, told=told)
    return fit_boxes(samples, config, net)


def promised():
    """Thresholds of made-up calibration parts."""
    ok = Scored(np.linspace(0.2, 0.4, 60), [f"ok {i}" for i in range(60)])
    ng = Scored(np.linspace(0.6, 0.9, 60), [f"ng {i}" for i in range(60)])
    return promised_thresholds(Promise(0.1, 0.1), ng, ok)


def parts(
    sign: float = 1.0, *, dataset: str = "plates", learnt=(), bits: int = DEEPEST
) -> BundleParts:
    """What a bundle of the scorer is made from; it learnt from the images given."""
    limits = promised()
    images = [plate(number, 200 * (number % 2)) for number in range(8)]
    config = EdgeConfig(int8=False, bits=bits)
    edge = build_edge(BrightScorer(sign).eval(), limits.thresholds, images, config=config)
    rows = [(f"{i}.png", digest_of(one), f"p{i}", "train") for i, one in enumerate(learnt)]
    return BundleParts(
        dataset=dataset,
        data_digest="0" * 64,
        git_commit="unknown",
        edge=edge.model,
        parity=json.loads(edge.record.to_json()),
        detector=b"weights",
        detector_facts={},
        thresholds=promise_record(limits),
        metrics={"test": {"auroc": 1.0}},
        images=pl.DataFrame(rows, schema=IMAGES, orient="row"),
        example=np.stack([np.repeat(one[:, :, None], 3, axis=2) for one in images[:4]]),
        card="# Inspection model of plates\n",
    )
