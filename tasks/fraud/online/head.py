"""A head of a bundle made ready for requests and streams: scores and reasons in microseconds.

Trees are computed by ``kernels.forest``, linear models in closed form, both from the bundle's
``heads.json``; of a head on mail and embeddings only the network stays in ONNX Runtime. Other
heads (small network, blend) are scored by ONNX Runtime as a whole and give no reasons. Whatever
computes, at loading its scores must be those of the bundle's own ONNX graph.
"""

from __future__ import annotations

import json
import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.bundle.folder import BundleError
from tasks.explain.additivity import TOLERANCE
from tasks.explain.background import Background
from tasks.explain.errors import AdditivityError
from tasks.explain.groups import FeatureGroups
from tasks.explain.reasons import Reason, ReasonRanker
from tasks.explain.ties import rounding_of, tied
from tasks.explain.wording import Wording
from tasks.fraud.bundle.bundle import SCORE_TOLERANCE
from tasks.fraud.bundle.heads import OnnxHead, split
from tasks.fraud.catalogue import bundle_catalogue, bundle_wording
from tasks.fraud.heads.calibration import Calibration
from tasks.fraud.heads.head import HeadError, check_features
from tasks.fraud.online.explanation import GroupContribution, HeadExplanation
from tasks.fraud.online.head_parts import Engine, LinearPart, Part, forest_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.explain.catalogue.binding import BoundCatalogue
    from tasks.explain.catalogue.model import Catalogue
    from tasks.explain.languages import Language
    from tasks.fraud.bundle import Bundle

logger = logging.getLogger(__name__)

Inputs = NDArray[np.float32]


class _Told(NamedTuple):
    """A row explained by group: mean and error [G]; ``single`` is the mean by feature [W]."""

    logit: float
    base: float
    mean: list[float]
    error: list[float]
    single: list[float]
    gap: float


