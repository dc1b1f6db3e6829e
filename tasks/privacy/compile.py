"""Compiles a model for encrypted scoring: parameters, whole numbers, a proved error, a report.

No evaluation key, no rescaling, no rotation: inputs and weights keep so few bits that their sums
and powers fit the modulus as they are. What that asks of the modulus is known beforehand, so
wrap-around is excluded by proof instead of being looked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.privacy.bounds import DECODING, linear_errors, power_errors, weight_errors
from tasks.privacy.flooding import RELEASES, flooding_deviation, flooding_error
from tasks.privacy.model import ModelError, PrivateModel
from tasks.privacy.parameters import SETS, ParameterError, ParameterSet
from tasks.privacy.plan import Packing, Plan, WholeWeights, digest_of

Reals = NDArray[np.float64]

Profile = Literal["owner-only", "shareable"]
"""``owner-only``: decrypted scores stay with the owner of the key, only decisions leave.
``shareable``: scores may leave, with flooding noise, rounded, and so many per key."""

MOST_INPUT_BITS = {"rows": 44, "slots": 48}
"""Up to here encoding in double precision is off by less than noise (in ``rows`` by nothing)."""
_WEIGHT_BITS = 30
CANARIES = 16
_OUTPUT_BITS = (10, 14, 18, 22)
_HEADROOM = 1.01
"""Factor between the largest number that can occur and half of the modulus."""


@dataclass(frozen=True)
class CompileOptions:
    """Settings of the compiler.

    Attributes:
        profile: Whether decrypted scores may leave their owner.
        tolerance: Largest error of a score, proved for the calibration rows; None: .001, and .01
            for scores that are released.
        max_rows: Most rows of a request, for which bounds hold.
        releases: Values that a key may release, ``shareable`` only.
        parameters: Name of a parameter set; empty: the cheapest that keeps the tolerance.
    """

    profile: Profile = "owner-only"
    tolerance: float | None = None
    max_rows: int = 65_536
    releases: int = RELEASES
    parameters: str = ""

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            ValueError: On a setting that cannot be.
        """
        if self.profile not in get_args(Profile):
            raise ValueError(f"profile is one of {get_args(Profile)}, not {self.profile!r}")
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance must be positive, not {self.tolerance!r}")
        if self.max_rows < 1 or self.releases < 1:
            raise ValueError("max_rows and releases must be at least 1")

    @property
    def allowed(self) -> float:
        """Largest error of a score."""
        if self.tolerance is not None:
            return self.tolerance
        return 1e-3 if self.profile == "owner-only" else 1e-2


