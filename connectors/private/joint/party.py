"""A party scores jointly: opens the door, agrees, takes unused batches, scores, takes leave."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from connectors.private.joint.agreement import Hello, agree
from connectors.private.joint.certificates import read_public_key
from connectors.private.joint.channel import Channel
from connectors.private.joint.common_rows import CommonRows, read_common_rows
from connectors.private.joint.deal_file import DealFile
from connectors.private.joint.door import Door, leaving, open_channel
from connectors.private.joint.drive import drive
from connectors.private.joint.errors import (
    AgreementError,
    AlignmentError,
    DealError,
    RowsRefusedError,
)
from connectors.private.joint.frames import Kind
from connectors.private.joint.ledger import Ledger
from connectors.private.joint.model_file import read_part, read_plan
from tasks.privacy.encoding import Encoding, RowError
from tasks.privacy.shares.intersect import as_bytes
from tasks.privacy.shares.linear import open_weights
from tasks.privacy.shares.part import Part
from tasks.privacy.shares.plan import JointPlan
from tasks.privacy.shares.rehearsal import load_kernels
from tasks.privacy.shares.scoring import BatchScorer, Outcome
from tasks.privacy.shares.sizes import step_bytes
from tasks.privacy.shares.steps import Steps

Reals = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class PartyConfig:
    """A party's side of a session.

    Attributes:
        door: Where it meets the other.
        plan: File of the plan.
        part: File of its part of the weights.
        deal: File of its deal.
        dealer_key: File of the trusted dealer's public key.
        ledger: File in which it records what it used.
        common: File of the intersection: which rows of the party's table are scored, in which
            order; both parties' must be of the same run. None, on both sides: all rows, in the
            order of the table, and nothing checks whose they are.
        first_batch: Batch of the deal to begin with; None: the first that neither used.
    """

    door: Door
    plan: Path
    part: Path
    deal: Path
    dealer_key: Path
    ledger: Path
    common: Path | None = None
    first_batch: int | None = None

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            ValueError: On a setting that cannot be.
        """
        if self.first_batch is not None and self.first_batch < 0:
            raise ValueError("first_batch is at least 0, or None for the first unused one")


@dataclass(frozen=True)
class PartyResult:
    """What a session gave.

    Attributes:
        outcome: float64 scores or bool decisions [n, O]; None: this party receives nothing.
        rows: Number of rows.
        places: int64 [n], where in the party's table the scored rows lie.
        first_batch: First batch of the deal that was used up.
        sent: Bytes sent, frames included, TLS not.
        received: Bytes that came.
        online_s: Wall seconds from the agreement to the last score.
        cpu_s: CPU seconds of this process in that time.
    """

    outcome: Outcome = field(repr=False)
    rows: int
    places: Places = field(repr=False)
    first_batch: int
    sent: int
    received: int
    online_s: float
    cpu_s: float


def run_party(
    config: PartyConfig, rows: ArrayLike, keys: Sequence[str] | Sequence[bytes] | None = None
) -> PartyResult:
    """Score rows jointly with the other party, which runs the same at the same time.

    Args:
        config: This party's side.
        rows: [n, F of the party] raw rows: with ``common`` the whole table whose keys were
            intersected; [n, 0] of a party that has weights alone.
        keys: Of the rows, in their order, compared with those of the intersection; None: the
            number of rows alone is.

    Raises:
        RowError: When the plan's encoding refuses rows; the other party is told that much.
        ValueError: When the number of columns is another, or a key comes twice.
        AlignmentError: When the table is not the one whose keys were intersected, or the other
            party's intersection is another.
        JointError: When the session cannot begin or go on; the other party is told why.
        PlanError: When plan and part do not belong together, or a batch of the deal has too many
            rows for the plan.
    """
    party = config.door.party
    plan, part = read_plan(config.plan), read_part(config.part)
    part.check(plan, party)
    load_kernels(plan)
    dealer = read_public_key(config.dealer_key)
    common = read_common_rows(config.common) if config.common else None
    table, listed = np.asarray(rows), None if keys is None else as_bytes(keys)
    with DealFile(config.deal, plan, party, dealer) as deal:
        channel = open_channel(config.door, step_bytes(plan, deal.head.rows))
        with leaving(channel):
            places, alignment = _places(common, len(table), listed)
            inputs = _encoded(channel, plan.encodings[party], table, places)
            first = _agreed(channel, config, plan, deal, len(inputs), alignment)
            session = _Session(channel, plan, config, deal, part)
            start = time.perf_counter(), time.process_time()
            outcome = session.score(inputs, first)
            online, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
            channel.send(Kind.DONE)
            channel.receive(Kind.DONE, 0)
    sent, received = channel.sent, channel.received
    return PartyResult(outcome, len(inputs), places, first, sent, received, online, cpu)