class FastHead:
    """One head. Built by ``FastHead.load``; safe to share between threads that only score.

    A score takes two steps: ``inputs`` makes rows of W inputs of what the head reads (the features
    themselves, or with a network the features and its signals), the others take such rows.

    Attributes:
        name: Name of the head in its bundle.
        engine: What computes the scores.
        names: Names of the W inputs.
        has_network: Whether ``inputs`` runs a network over mail and embeddings.
    """

    def __init__(
        self,
        name: str,
        names: tuple[str, ...],
        part: Part | OnnxHead,
        calibration: Calibration,
        network: OnnxHead | None,
        ranker: ReasonRanker,
    ) -> None:
        self.name = name
        self.names = names
        self.engine: Engine = "onnx" if isinstance(part, OnnxHead) else part.engine
        self._part = part
        self._network = network
        self._calibration = calibration
        self._ranker = ranker
        self._group = _group_of_each(ranker.groups)

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        head: str = "",
        *,
        catalogue: Catalogue | None = None,
        language: Language = "en",
        reasons: bool = True,
    ) -> FastHead:
        """Build a head and compare it with the bundle's ONNX graph on the bundle's example.

        Args:
            bundle: A loaded bundle.
            head: Name of the head; empty: the active one.
            catalogue: Codes and words of the reasons; None: those the bundle holds.
            language: Language of the reasons.
            reasons: Whether reasons are made ready and tried, too; else the first one asked for
                takes about a second.

        Raises:
            BundleError: When the bundle has no such head, or its two forms score differently.
            tasks.explain.errors.CatalogueError: When the catalogue does not fit the features.
        """
        name = head or bundle.active
        words = catalogue or bundle_catalogue(bundle)
        made = _build(bundle, name, bundle_wording(bundle, language), words)
        _verify(made, bundle, reasons=reasons)
        return made

    @property
    def has_network(self) -> bool:
        """Whether ``inputs`` runs a network over mail and embeddings."""
        return self._network is not None

    @property
    def catalogue(self) -> BoundCatalogue:
        """The catalogue of the reasons, bound to the inputs; a letter is written with it."""
        return self._ranker.bound

    @property
    def explains(self) -> bool:
        """Whether ``reasons`` can be given."""
        return not isinstance(self._part, OnnxHead)

    def inputs(
        self,
        features: Inputs,
        *,
        mail: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        embeddings: NDArray[np.float32] | None = None,
    ) -> Inputs:
        """Return what the head scores, float32 [n, W]; arguments as ``Bundle.score``.

        Raises:
            BundleError: When the network lacks an input or gets one of another shape.
        """
        if self._network is None:
            return features
        feed = {"features": features, "mail": mail, "mask": mask, "embeddings": embeddings}
        signals = self._network.run(feed, self._network.outputs[-1])
        return np.concatenate([features, signals], axis=1, dtype=np.float32)

    def score(self, inputs: Inputs) -> NDArray[np.float64]:
        """Return calibrated fraud probabilities, float64 [n], of rows [n, W].

        Raises:
            HeadError: On another width or values that are not finite.
        """
        x = check_features(inputs, len(self.names))
        if isinstance(self._part, OnnxHead):
            return self._part.score({"features": x})
        return self._calibration.probability(self._part.logit(x))

    def score_row(self, row: Inputs) -> float:
        """Return the calibrated probability of one row [W].

        Raises:
            HeadError: On another width or values that are not finite.
        """
        self._check_row(row)
        if isinstance(self._part, OnnxHead):
            return float(self._part.score({"features": row[None]})[0])
        return self._calibration.probability_of(self._part.logit_of_row(row))

    def reasons(self, row: Inputs) -> list[Reason]:
        """Return what raised the score of one row [W], strongest first; empty when nothing did.

        Raises:
            HeadError: On a head without exact contributions (see ``explains``), another width or
                values that are not finite.
            tasks.explain.errors.AdditivityError: When contributions miss the score.
        """
        told = self._told(row)
        return self._ranker.of_row(told.mean, told.error, told.single, row)

    def explain(self, row: Inputs) -> HeadExplanation:
        """Return the whole explanation of one row [W]; its reasons are those of ``reasons``.

        Raises:
            HeadError, tasks.explain.errors.AdditivityError: As ``reasons``.
        """
        told, part, groups = self._told(row), self._explained_part(), self._ranker.groups
        order = sorted(range(len(told.mean)), key=lambda g: -told.mean[g])
        rounding = rounding_of(told.mean)
        contributions = []
        for g, after in zip(order, [*order[1:], None], strict=True):
            tie = after is not None and tied(
                told.mean[g], told.mean[after], told.error[g], told.error[after], rounding
            )
            contributions.append(
                GroupContribution(
                    groups.keys[g], groups.labels[g], told.mean[g], told.error[g], tie
                )
            )
        background = part.background
        return HeadExplanation(
            told.logit,
            told.base,
            tuple(contributions),
            tuple(self._ranker.of_row(told.mean, told.error, told.single, row)),
            told.gap,
            part.method,
            "" if background is None else background.sha256,
            0 if background is None else len(background.values),
            part.models,
        )

    @cached_property
    def _variance(self) -> NDArray[np.float64]:
        """Variance of each group over backgrounds [G]."""
        covariance, members = self._explained_part().covariance, self._ranker.groups.members
        return np.array([covariance[np.ix_(own, own)].sum() for own in members])

    def _told(self, row: Inputs) -> _Told:
        """Explain a row by group.

        Raises:
            HeadError, AdditivityError: See ``reasons``.
        """
        from kernels.ops.grouped import grouped_mean_and_error

        part = self._explained_part()
        self._check_row(row)
        logit, base, contributions = part.explain_row(row)
        groups = len(self._ranker.groups.keys)
        spread = grouped_mean_and_error(contributions, self._variance, self._group, groups)
        mean, error, single = (values.tolist() for values in spread)
        gap = abs(base + sum(mean) - logit)
        if not gap <= TOLERANCE * (1.0 + abs(logit)):
            raise AdditivityError(
                f"the explanation misses the score by {gap:.3g} log-odds: no reasons are given; "
                "load the model again"
            )
        return _Told(logit, base, mean, error, single, gap)

    def _explained_part(self) -> Part:
        if isinstance(self._part, OnnxHead):
            raise HeadError(
                f"head {self.name!r} is scored by ONNX Runtime and has no exact contributions; "
                "give no reasons, or ship a tree or logistic head"
            )
        return self._part

    def _check_row(self, row: Inputs) -> None:
        if row.shape != (len(self.names),) or not np.isfinite(row).all():
            check_features(row[None], len(self.names))  # names what is wrong


def _group_of_each(groups: FeatureGroups) -> NDArray[np.int64]:
    group = np.zeros(len(groups.meanings), np.int64)
    for number, members in enumerate(groups.members):
        group[list(members)] = number
    return group


