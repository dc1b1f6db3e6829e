"""A compiled model: whole numbers, steps per unit, packings. What the scorer computes with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.parameters import ParameterSet, parameter_set

Ints = NDArray[np.int32]

Packing = Literal["rows", "slots", "products"]
"""How rows lie in ciphertexts.

``rows``: one ciphertext per input, coefficient i is row i; linear models.
``slots``: one ciphertext per input, slot i is row i; models with a power.
``products``: whole rows as runs of coefficients, so that one product with the weights' polynomial
holds the score of every row; linear models, few rows. A row of more than N inputs takes several
ciphertexts, whose products are added.
"""

SEED_BYTES = 64


@dataclass(frozen=True)
class Plan:
    """What both sides must agree on about a compiled model, without its weights.

    Attributes:
        parameters: The parameter set.
        inputs: Inputs per row, G.
        scores: Scores per row, O.
        power: 1, 2 or 3.
        input_bits: An input of 1 is ``2**input_bits`` steps.
        score_bits: A score of 1 is ``2**score_bits`` steps.
        packings: Those that a request may use, for many rows first.
        digest: SHA-256 of weights, plan and all that owners are told, hexadecimal.
    """

    parameters: ParameterSet
    inputs: int
    scores: int
    power: int
    input_bits: int
    score_bits: int
    packings: tuple[Packing, ...]
    digest: str

    @property
    def stride(self) -> int:
        """Coefficients from one row to the next in ``products``: a power of two, N at most."""
        return min(1 << max(0, (self.inputs - 1).bit_length()), self.parameters.ring.degree)

    @property
    def parts(self) -> int:
        """Ciphertexts of a group in ``products``: several where a row is longer than one."""
        return -(-self.inputs // self.stride)

    def capacity(self, packing: Packing) -> int:
        """Return the rows of one group of ciphertexts."""
        degree = self.parameters.ring.degree
        if packing == "rows":
            return degree
        return degree // 2 if packing == "slots" else degree // self.stride

    def groups(self, packing: Packing, rows: int) -> int:
        """Return the groups of ciphertexts that rows take."""
        return -(-rows // self.capacity(packing))

    @property
    def block_bytes(self) -> int:
        """Bytes of one ciphertext of a request: half of it and a seed."""
        return self.parameters.ring.poly_bytes + SEED_BYTES

    def request_bytes(self, packing: Packing, rows: int) -> int:
        """Return the bytes of the ciphertexts of a request; a request has no other length."""
        blocks = self.parts if packing == "products" else self.inputs
        return self.groups(packing, rows) * blocks * self.block_bytes

    def rows_within(self, most: int) -> int:
        """Return the most rows of a request of so many bytes, in its best packing."""
        return max(
            self.capacity(one) * (most // self.request_bytes(one, 1)) for one in self.packings
        )

    def answer_bytes(self, packing: Packing, rows: int) -> int:
        """Return the bytes of the ciphertexts of an answer."""
        parts = self.power + 1
        return self.groups(packing, rows) * self.scores * parts * self.parameters.ring.poly_bytes

    def packing_for(self, rows: int) -> Packing:
        """Return the packing that moves the fewest bytes for so many rows."""
        return min(
            self.packings,
            key=lambda one: self.request_bytes(one, rows) + self.answer_bytes(one, rows),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return {
            "parameters": self.parameters.name,
            "inputs": self.inputs,
            "scores": self.scores,
            "power": self.power,
            "input_bits": self.input_bits,
            "score_bits": self.score_bits,
            "packings": list(self.packings),
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Rebuild from `to_dict`."""
        return cls(
            parameter_set(data["parameters"]),
            inputs=int(data["inputs"]),
            scores=int(data["scores"]),
            power=int(data["power"]),
            input_bits=int(data["input_bits"]),
            score_bits=int(data["score_bits"]),
            packings=tuple(data["packings"]),
            digest=str(data["digest"]),
        )


@dataclass(frozen=True)
class WholeWeights:
    """The weights as whole numbers.

    Attributes:
        weights: int32 [H, G].
        bias: Per hidden unit, in steps; empty in a linear model, whose bias the owner adds.
        signs: int8 [H] of a single score behind a power; empty otherwise.
        output: int32 [O, H] of several scores behind a power; empty otherwise.
    """

    weights: Ints
    bias: tuple[int, ...] = ()
    signs: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    output: Ints = field(default_factory=lambda: np.zeros((0, 0), np.int32))

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON data."""
        return {
            "weights": self.weights.tolist(),
            "bias": [str(number) for number in self.bias],
            "signs": self.signs.tolist(),
            "output": self.output.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WholeWeights:
        """Rebuild from `to_dict`."""
        return cls(
            np.asarray(data["weights"], np.int32),
            tuple(int(number) for number in data["bias"]),
            np.asarray(data["signs"], np.int8),
            np.asarray(data["output"], np.int32).reshape(len(data["output"]), len(data["weights"])),
        )


def digest_of(plan: Plan, whole: WholeWeights, public: Mapping[str, Any]) -> str:
    """Return the SHA-256 over a compiled model, hexadecimal.

    Args:
        plan: Its plan, whose own digest does not count.
        whole: What the scorer computes with.
        public: What owners are told beside the plan, JSON data.
    """
    told = plan.to_dict() | {"digest": "", "whole": whole.to_dict(), "public": public}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
