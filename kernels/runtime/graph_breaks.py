"""Where ``torch.compile`` cannot go on and Python runs in between, in plain words."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KNOWN = (
    (
        ("capture_scalar_outputs", "Tensor.item", "aten._local_scalar_dense"),
        "a number is read out of a tensor (.item(), float(), int())",
        "keep it a tensor, or read it outside of the model",
    ),
    (
        ("data-dependent branching", "data dependent branching"),
        "the code branches on the values of a tensor",
        "use torch.where or torch.cond, or decide outside of the model",
    ),
    (
        ("dynamic shape operator", "nonzero", "data dependent output"),
        "the shape of a result depends on values (nonzero, a mask as an index)",
        "multiply by the mask, or use torch.where",
    ),
    (
        ("print", "logging", "Logger"),
        "something is printed or logged",
        "print and log outside of the model",
    ),
    (
        ("graph_break()", "force_eager", "disable"),
        "the code itself asks for the break",
        "take the call out, if it is not needed any more",
    ),
    (
        ("numpy", "asnumpy", "Tensor.numpy"),
        "a tensor goes to NumPy",
        "compute it in torch, or outside of the model",
    ),
    (
        ("skipped", "skip", "builtin"),
        "a function is called that cannot be traced",
        "compute it outside of the model, or by operators of torch",
    ),
)


@dataclass(frozen=True, slots=True)
class GraphBreak:
    """A place at which a graph ends.

    Attributes:
        where: File, line and function of the model's code.
        what: What happens there.
        fix: How to do without.
        said: First line of torch's own words.
    """

    where: str
    what: str
    fix: str
    said: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.fix}"


def graph_breaks(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[GraphBreak, ...]:
    """Return the graph breaks of a forward pass, each place once.

    Runs it with the given arguments: buffers and random numbers are the caller's to put back.
    Everything compiled before is forgotten, so ask before compiling.
    """
    from torch._dynamo import explain

    with warnings.catch_warnings():
        # After a break dynamo itself asks for the .grad of tensors that have none.
        warnings.simplefilter("ignore")
        reasons = explain(forward)(*args, **kwargs).break_reasons
    found: dict[str, GraphBreak] = {}
    for reason in reasons:
        stack = reason.user_stack or []
        where = "the model's code"
        if stack:
            frame = stack[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
        found.setdefault(where, in_words(where, str(reason.reason)))
    return tuple(found.values())


def in_words(where: str, reason: str) -> GraphBreak:
    """Return a break said in plain words, in torch's where the reason is not a known one."""
    said = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    for text in (said, reason):
        for signs, what, fix in KNOWN:
            if any(sign.lower() in text.lower() for sign in signs):
                return GraphBreak(where, what, fix, said)
    return GraphBreak(where, said, "see what torch says about it", said)