def _build(bundle: Bundle, name: str, wording: Wording, catalogue: Catalogue) -> FastHead:
    from tasks.fraud.graph import SIGNALS

    names: tuple[str, ...] = bundle.feature_names
    network, graph = None, b""
    if bundle.needs_graph(name):
        names = (*names, *SIGNALS)
        network_graph, graph = split(bundle.read_extra(f"heads/{name}.onnx"))
        network = OnnxHead(name, network_graph)
    stored = _stored_head(bundle, name)
    fast = _fast_part(stored, bundle, names)
    part: Part | OnnxHead
    if fast is None:
        content = graph or bundle.read_extra(f"heads/{name}.onnx")
        part, calibration = OnnxHead(name, content), Calibration()
    else:
        part, calibration = fast
    groups = FeatureGroups.of(names, [e.column for e in bundle.config.entities])
    ranker = ReasonRanker(groups, wording=wording, catalogue=catalogue)
    return FastHead(name, names, part, calibration, network, ranker)


def _stored_head(bundle: Bundle, name: str) -> Mapping[str, Any]:
    """Return the JSON form of a head; empty where the bundle has none."""
    if "heads.json" not in bundle.manifest.files:
        return {}
    try:
        found: Mapping[str, Any] = json.loads(bundle.read_extra("heads.json")).get(name, {})
    except (json.JSONDecodeError, AttributeError) as error:
        raise BundleError(f"{bundle.folder}: heads.json holds no heads: {error}") from error
    return found


def _fast_part(
    stored: Mapping[str, Any], bundle: Bundle, names: tuple[str, ...]
) -> tuple[Part, Calibration] | None:
    """Return the trees or the linear model of a head, and its calibration; None: other kinds."""
    from kernels.forest import ForestError
    from tasks.fraud.heads.files import head_from_dict
    from tasks.fraud.heads.logistic import LogisticScorer

    try:
        kind = stored["scorer"]["kind"] if stored else ""
        if kind == "trees":
            trees = forest_part(stored["scorer"], len(names), _background(bundle, names))
            return trees, Calibration(**stored["calibration"])
        if kind == "logistic":
            head = head_from_dict(stored)
            if isinstance(head.scorer, LogisticScorer):
                background = _background(bundle, names)
                if background is None:
                    return None
                return LinearPart(head.scorer, background), head.calibration
    except (KeyError, TypeError, ValueError) as error:
        known = isinstance(error, ForestError | HeadError | BundleError)
        reason = str(error) if known else f"lacks or misuses {error}"
        raise BundleError(f"{bundle.folder}: stored head {reason}") from error
    return None


def _background(bundle: Bundle, names: tuple[str, ...]) -> Background | None:
    """Return the background of what a head reads; None, which is logged, for an old bundle."""
    signals = len(names) > len(bundle.feature_names)
    values = bundle.background_or_none(signals=signals)
    if values is None:
        logger.warning(
            "%s has no background%s: trees are explained by their own branch counts, linear heads "
            "not at all; train and publish again",
            bundle.folder,
            " with the network's signals" if signals else "",
        )
        return None
    return Background(names, values)


def _verify(made: FastHead, bundle: Bundle, *, reasons: bool) -> None:
    """Compare a head with its ONNX graph on the example; this also compiles what it will run."""
    feed = _example(bundle, made)
    expected = bundle.score(**feed, head=made.name)
    inputs = made.inputs(**feed)
    # As many rows as a batch has take another way than a few.
    repeated = np.tile(inputs, (-(-32 // len(inputs)), 1))
    found = [made.score(repeated)[: len(inputs)], made.score(inputs[:1])]
    found.append(np.array([made.score_row(row) for row in inputs]))
    # NumPy's maximum keeps a score that is no number; Python's may lose it.
    worst = float(np.max([np.abs(f - expected[: len(f)]).max() for f in found]))
    if not worst <= SCORE_TOLERANCE:
        raise BundleError(
            f"{bundle.folder}: head {made.name!r} of heads.json scores the example up to "
            f"{worst:.2g} away from its ONNX graph; train and publish again"
        )
    if made.explains and reasons:
        try:
            for row in inputs:
                made.reasons(row)
        except AdditivityError as error:
            raise BundleError(f"{bundle.folder}: head {made.name!r}: {error}") from error


def _example(bundle: Bundle, made: FastHead) -> dict[str, Any]:
    """Return example inputs; what the active head does not read is missing there, hence zeros."""
    example, _ = bundle.example()
    rows = len(example["features"])
    if rows == 0:
        raise BundleError(f"{bundle.folder}: the example has no rows; train and publish again")
    feed: dict[str, Any] = {"features": example["features"]}
    for name, shape in bundle.input_shapes(made.name).items():
        if name != "features":
            feed[name] = example.get(name, np.zeros((rows, *(max(s, 1) for s in shape[1:]))))
    return feed
