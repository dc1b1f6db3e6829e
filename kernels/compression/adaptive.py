"""Easy inputs leave a net early; how often that changes the answer is promised.

Exits stand behind the stages of a net (BranchyNet, Teerapittayanon et al. 2016,
https://arxiv.org/abs/1709.01686), or are nets of their own, small ones before large ones. An input
leaves at the first exit that is sure enough. How sure is enough is found on held-out inputs: limits
are tried from the strictest on, and the loosest is taken of which a binomial test says, for it and
for all before it, that more than ``disagreement`` of all inputs would be answered otherwise than by
the last exit only with probability ``1 - confidence`` (fixed-sequence testing, Angelopoulos et al.
2021, https://arxiv.org/abs/2110.01052). No assumption on the net is made, only that inputs to come
are like those held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

Answers = NDArray[np.float64]


class ExitError(ValueError):
    """Exits that cannot be calibrated or put together; says why and how to mend it."""


@dataclass(frozen=True, slots=True)
class ExitRule:
    """When an input leaves.

    Attributes:
        limit: An input leaves at an exit whose largest probability is at least this; above 1 none
            leaves before the last.
        disagreement: Promised largest share of inputs answered otherwise than by the last exit.
        confidence: Probability with which the promise holds.
        seen: Share that did on the held-out inputs.
        left: Share of the held-out inputs that leave at each exit.
    """

    limit: float
    disagreement: float
    confidence: float
    seen: float
    left: tuple[float, ...]


def calibrate(
    probabilities: Sequence[Answers], disagreement: float = 0.01, confidence: float = 0.95
) -> ExitRule:
    """Return the rule by which most inputs leave early.

    Args:
        probabilities: Of each exit, the last one's last, on the same held-out inputs: float
            [n, classes], rows sum to 1. To be compared exactly later, take `probabilities_of`.
        disagreement: Promised.
        confidence: Of the promise.

    Raises:
        ExitError: When the shapes differ, values are no probabilities, or there are too few inputs
            to promise anything; says how many are needed.
    """
    if not 0 < disagreement < 1 or not 0 < confidence < 1:
        raise ExitError("disagreement and confidence must lie between 0 and 1")
    stacked = _checked(probabilities)
    _, count, _ = stacked.shape
    # Without any disagreement seen, (1 - disagreement) ** n must fall below 1 - confidence.
    needed = int(np.ceil(np.log(1 - confidence) / np.log1p(-disagreement)))
    if count < needed:
        raise ExitError(
            f"{count} held-out inputs cannot promise {disagreement:g} with confidence "
            f"{confidence:g}; give {needed} or more"
        )
    sure, said = stacked.max(2), stacked.argmax(2)
    limit = np.inf
    tried = np.unique(np.quantile(sure[:-1], np.linspace(0, 1, 200)))[::-1]
    for candidate in tried:
        differing = int((_answered(sure, said, candidate)[1] != said[-1]).sum())
        # P(at most so many | a share of ``disagreement``): the p-value of "it is more".
        if stats.binom.cdf(differing, count, disagreement) > 1 - confidence:
            break
        limit = float(candidate)
    exits, answers = _answered(sure, said, limit)
    left = np.bincount(exits, minlength=len(stacked)) / count
    seen = float((answers != said[-1]).mean())
    return ExitRule(limit, disagreement, confidence, seen, tuple(left.tolist()))


def _answered(
    sure: Answers, said: NDArray[np.int64], limit: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return at which exit each input leaves, and what is answered there."""
    leaves = sure >= limit
    leaves[-1] = True
    exits = leaves.argmax(0)
    return exits, said[exits, np.arange(sure.shape[1])]


def _checked(probabilities: Sequence[Answers]) -> Answers:
    shapes = {np.shape(each) for each in probabilities}
    if len(probabilities) < 2 or len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ExitError(f"give [n, classes] of two exits or more, all alike; got {sorted(shapes)}")
    stacked = np.stack([np.asarray(each, dtype=np.float64) for each in probabilities])
    if not (stacked >= 0).all() or np.abs(stacked.sum(2) - 1).max() > 1e-3:
        raise ExitError("rows must be probabilities that sum to 1; give softmax of logits")
    return stacked


class MultiExit(nn.Module):
    """A net in stages, each with a head that may answer.

    Attributes:
        stages: Each takes what the one before gives.
        heads: One per stage, to logits [n, classes].
    """

    def __init__(self, stages: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        """Put stages and heads together.

        Raises:
            ExitError: When there are not as many heads as stages, and two at least.
        """
        super().__init__()
        if len(stages) != len(heads) or len(stages) < 2:
            raise ExitError(f"give a head per stage, two or more; got {len(stages)}, {len(heads)}")
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of all exits, as training needs them."""
        answers = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            answers.append(head(x))
        return tuple(answers)

    def answer(self, x: Tensor, rule: ExitRule) -> tuple[Tensor, Tensor]:
        """Return the logits each input left with, and its exit; later stages see only the rest.

        Args:
            x: Inputs [n, ...].
            rule: When they leave.
        """
        was_training = self.training
        self.eval()
        found: list[Tensor] = []
        places: list[Tensor] = []
        exits = torch.empty(len(x), dtype=torch.int64)
        remaining = torch.arange(len(x))
        with torch.inference_mode():
            for number, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
                x = stage(x)
                logits = head(x)
                last = number == len(self.stages) - 1
                goes = probabilities_of(logits).amax(1) >= rule.limit
                if last:
                    goes = torch.ones_like(goes)
                exits[remaining[goes]] = number
                found.append(logits[goes])
                places.append(remaining[goes])
                x, remaining = x[~goes], remaining[~goes]
                if not len(remaining):
                    break
        self.train(was_training)
        order = torch.argsort(torch.cat(places))
        return torch.cat(found)[order], exits


def probabilities_of(logits: Tensor) -> Tensor:
    """Return probabilities [n, classes] of logits in float64, as exits compare them with a limit.

    In float32 those of sure answers are all 1, and a limit near it would let everybody go.
    """
    return logits.double().softmax(1)


def exit_loss(
    answers: Sequence[Tensor], labels: Tensor, *, teach: float = 0.5, temperature: float = 2.0
) -> Tensor:
    """Return the summed loss of all exits: labels, and for the early ones what the last one says.

    Early exits that say what the last one says leave more often (Phuong and Lampert 2019,
    https://openaccess.thecvf.com/content_ICCV_2019/html/Phuong_Distillation-Based_Training_for_Multi-Exit_Architectures_ICCV_2019_paper.html).

    Args:
        answers: Logits of each exit [n, classes].
        labels: int64 [n].
        teach: Share of the last exit's answers in the loss of the early ones.
        temperature: At which they are taught.
    """
    last = answers[-1]
    total = functional.cross_entropy(last, labels, reduction="sum")
    given = (last.detach() / temperature).log_softmax(1)
    for early in answers[:-1]:
        told = functional.cross_entropy(early, labels, reduction="sum")
        taught = functional.kl_div(
            (early / temperature).log_softmax(1), given, reduction="sum", log_target=True
        )
        total = total + (1 - teach) * told + teach * temperature**2 * taught
    return total
