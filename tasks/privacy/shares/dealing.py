"""What the trusted dealer makes: numbers that belong together, never shown to one party in whole.

**Trust.** The dealer knows every mask. Alone it learns nothing, because it sees no message of the
parties; with the messages that one party sees it could read the other's inputs. So it is a third
house (a clearing house, an auditor, a notary service), it keeps no copy, and its channel to the
parties is as confidential as a key's.

The triples are matrix triples (Beaver, CRYPTO 1991; SecureML, S&P 2017) of inputs that one party
holds in the clear and weights that the other holds in the clear: neither side needs shares of its
operand, the mask of the weights stays the same for a deal, and all that must be sent is one word
per row and unit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.ring64.products import product
from kernels.ring64.signs import deal_tables, table_words
from kernels.ring64.squares import deal_squares, split_squares
from tasks.privacy.shares.material import SESSION, drawn
from tasks.privacy.shares.plan import JointPlan, Party

Words = NDArray[np.uint64]

UNIT_MASKS, SQUARES = "unit masks", "squares"
SCORE_MASKS, INDEX_MASKS, TABLES = "score masks", "index masks", "tables"


def names_of(crossing: tuple[Party, Party]) -> tuple[str, str, str]:
    """Return the names of a crossing's masks of inputs, of weights, and of its products."""
    inputs, weights = crossing
    pair = f"{inputs}-{weights}"
    return f"inputs {pair}", f"weights {pair}", f"products {pair}"


def sections(plan: JointPlan, party: Party) -> dict[str, int]:
    """Return the words per row that a party is sent in full, by name and in order."""
    found = {names_of(one)[2]: plan.units for one in plan.crossings if one[1] == party}
    if party == 1 and plan.signs:
        found[SQUARES] = 2 * plan.units + 1
    if party == 1 and plan.reveal == "decision":
        found[TABLES] = plan.scores * table_words(plan.sign_bits)
    return found


def deal_batch(
    plan: JointPlan, seeds: tuple[bytes, bytes], batch: int, rows: int
) -> tuple[dict[str, Words], dict[str, Words]]:
    """Return what either party is sent in full for one batch.

    Args:
        plan: Of the model.
        seeds: Either party's.
        batch: Number of the batch.
        rows: Rows of a batch.

    Returns:
        Name -> uint64 [rows, n], as of `sections`.
    """
    given: tuple[dict[str, Words], dict[str, Words]] = ({}, {})
    for crossing in plan.crossings:
        inputs, weights = crossing
        input_name, weight_name, name = names_of(crossing)
        columns = plan.inputs[inputs]
        mask = drawn(seeds[inputs], input_name, batch, (rows, columns))
        weight_mask = drawn(seeds[weights], weight_name, SESSION, (plan.units, columns))
        share = drawn(seeds[inputs], name, batch, (rows, plan.units))
        given[weights][name] = product(mask, weight_mask) - share
    if plan.signs:
        masks = _both(seeds, UNIT_MASKS, batch, (rows, plan.units))
        dealt = deal_squares(masks, plan.sign_words, bits=8 * plan.width, cut=plan.cut)
        given[1][SQUARES] = split_squares(dealt, drawn(seeds[0], SQUARES, batch, dealt.shape))
    if plan.reveal == "decision":
        shape = (rows, plan.scores)
        masks = _both(seeds, SCORE_MASKS, batch, shape).ravel()
        one, other = (drawn(seed, INDEX_MASKS, batch, shape).ravel() for seed in seeds)
        tables = deal_tables(masks, one ^ other, plan.sign_bits).reshape(rows, -1)
        given[1][TABLES] = tables ^ drawn(seeds[0], TABLES, batch, tables.shape)
    return given


def _both(seeds: tuple[bytes, bytes], name: str, batch: int, shape: tuple[int, ...]) -> Words:
    """Return the sum of what both parties draw."""
    return drawn(seeds[0], name, batch, shape) + drawn(seeds[1], name, batch, shape)