@dataclass(frozen=True)
class Proof:
    """What is proved about a compiled model, in units of its scores.

    Attributes:
        certain: Error that no row exceeds.
        likely: Error that a whole request of any rows exceeds with probability below 2**-40.
        likely_calibration: The same for the calibration rows.
        largest: Largest absolute score of any row, before the owner's offset.
        spare_bits: Bits of the modulus above the largest number that can occur.
        flooding: Deviation of the noise that the owner adds before a release; 0: ``owner-only``.
        releases: Values that may be released with it.
    """

    certain: float
    likely: float
    likely_calibration: float
    largest: float
    spare_bits: float
    flooding: float = 0.0
    releases: int = 0

    @property
    def released(self) -> float:
        """Error of released calibration scores, all of a key's budget together."""
        if not self.flooding:
            return self.likely_calibration
        return self.likely_calibration + flooding_error(self.flooding, self.releases)


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Attributes:
        model: In the clear.
        plan: What both sides agree on.
        whole: What the scorer computes with.
        proof: What is proved.
        options: What was asked for.
        canaries: float64 [n, F], made-up rows whose scores owners know.
    """

    model: PrivateModel
    plan: Plan
    whole: WholeWeights
    proof: Proof
    options: CompileOptions
    canaries: Reals

    @property
    def public(self) -> dict[str, Any]:
        """What owners are told beside the plan, as JSON data."""
        return {
            "encoding": self.model.encoding.to_dict(),
            "offset": self.model.offset.tolist(),
            "readout": self.model.readout.to_dict(),
            "flooding": self.proof.flooding,
            "releases": self.proof.releases,
            "error": self.proof.likely_calibration,
            "canaries": self.canaries.tolist(),
            "canary_scores": self.model.score(self.canaries).tolist(),
        }

    @property
    def digest(self) -> str:
        """SHA-256 over weights, plan and what owners are told, hexadecimal."""
        return digest_of(self.plan, self.whole, self.public)


def compile_model(
    model: PrivateModel, calibration: ArrayLike, options: CompileOptions | None = None
) -> Compiled:
    """Compile a model.

    Args:
        model: What to score.
        calibration: [n, F] raw rows such as will come; they decide how close the bound must be, not
            what is accepted.
        options: Settings.

    Raises:
        ParameterError: When no parameter set, or not the one asked for, keeps the tolerance; says
            how close the best comes.
        ModelError: When the model has nothing to compute.
        RowError: When calibration rows are not accepted by the model's own encoding.
    """
    asked = options or CompileOptions()
    if not len(np.asarray(calibration)):
        raise ModelError("calibration rows are needed, and there are none")
    canaries = made_up_rows(np.asarray(calibration, np.float64), CANARIES)
    encoded = np.concatenate([model.encoding.encode(calibration), model.encoding.encode(canaries)])
    folded = _fold(model)
    if not (folded.weights.any() and folded.output.any()):
        raise ModelError("every weight is 0: the model is a constant")
    if asked.parameters and asked.parameters not in SETS:
        raise ParameterError(f"parameter set {asked.parameters!r} is unknown: {list(SETS)}")
    sets = [SETS[asked.parameters]] if asked.parameters else list(SETS.values())
    closest = math.inf
    for parameters in sets:
        best = min(
            _candidates(model, folded, parameters, encoded, asked),
            key=lambda share: share.proof.released,
            default=None,
        )
        if best is None:
            continue
        if best.proof.released <= asked.allowed:
            plan, whole = _built(model, folded, parameters, best)
            made = Compiled(model, plan, whole, best.proof, asked, canaries)
            return replace(made, plan=replace(plan, digest=made.digest))
        closest = min(closest, best.proof.released)
    raise ParameterError(
        f"no parameter set keeps scores within {asked.allowed:g}: the best of"
        f" {[one.name for one in sets]} reaches {closest:.2g}; allow a larger tolerance, or scale"
        " the model's weights or the limits of its inputs down"
    )


def made_up_rows(rows: Reals, count: int) -> Reals:
    """Return rows whose columns are drawn one by one between those of given rows: nobody's rows."""
    draws = np.random.default_rng(0)
    columns = [np.quantile(column, draws.random(count)) for column in rows.T]
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class _Folded:
    """A model with output weights of a single score folded into its hidden layer.

    Attributes:
        weights: float64 [H, G].
        bias: float64 [H].
        signs: int8 [H]; empty where output weights remain.
        output: float64 [O, H]; of a single score the signs.
    """

    weights: Reals
    bias: Reals
    signs: NDArray[np.int8]
    output: Reals


def _fold(model: PrivateModel) -> _Folded:
    """Fold ``v * h**k`` into ``sign(v) * (|v|**(1/k) * h)**k`` where there is one score."""
    if model.power == 1:
        nothing = np.zeros(len(model.weights))
        return _Folded(model.weights, nothing, np.zeros(0, np.int8), np.eye(model.scores))
    if model.scores > 1:
        return _Folded(model.weights, model.bias, np.zeros(0, np.int8), model.output)
    factors = model.output[0]
    kept = factors != 0
    root = np.abs(factors[kept]) ** (1 / model.power)
    signs = np.sign(factors[kept]).astype(np.int8)
    weights, bias = model.weights[kept] * root[:, None], model.bias[kept] * root
    return _Folded(weights, bias, signs, signs[None].astype(np.float64))


@dataclass(frozen=True)
class _Share:
    """One way to share the bits, and what is proved with it."""

    proof: Proof
    weight_bits: int
    input_bits: int
    output_bits: int


def _candidates(
    model: PrivateModel,
    folded: _Folded,
    parameters: ParameterSet,
    encoded: Reals,
    options: CompileOptions,
) -> Iterator[_Share]:
    """Try every way to share the bits between inputs, weights and output weights."""
    for output_bits in _OUTPUT_BITS if _several(model, folded) else (0,):
        output = np.rint(folded.output * 2.0**output_bits)
        if np.abs(output).max() >= 2.0**_WEIGHT_BITS:
            continue
        shares = _Shares(model, folded, output / 2.0**output_bits, parameters, options)
        for weight_bits in range(2 * _WEIGHT_BITS):
            proof, input_bits = shares.proof(weight_bits, output_bits, encoded)
            if proof is not None:
                yield _Share(proof, weight_bits, input_bits, output_bits)


def _several(model: PrivateModel, folded: _Folded) -> bool:
    """Tell whether output weights remain behind the power."""
    return model.power > 1 and not len(folded.signs)


def _built(
    model: PrivateModel, folded: _Folded, parameters: ParameterSet, share: _Share
) -> tuple[Plan, WholeWeights]:
    """Return plan, its digest yet to come, and whole numbers of a share of the bits."""
    step = share.input_bits + share.weight_bits
    output = np.rint(folded.output * 2.0**share.output_bits) if _several(model, folded) else None
    plan = Plan(
        parameters=parameters,
        inputs=model.encoding.inputs,
        scores=model.scores,
        power=model.power,
        input_bits=share.input_bits,
        score_bits=model.power * step + share.output_bits,
        packings=_packings(model),
        digest="",
    )
    return plan, _whole(folded, share.weight_bits, share.input_bits, output)


