"""Errors that a person can act on: what happened, where, and how to mend it."""

from __future__ import annotations


class PenstockError(Exception):
    """A failure with its remedy; the command line prints it as one line.

    Args:
        what: what went wrong, and where.
        fix: how to mend it, as an instruction.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}" if self.fix else self.what


class ConfigurationError(PenstockError):
    """A setting is missing or has a value that cannot work."""


class ServiceError(PenstockError):
    """A local service could not be started, reached or stopped."""


class MissingToolError(PenstockError):
    """A program that this step needs is not on the machine."""
