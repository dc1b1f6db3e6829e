"""Failures in one line: what, where, how to mend it."""

from __future__ import annotations

import errno

import typer

# What a person can do about the usual refusals of the operating system.
REMEDIES = {
    errno.ENOENT: "Check the path",
    errno.ENOTDIR: "A file stands where a folder is needed: move it, or name another path",
    errno.EEXIST: "A file stands where a folder is needed: move it, or name another path",
    errno.EISDIR: "That is a folder: name a file",
    errno.EACCES: "Ask for the right to it, or name another path",
    errno.EPERM: "Ask for the right to it, or name another path",
    errno.EROFS: "That disk is read-only: name a path on another one",
    errno.ENOSPC: "Free some space",
    errno.EMFILE: "Allow more open files: ulimit -n 4096",
}


def describe(error: Exception, *, debug: bool = False) -> str:
    """The failure in one line: what, where, how to mend it."""
    from connectors.uris import without_login
    from infra.errors import ConfigurationError, PenstockError

    text = without_login(" ".join(str(error).split()))
    if isinstance(error, ConfigurationError):
        return text
    where = full_disk(error)
    if where:
        return f"the disk is full ({where}); free some space and run the command again"
    if isinstance(error, OSError) and error.strerror:
        return describe_refusal(error)
    if isinstance(error, PenstockError | ValueError | RuntimeError | OSError) and text:
        return text
    hint = "" if debug else "; run again with --debug for the traceback"
    return f"unexpected {type(error).__name__}: {text or 'no message'}{hint}"


def describe_refusal(error: OSError) -> str:
    """What the operating system refused, where, and the remedy where one is known."""
    from infra.errors import PenstockError

    where = f": {error.filename}" if error.filename is not None else ""
    remedy = REMEDIES.get(error.errno or 0, "")
    if remedy and error.filename is not None and lies_in_home(str(error.filename)):
        remedy += "; PENSTOCK_HOME names the folder of all state"
    return str(PenstockError(f"{error.strerror}{where}", remedy))


def full_disk(error: Exception) -> str:
    """Path on the full disk that a failure goes back to, "" where it has another reason."""
    from infra.files import is_disk_full
    from infra.settings import get_settings

    try:
        home = get_settings().home
        full = is_disk_full(error, home)
    except Exception:  # noqa: BLE001 - wrong settings, an unreadable home: not what is told here
        return ""
    return str(getattr(error, "filename", None) or home) if full else ""


def lies_in_home(path: str) -> bool:
    """Whether a path belongs to the state that Penstock keeps."""
    from pathlib import Path

    from infra.settings import get_settings

    try:
        return Path(path).is_relative_to(get_settings().home)
    except Exception:  # noqa: BLE001 - as above
        return False


def complain(message: str, name: str = "penstock") -> None:
    """Print one line to stderr."""
    typer.secho(f"{name}: {message}", err=True, fg="red")
