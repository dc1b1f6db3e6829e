"""Proposes parameters: the tree-structured Parzen estimator of Optuna, fed with a history.

Bergstra, Bardenet, Bengio and Kégl, "Algorithms for hyper-parameter optimization", NIPS 2011; in
the multivariate form of Falkner, Klein and Hutter, "BOHB", ICML 2018. Trials that still run count
as bad ones ("constant liar", Ginsbourger, Le Riche and Carraro 2010), so that several at a time
differ.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import numpy as np

from kernels.tuning.history import TrialRecord
from kernels.tuning.space import Choice, Dimension, Integer, Parameters, Space

if TYPE_CHECKING:
    from optuna.trial import Trial as OptunaTrial


class Tpe:
    """Mirrors a history into a study in memory and asks Optuna's sampler.

    A proposal is a pure function of the trials before it and of the seed: a search that was killed
    goes on as it would have.
    """

    def __init__(
        self,
        space: Space,
        *,
        goal: Literal["min", "max"],
        seed: int,
        startup: int,
        at_random: float = 0.0,
    ) -> None:
        """Prepare an empty study.

        Args:
            space: What is searched.
            goal: Whether low or high figures are good.
            seed: Seed of the proposals.
            startup: Trials drawn at random before the first estimate.
            at_random: Share of the later ones that are drawn at random, too.
        """
        import optuna

        self._optuna = optuna
        self._space, self._seed = space, seed
        self._startup, self._at_random = startup, at_random
        self._worst = math.inf if goal == "min" else -math.inf
        self._distributions = distributions(space)
        self._trials: dict[int, OptunaTrial] = {}
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each study made
        self._study = optuna.create_study(direction="minimize" if goal == "min" else "maximize")
        optuna.logging.set_verbosity(level)

    def propose(self, number: int) -> Parameters:
        """Return the parameters of a new trial."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        generator = np.random.default_rng(seed)
        if number < self._startup or generator.random() < self._at_random:
            parameters = self._space.draw(generator)
            self.begin(number, parameters)
            return parameters
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=0, multivariate=True, constant_liar=True
        )
        self._trials[number] = trial = self._study.ask(self._distributions)
        return {
            name: dimension.options[trial.params[name]]
            if is_ordered(dimension)
            else trial.params[name]
            for name, dimension in self._space.dimensions.items()
        }

    def knows(self, number: int) -> bool:
        """Whether a running trial was taken in, or proposed here."""
        return number in self._trials

    def begin(self, number: int, parameters: Parameters) -> None:
        """Take in a trial that was proposed elsewhere, or before."""
        self._study.sampler = self._optuna.samplers.RandomSampler(seed=0)  # cheap, and overruled
        self._study.enqueue_trial(
            {
                name: dimension.options.index(parameters[name])
                if is_ordered(dimension)
                else parameters[name]
                for name, dimension in self._space.dimensions.items()
            }
        )
        self._trials[number] = self._study.ask(self._distributions)

    def report(self, number: int, step: int, value: float) -> None:
        """Take in a figure of a running trial; of a step seen before the first one stays."""
        if number in self._trials:
            trial = self._trials[number]
            if step not in self._study.get_trials(deepcopy=False)[number].intermediate_values:
                trial.report(value if math.isfinite(value) else self._worst, step)

    def end(self, record: TrialRecord) -> None:
        """Take in what became of a trial.

        One that failed teaches nothing; one whose figure is not finite counts as the worst.
        """
        trial = self._trials.pop(record.number, None)
        if trial is None:
            return
        states = self._optuna.trial.TrialState
        if record.state == "complete":
            value = record.value if math.isfinite(record.value) else self._worst
            self._study.tell(trial, value)
        elif record.state == "failed":
            self._study.tell(trial, state=states.FAIL)
        else:
            self._study.tell(trial, state=states.PRUNED)


def is_ordered(dimension: Dimension) -> TypeGuard[Choice]:
    """Whether a dimension is a choice between ever larger numbers."""
    if not isinstance(dimension, Choice):
        return False
    options = dimension.options
    if not all(isinstance(o, float | int) and not isinstance(o, bool) for o in options):
        return False
    return all(a < b for a, b in pairwise(options))  # type: ignore[operator]  # numbers


def distributions(space: Space) -> dict[str, Any]:
    """Return a space in Optuna's terms.

    A choice between ever larger numbers becomes the place of the chosen one: what is known of one
    number speaks for its neighbours, while the estimator would keep to the first good one of mere
    categories.
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, Any] = {}
    for name, dimension in space.dimensions.items():
        if is_ordered(dimension):
            found[name] = IntDistribution(0, len(dimension.options) - 1)
        elif isinstance(dimension, Choice):
            found[name] = CategoricalDistribution(dimension.options)
        elif isinstance(dimension, Integer):
            found[name] = IntDistribution(dimension.low, dimension.high, log=dimension.log)
        else:
            found[name] = FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return found
