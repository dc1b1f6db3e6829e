"""The text of a letter that tells a customer why: statement of action, principal reasons, notice.

A template after 12 CFR 1002.9 (Regulation B), not legal advice: whether a notice is owed, to whom
and by when is for counsel to say. The words stand in the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

from tasks.explain.catalogue.binding import BoundCatalogue
from tasks.explain.catalogue.template import fill
from tasks.explain.errors import LetterError
from tasks.explain.languages import LANGUAGES, Language, day
from tasks.explain.reasons import Reason

Action = Literal["decline-application", "hold-application", "decline-transaction",
                 "hold-transaction"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Party:
    """A name with its postal address.

    Attributes:
        name: Name.
        address: Address; may have several lines.
    """

    name: str
    address: str

    def __post_init__(self) -> None:
        """Refuse what would leave a gap in the letter."""
        if not self.name.strip() or not self.address.strip():
            raise LetterError("a party of the letter lacks its name or address; give both")


@dataclass(frozen=True, slots=True)
class CaseReference:
    """What an auditor needs to repeat the explanation.

    Attributes:
        event_id: Id of the transaction or application.
        model_version: Registered version of the model, or the digest of its bundle.
        background_sha256: Digest of the rows the explanation compares with, 64 hexadecimal digits;
            for contributions along the paths of trees, which compare with none, the digest of the
            bundle that holds the trees.
    """

    event_id: str
    model_version: str
    background_sha256: str

    def __post_init__(self) -> None:
        """Refuse a reference that nobody could follow."""
        for name in ("event_id", "model_version"):
            if not getattr(self, name).strip():
                raise LetterError(f"{name} is missing; without it nobody can check the reasons")
        if re.fullmatch(r"[0-9a-f]{64}", self.background_sha256) is None:
            raise LetterError(
                f"background_sha256 {self.background_sha256!r} is no SHA-256; pass the digest that "
                "came with the explanation"
            )


def adverse_action_letter(
    bound: BoundCatalogue,
    reasons: Sequence[Reason],
    *,
    action: Action,
    subject: str,
    recipient: Party,
    creditor: Party,
    when: date,
    case: CaseReference,
    regulator: Party | None = None,
    language: Language = "en",
    list_ties: bool = False,
) -> str:
    """Write the letter.

    Args:
        bound: Catalogue, bound to the model that scored.
        reasons: The reasons of the case, strongest first, as ranked with ``bound``.
        action: What was done.
        subject: What was applied for or paid, in the customer's words, such as "of 3 May for a
            credit card".
        recipient: Whom the letter is for.
        creditor: Who decided.
        when: Date of the letter.
        case: What the explanation can be repeated by.
        regulator: Agency named in the notice of the Equal Credit Opportunity Act; must be given
            for applications, without it a letter on a transaction carries no such notice.
        language: Language of the letter.
        list_ties: Whether reasons that tie with the last one may be listed beyond the limit.

    Returns:
        The letter as plain text.

    Raises:
        LetterError: Without reasons, with too many, when a reason left out is as good as the last
            one listed, or when an application has no regulator.
        CatalogueError: When a reason has no words for customers.
    """
    if action not in get_args(Action):
        raise LetterError(f"action {action!r} is unknown; choose {', '.join(get_args(Action))}")
    if language not in LANGUAGES:
        raise LetterError(f"language {language!r} is unknown; choose {' or '.join(LANGUAGES)}")
    if not subject.strip():
        raise LetterError("subject is empty; say what was applied for or paid")
    if regulator is None and action.endswith("-application"):
        raise LetterError("a letter on an application names the agency in charge; pass regulator")
    _check_reasons(reasons, bound.catalogue.max_reasons, list_ties=list_ties)
    # Two codes may share their words, and a reader is told a thing once; the reference names both.
    told = dict.fromkeys(bound.customer(reason.code, language) for reason in reasons)
    texts = {name: text.of(language) for name, text in bound.catalogue.letter.items()}
    notice = ""
    if regulator is not None:
        named = {"regulator": regulator.name, "regulator_address": _line(regulator.address)}
        notice = fill(texts["notice"], named) + "\n"
    reference = {
        "event_id": case.event_id,
        "model_version": case.model_version,
        "background_sha256": case.background_sha256,
        "catalogue_sha256": bound.digest,
        "codes": ", ".join(reason.code for reason in reasons),
    }
    made = fill(
        texts["body"],
        {
            "creditor": creditor.name,
            "creditor_address": creditor.address,
            "date": day(when, language),
            "recipient": f"{recipient.name}\n{recipient.address}",
            "action": fill(texts[action], {"subject": subject}),
            "reasons": "\n".join(f"{n}. {text}" for n, text in enumerate(told, 1)),
            "notice": notice,
            "reference": fill(texts["reference"], reference),
        },
    )
    return made.strip() + "\n"


def _check_reasons(reasons: Sequence[Reason], most: int, *, list_ties: bool) -> None:
    if not reasons:
        raise LetterError(
            "nothing raised this score: there is no reason to give; a decision that no factor "
            "explains needs a person"
        )
    order = [reason.contribution for reason in reasons]
    if order != sorted(order, reverse=True):
        raise LetterError("reasons are not ordered by contribution; pass them as ranked")
    last = reasons[-1]
    if last.tie:
        raise LetterError(
            f"reason {last.code} ties with {last.rival}, which is left out: neither is the more "
            "principal; rank with list_ties=True and pass list_ties=True here to list both"
        )
    if len(reasons) <= most:
        return
    if not list_ties:
        raise LetterError(
            f"{len(reasons)} reasons; list at most {most}, or pass list_ties=True if the others tie"
        )
    apart = next((r for r in reasons[most - 1 : -1] if not r.tie), None)
    if apart is not None:
        raise LetterError(f"the reason after {apart.code} does not tie with it; leave it out")


def _line(address: str) -> str:
    return ", ".join(part.strip() for part in address.splitlines() if part.strip())
