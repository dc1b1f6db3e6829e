"""What a button of the page means: which changes or findings, and what is asked first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import unquote

import polars as pl

from connectors.cleaning.decisions import Outcome
from connectors.cleaning.outputs import OutputError
from connectors.cleaning.page.views import Filter, Shown


@dataclass(frozen=True, slots=True)
class Wish:
    """A decision that a person asks for.

    Attributes:
        do: ``undo``, ``accept``, ``reject``, ``requeue`` or ``forget``.
        chosen: Condition over the rows of the tab's frame.
        number: How many it is about.
        question: What is asked first; "" where it is done at once.
        about: The one cell that it is about; "" where there are several.
    """

    do: str
    chosen: pl.Expr
    number: int
    question: str = ""
    about: str = ""


class Button(NamedTuple):
    """What a form's button says: ``undo:17:3`` of one item, ``undo-column:NAME`` of several.

    Attributes:
        verb: What to do.
        scope: "" for one, else one of ``SCOPES``.
        what: Item, column or rule.
        place: Anchor of the item on the page, where the person goes on.
    """

    verb: str
    scope: str
    what: str
    place: str

    @classmethod
    def of(cls, said: str) -> Button:
        """Read it; nonsense becomes a button that does not exist."""
        do, *rest = said.split(":")
        verb, _, scope = do.partition("-")
        what, place = [*map(unquote, rest), "", ""][:2]
        known = place.isascii() and place.isdigit() and len(place) < 4
        return cls(verb, scope, what, f"r{place}" if known else "")


VERBS = {
    "undo": ("Undo", "change", "undone"),
    "accept": ("Accept", "suggestion", "accepted"),
    "reject": ("Reject", "finding", "rejected"),
    "forget": ("Forget", "decision", "forgotten"),
}
SCOPES = ("", "all", "column", "rule")
TAB_OF = {"undo": "changes", "accept": "review", "reject": "review", "forget": "decisions"}


def wish_of(now: Shown, wanted: Filter, button: Button) -> Wish:
    """Return what a button of the page means.

    Raises:
        OutputError: When it is no button of the page, or what it is about is gone.
    """
    run, verb, scope = now.run, button.verb, button.scope
    if verb == "requeue":
        question = (
            f"Clean all {some(run.place.rows_in, 'row')} again, those in quarantine with them, by "
            f"contract {run.contract.name}? What was decided holds again. It takes as long as the "
            "run did."
        )
        return Wish(verb, pl.lit(value=True), 0, question)
    if verb not in VERBS or scope not in SCOPES:
        raise OutputError("this is no decision of this page")
    tab, (word, thing, _) = TAB_OF[verb], VERBS[verb]
    frame = now.frames[tab]
    chosen = {
        "": pl.col("_id").cast(pl.String) == button.what,
        "all": replace(wanted, tab=tab).chosen,
        "column": pl.col("column") == button.what,
        "rule": pl.col("rule") == button.what,
    }[scope]
    found = frame.filter(chosen)
    if verb == "accept" and scope:
        found = found.filter("repairable")
        found = found.unique(["row", "column"], keep="first", maintain_order=True)
    if found.is_empty():
        raise OutputError("nothing fits")
    # Changes are told by their order, findings and decisions by their place in the file.
    place = pl.col("order") if tab == "changes" else pl.int_range(pl.len(), dtype=pl.Int64)
    mine = place.is_in(found["_id"].cast(pl.Int64).implode())
    question, about = "", ""
    if scope:
        rows = some(found["row"].n_unique(), "row")
        question = f"{word} {some(found.height, thing)} in {rows}?"
    else:
        about = f"row {found['row'][0]}, column {found['column'][0]}"
    if verb == "forget":
        question = (
            f"Forget {some(found.height, thing)}? The table is cleaned again as if nobody had "
            "decided that; it takes as long as the run did."
        )
    return Wish(verb, mine, found.height, question, about)


def what_happened(wish: Wish, done: Outcome) -> str:
    """Return what a decision did, for the person."""
    if wish.do == "requeue":
        told = f"{some(done.number, 'row')} came back out of quarantine"
    else:
        _, thing, past = VERBS[wish.do]
        told = f"{some(wish.number, thing)} {past}" + (f": {wish.about}" if wish.about else "")
    return "; ".join(filter(None, (told, done.aftermath))) + "."


def some(number: int, thing: str) -> str:
    """Return a number of things in words.

    >>> some(1, "row"), some(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
