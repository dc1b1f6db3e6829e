"""Why a session with another party ended: one type for each thing that somebody must mend."""

from __future__ import annotations


class JointError(RuntimeError):
    """A session cannot begin or go on.

    Attributes:
        code: Short name of the kind, which is also told to the other party.
    """

    code = "failed"


class TrustError(JointError):
    """The other side's certificate is not the pinned one, or ours is not theirs."""

    code = "trust"


class PeerGoneError(JointError):
    """The other party closed the connection, or none could be made."""

    code = "gone"


class PeerSilentError(JointError):
    """The other party sent nothing for too long."""

    code = "silent"


class WireError(JointError):
    """A frame is malformed, too long, of the wrong kind or out of order."""

    code = "wire"


class AgreementError(JointError):
    """Both parties were set up for different things; the message names the field."""

    code = "agreement"


class DealError(JointError):
    """A dealt file is missing, changed, of another plan, or used up."""

    code = "deal"


class UsedTriplesError(DealError):
    """Dealt batches were used before; using them twice would show the differences of inputs."""

    code = "used-triples"


class RowsRefusedError(JointError):
    """A party's rows cannot be scored; what is wrong with them, only that party is told."""

    code = "rows"


class PeerRefusedError(JointError):
    """The other party refused, and said why.

    Attributes:
        code: The kind of its error.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"the other party refused ({code}): {message}")
