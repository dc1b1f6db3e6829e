"""The one error of reading a stranger's table."""

from __future__ import annotations


class TableReadError(ValueError):
    """A table that cannot be read as a whole.

    Single rows that cannot be read never raise; they go to quarantine.

    Attributes:
        where: File, and the place in it where that is known.
        what: What is wrong.
        mend: What to do about it.
    """

    def __init__(self, where: str, what: str, mend: str) -> None:
        super().__init__(f"{where}: {what}; {mend}")
        self.where = where
        self.what = what
        self.mend = mend

    def __reduce__(self) -> tuple[type[TableReadError], tuple[str, str, str]]:
        """Let the error travel between processes."""
        return type(self), (self.where, self.what, self.mend)


class ExpansionError(TableReadError):
    """A compressed file that unfolds beyond what was granted (a bomb, or a wrong limit)."""