def _places(common: CommonRows | None, rows: int, keys: list[bytes] | None) -> tuple[Places, str]:
    """Return which rows of the table are scored, in which order, and the alignment."""
    if common is None:
        if keys is not None:
            raise AlignmentError("keys are compared with an intersection's; give its file (common)")
        return np.arange(rows), ""
    common.check(rows, keys)
    return common.rows, common.alignment


def _encoded(channel: Channel, encoding: Encoding, table: Reals, places: Places) -> Reals:
    """Encode rows; those that cannot be are named by their places in the table, on this side."""
    try:
        return encoding.encode(table[places])
    except ValueError as error:
        channel.refuse(RowsRefusedError("the rows do not fit the encoding of the plan"))
        if isinstance(error, RowError):
            raise RowError(places[error.rows].tolist(), error.reasons) from error
        raise


def _agreed(
    channel: Channel,
    config: PartyConfig,
    plan: JointPlan,
    deal: DealFile,
    rows: int,
    alignment: str,
) -> int:
    """Agree on everything; returns the first batch, recorded as used from here on."""
    head, ledger = deal.head, Ledger(config.ledger)
    asked = -1 if config.first_batch is None else config.first_batch
    own = Hello(
        party=config.door.party,
        task="score",
        rows=rows,
        plan=plan.digest,
        deal=head.deal,
        alignment=alignment,
        next_batch=ledger.next_batch(head.deal),
        asked_batch=asked,
    )
    same = ("plan", "deal", "alignment", "rows", "asked_batch")
    other = agree(channel, own, same=same)
    if not rows:
        raise AgreementError("there are no rows to score; give at least one")
    first = asked if asked >= 0 else max(own.next_batch, other.next_batch)
    count = -(-rows // head.rows)
    if not 0 <= first <= head.batches - count:
        raise DealError(
            f"{rows} rows take {count} batches, and from batch {first} on there are"
            f" {max(0, head.batches - first)}; let the dealer deal again"
        )
    ledger.take(head.deal, first, count)
    return first


@dataclass(frozen=True)
class _Session:
    """What a session scores with."""

    channel: Channel
    plan: JointPlan
    config: PartyConfig
    deal: DealFile
    part: Part

    def score(self, inputs: Reals, first: int) -> Outcome:
        party = self.config.door.party
        opening = open_weights(self.plan, party, self.part, self.deal.seed)
        (layer,) = drive(self.channel, [opening])
        scorer = BatchScorer(self.plan, party, self.part, layer)
        found = list(drive(self.channel, self._batches(scorer, inputs, first)))
        if not self.plan.receives(party):
            return None
        return np.concatenate([part for part in found if part is not None])

    def _batches(self, scorer: BatchScorer, inputs: Reals, first: int) -> Iterator[Steps[Outcome]]:
        size = self.deal.head.rows
        for number, start in enumerate(range(0, len(inputs), size), first):
            yield scorer.score(inputs[start : start + size], self.deal.material(number))
