"""Why a session with another party ended: one type for each thing that somebody must mend.

The other party is told the kind and its fixed sentence, never the message: that may name files,
numbers and settings of this side alone.
"""

from __future__ import annotations

_MOST_SHOWN = 200


def printable(text: str, most: int = _MOST_SHOWN) -> str:
    """Return text of another party as it may be shown: printable ASCII, cut to a length."""
    shown = "".join(one if " " <= one <= "~" else "?" for one in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


class JointError(RuntimeError):
    """A session cannot begin or go on.

    Attributes:
        code: Short name of the kind.
        told: What the other party is told beside it.
    """

    code = "failed"
    told = "the session cannot go on; ask the other party what its log says"


class TrustError(JointError):
    """The other side's certificate is not the pinned one, or ours is not theirs."""

    code = "trust"
    told = "it does not trust this side's certificate; exchange certificates anew"


class PeerGoneError(JointError):
    """The other party closed the connection, or none could be made."""

    code = "gone"
    told = "the connection broke; start both parties again"


class PeerSilentError(JointError):
    """The other party sent nothing whole, or took nothing, for too long."""

    code = "silent"
    told = "this side sent or took nothing whole for too long; look at the network, or raise --wait"


class WireError(JointError):
    """A frame is malformed, too long, of the wrong kind or out of order."""

    code = "wire"
    told = "a message of this side is none that was due; update the older side"


class AgreementError(JointError):
    """Both parties were set up for different things; the message names the field."""

    code = "agreement"
    told = "both sides are set up for different things; compare what each was started with"


class AlignmentError(AgreementError):
    """Rows are not those of the intersection, in its order: scores would be of other customers."""

    code = "alignment"
    told = "rows are not in the order of one intersection; both parties take the files of the same"


class DealError(JointError):
    """A dealt file is missing, changed, of another plan, or used up."""

    code = "deal"
    told = "its deal cannot be used; let the dealer deal again"


class UsedTriplesError(DealError):
    """Dealt batches were used before; using them twice would show the differences of inputs."""

    code = "used-triples"
    told = "its ledger has these batches as used; ask for none to take the next, or deal again"


class RowsRefusedError(JointError):
    """A party's rows cannot be scored; what is wrong with them, only that party is told."""

    code = "rows"
    told = "its rows do not fit the plan"


class PeerRefusedError(JointError):
    """The other party refused, and said of which kind its reason is.

    Attributes:
        code: The kind of its error.
    """

    def __init__(self, code: str, sentence: str) -> None:
        """Take what came; it is shown in printable ASCII and cut to 40 and 200 characters."""
        self.code = printable(code, 40)
        super().__init__(f"the other party refused ({self.code}): {printable(sentence)}")
