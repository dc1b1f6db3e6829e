"""Reasons of an answer: up to four groups of features that raised the score, in plain words.

Contributions are exact for the head that scored: path-dependent for trees, against the bundle's
background for linear parts. They count the features as the caller could change them; what the
network of a graph head tells the trees is one group of its own.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from connectors.api.served_model import ReasonOut

if TYPE_CHECKING:
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.heads.head import Head
    from tasks.fraud.online.model import OnlineModel
    from tasks.fraud.online.rows import OnlineRows

logger = logging.getLogger(__name__)

HEADS_FILE = "heads.json"


class ReasonMaker:
    """Explains the heads of one bundle that can be explained exactly."""

    def __init__(self, bundle: Bundle) -> None:
        from tasks.explain.groups import FeatureGroups
        from tasks.explain.tree import Background
        from tasks.explain.wording import Wording
        from tasks.fraud.graph.model import SIGNALS

        self._bundle = bundle
        self._heads = _explainable(bundle)
        self._wording = Wording(bundle.config.decimals)
        columns = [entity.column for entity in bundle.config.entities]
        self._names: dict[str, tuple[str, ...]] = {}
        self._groups: dict[str, Any] = {}
        self._background: dict[str, Background] = {}
        for name in self._heads:
            signals = bundle.needs_graph(name)
            names = (*bundle.feature_names, *(SIGNALS if signals else ()))
            self._names[name] = names
            self._groups[name] = FeatureGroups.of(names, columns)
            self._background[name] = Background(names, bundle.background(signals=signals))

    def explains(self, head: str) -> bool:
        """Tell whether a head's scores can be explained."""
        return head in self._heads

    def __call__(
        self, rows: OnlineRows, features: NDArray[np.float32], head: str, online: OnlineModel
    ) -> list[list[ReasonOut]]:
        """Return the reasons of every row, strongest first."""
        from tasks.explain.reasons import rank_reasons
        from tasks.fraud.heads.explain import explain_head

        values = features
        if self._bundle.needs_graph(head):
            inputs = online.inputs(rows, features, head)
            values = np.concatenate([features, self._bundle.signals(inputs, head=head)], axis=1)
        names, groups = self._names[head], self._groups[head]
        explained = explain_head(self._heads[head], names, values, self._background[head])
        ranked = rank_reasons(explained, values, groups, wording=self._wording)
        sums = np.maximum(groups.sums(explained.values), 0.0).sum(axis=1)
        return [
            [ReasonOut(r.group, r.text, round(r.contribution / total, 4)) for r in reasons]
            for reasons, total in zip(ranked, sums.tolist(), strict=True)
        ]


def _explainable(bundle: Bundle) -> dict[str, Head]:
    from tasks.fraud.bundle.format import BundleError
    from tasks.fraud.heads.files import head_from_dict
    from tasks.fraud.heads.head import HeadError

    try:
        stored = json.loads(bundle.read_extra(HEADS_FILE))
    except BundleError:
        return {}
    heads = {}
    for name in set(stored) & set(bundle.heads):
        try:
            heads[name] = head_from_dict(stored[name])
        except HeadError as error:
            logger.warning("head %r of %s gets no reasons: %s", name, bundle.folder, error)
    return heads