def _packings(model: PrivateModel) -> tuple[Packing, ...]:
    return ("slots",) if model.power > 1 else ("rows", "products")


@dataclass(frozen=True)
class _Shares:
    """What a share of the bits leads to."""

    model: PrivateModel
    folded: _Folded
    output: Reals
    parameters: ParameterSet
    options: CompileOptions

    def proof(self, weight_bits: int, output_bits: int, encoded: Reals) -> tuple[Proof | None, int]:
        """Return what is proved with so many bits for weights, and the bits left for inputs."""
        bounds, power = self.model.encoding.bounds, self.model.power
        steps = np.rint(self.folded.weights * 2.0**weight_bits)
        if not 1 <= np.abs(steps).max() < 2.0**_WEIGHT_BITS:
            return None, 0
        rounded = steps * 2.0**-weight_bits
        room = math.log2(self.parameters.ring.modulus / 2) - output_bits
        largest = self._largest(rounded, bounds)
        input_bits = math.floor((room - math.log2(largest * _HEADROOM)) / power) - weight_bits
        input_bits = min(input_bits, MOST_INPUT_BITS["rows" if power == 1 else "slots"])
        if input_bits < 4:
            return None, 0
        errors = linear_errors(
            rounded,
            input_bits=input_bits,
            rows=self.options.max_rows,
            slots_of=self.parameters.ring.degree if power > 1 else 0,
        )
        certain, _ = self._errors(rounded, bounds[None], errors.inputs, errors.certain)
        likely, noise = self._errors(rounded, bounds[None], errors.inputs, errors.likely)
        calibration, _ = self._errors(
            rounded, np.abs(encoded), errors.inputs, errors.likely, encoded
        )
        reached = math.log2(largest + certain) + power * (input_bits + weight_bits)
        if reached >= room:
            return None, 0
        proof = Proof(certain, likely, calibration, largest, room - reached)
        if self.options.profile == "shareable":
            deviation = flooding_deviation(noise, self.options.releases)
            proof = replace(proof, flooding=deviation, releases=self.options.releases)
        return proof, input_bits

    def _largest(self, rounded: Reals, bounds: Reals) -> float:
        """Return the largest absolute score of any row, without the owner's offset."""
        hidden = np.abs(rounded) @ bounds
        if self.model.power == 1:
            return float(hidden.max())
        hidden = (hidden + np.abs(self.folded.bias)) ** self.model.power
        return float((np.abs(self.output) @ hidden).max())

    def _errors(
        self,
        rounded: Reals,
        absolute: Reals,
        inputs: Reals,
        noise: Reals,
        encoded: Reals | None = None,
    ) -> tuple[float, float]:
        """Return the largest error of scores, and that by noise alone.

        Args:
            rounded: Weights as they were rounded.
            absolute: float64 [n, G], absolute inputs.
            inputs: float64 [H], errors of hidden units by rounded inputs.
            noise: float64 [H], errors of hidden units by noise.
            encoded: The inputs themselves where they are known.
        """
        exact, power = self.folded.weights, self.model.power
        fixed = inputs + weight_errors(exact, rounded, absolute)
        if power == 1:
            # Decoding errs in proportion to the largest row of a ciphertext, whoever's it is.
            total = float((np.abs(exact) @ self.model.encoding.bounds).max())
            return float((fixed + noise).max()) + DECODING * total, float(noise.max())
        if encoded is None:
            hidden = absolute @ np.abs(exact).T + np.abs(self.folded.bias)
        else:
            hidden = np.abs(encoded @ exact.T + self.folded.bias)
        factors = np.abs(self.output)
        grown = power_errors(hidden, fixed + noise, factors, power)
        lost = (hidden**power @ np.abs(self.output - self.folded.output).T).max(axis=1)
        total = DECODING * self._largest(rounded, self.model.encoding.bounds)
        by_noise = power_errors(hidden + fixed, noise, factors, power)
        return float((grown + lost + total).max()), float(by_noise.max())


def _whole(
    folded: _Folded, weight_bits: int, input_bits: int, output: Reals | None
) -> WholeWeights:
    weights = np.rint(folded.weights * 2.0**weight_bits).astype(np.int32)
    if not len(folded.signs) and output is None:
        return WholeWeights(weights)
    step = weight_bits + input_bits
    bias = tuple(_steps(number, step) for number in folded.bias)
    if output is None:
        return WholeWeights(weights, bias, folded.signs)
    return WholeWeights(weights, bias, output=output.astype(np.int32))


def _steps(number: float, bits: int) -> int:
    """Return a number as whole steps, exactly rounded at any size."""
    numerator, denominator = float(number).as_integer_ratio()
    return (2 * (numerator << bits) + denominator) // (2 * denominator)
