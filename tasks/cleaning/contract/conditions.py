"""The SQL of denials: a part that Polars and Flink share, read here and checked before any row.

``AND OR NOT``, ``= <> != < <= > >=``, ``[NOT] IN (…)``, ``[NOT] BETWEEN … AND …``, ``[NOT] LIKE``,
``IS [NOT] NULL``, ``+ - * /``, ``ABS CHAR_LENGTH LOWER UPPER TRIM COALESCE``, ``[TRY_]CAST(… AS
DOUBLE|BIGINT|DATE|TIMESTAMP)``, numbers, ``'texts'``, ``TRUE FALSE``, ``DATE '…'``, ``TIMESTAMP
'…'``, and columns, bare or in double quotes or backticks.

Columns have the kinds that the contract gives them, so ``"left" < arrived`` compares dates. A value
that cannot be read as its kind is NULL here (the rule ``kind`` tells of it), and what is not known
to be true forbids nothing. The difference of two dates is in days. Divided by zero is NULL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from tasks.cleaning.contract.values import BOOLEAN, DATE, DATETIME, INTEGER, LARGEST, NUMBER, YES

NUMBERS = frozenset({"integer", "decimal"})
ORDERED = NUMBERS | {"date", "datetime"}
CASTS = {"DOUBLE": "decimal", "BIGINT": "integer", "DATE": "date", "TIMESTAMP": "datetime"}
FUNCTIONS = ("ABS", "CHAR_LENGTH", "LOWER", "UPPER", "TRIM", "COALESCE")
WORDS = frozenset(
    {"AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS", "NULL", "TRUE", "FALSE", "AS"}
)
COMPARISONS = ("=", "<>", "<=", ">=", "<", ">")
MAX_CHARACTERS, MAX_DEPTH = 10_000, 30
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<text>'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`)
    |(?P<word>[^\W0-9]\w*)|(?P<sign><>|!=|<=|>=|[-+*/=<>(),]))""",
    re.VERBOSE,
)


class ConditionError(ValueError):
    """A condition that is no SQL, or that not all engines would take for the same."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value or a condition.

    Attributes:
        op: What makes it: ``column``, ``literal``, ``cast``, ``and``, a sign, a function…
        kind: Kind of its values; conditions are ``boolean``.
        parts: What it is made of.
        value: Name of a column, text of a literal, pattern of LIKE.
    """

    op: str
    kind: str
    parts: tuple[Node, ...] = ()
    value: str = ""


def parse(condition: str, kinds: Mapping[str, str]) -> Node:
    """Read a condition.

    Args:
        condition: SQL.
        kinds: Kind of every column.

    Raises:
        ConditionError: With what is wrong and what to write.
    """
    if len(condition) > MAX_CHARACTERS:
        raise ConditionError(f"{len(condition):,} characters; at most {MAX_CHARACTERS:,} are read")
    reader = _Reader(_tokens(condition), kinds)
    node = reader.boolean(reader.either())
    if reader.kind():
        raise reader.unexpected("the end, AND or OR")
    return node


def _tokens(condition: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while condition[at:].strip():
        match = _TOKEN.match(condition, at)
        if match is None:
            raise ConditionError(f"{condition[at:].strip()[:20]!r} is not read; see the reference")
        kind = str(match.lastgroup)
        found.append((kind, match[kind]))
        at = match.end()
    return found


class _Reader:
    """Reads tokens from left to right; checks kinds as it goes."""

    def __init__(self, tokens: list[tuple[str, str]], kinds: Mapping[str, str]) -> None:
        self.tokens, self.kinds, self.at, self.depth = tokens, kinds, 0, 0

    def kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def unexpected(self, wanted: str) -> ConditionError:
        shown = self.tokens[self.at][1] if self.kind() else "the end"
        return ConditionError(f"{shown!r} stands where {wanted} should")

    def takes(self, *wanted: str) -> bool:
        """Take the next tokens if they are these words or signs."""
        ahead = self.tokens[self.at : self.at + len(wanted)]
        plain = [text.upper() for kind, text in ahead if kind in {"word", "sign"}]
        if plain != list(wanted):
            return False
        self.at += len(wanted)
        return True

    def require(self, *wanted: str) -> None:
        for word in wanted:
            if not self.takes(word):
                raise self.unexpected(word)

    def boolean(self, node: Node) -> Node:
        if node.kind != "boolean":
            raise ConditionError(
                f"{_shown(node)} is of kind {node.kind!r}, no condition; compare it"
            )
        return node

    def either(self) -> Node:
        return self.several("OR", self.both)

    def both(self) -> Node:
        return self.several("AND", self.negation)

    def several(self, word: str, one: Callable[[], Node]) -> Node:
        parts = [one()]
        while self.takes(word):
            parts.append(one())
        return parts[0] if len(parts) == 1 else _balanced(word.lower(), map(self.boolean, parts))

    def negation(self) -> Node:
        negated = False
        while self.takes("NOT"):
            negated = not negated
        node = self.predicate()
        return Node("not", "boolean", (self.boolean(node),)) if negated else node

    def predicate(self) -> Node:
        left = self.sum()
        if self.takes("IS"):
            negated = self.takes("NOT")
            self.require("NULL")
            return _negated(Node("null", "boolean", (left,)), negated=negated)
        negated = self.takes("NOT")
        if self.takes("BETWEEN"):
            return _negated(self.between(left), negated=negated)
        if self.takes("IN"):
            return _negated(self.among(left), negated=negated)
        if self.takes("LIKE"):
            if left.kind != "text" or self.kind() != "text":
                raise ConditionError(f"LIKE compares a text with a '…' literal, not {_shown(left)}")
            return _negated(Node("like", "boolean", (left,), self.literal()), negated=negated)
        if negated:
            raise self.unexpected("BETWEEN, IN or LIKE")
        for sign in ("!=", *COMPARISONS):
            if self.takes(sign):
                return _compared("<>" if sign == "!=" else sign, left, self.sum())
        return left

    def between(self, left: Node) -> Node:
        low = self.sum()
        self.require("AND")
        pair = (_compared(">=", left, low), _compared("<=", left, self.sum()))
        return Node("and", "boolean", pair)

    def among(self, left: Node) -> Node:
        self.require("(")
        parts = [_compared("=", left, self.sum())]
        while self.takes(","):
            parts.append(_compared("=", left, self.sum()))
        self.require(")")
        return _balanced("or", parts)

    def sum(self) -> Node:
        self.depth += 1
        node = self.product()
        length = 0
        while True:
            sign = "+" if self.takes("+") else "-" if self.takes("-") else ""
            length += 1
            if max(self.depth, length) > MAX_DEPTH:
                raise ConditionError(f"more than {MAX_DEPTH} terms in a sum or within one another")
            if not sign:
                self.depth -= 1
                return node
            other = self.product()
            if sign == "-" and node.kind == other.kind == "date":
                node = Node("days", "integer", (node, other))
            else:
                node = Node(sign, "decimal", (_number(node), _number(other)))

    def product(self) -> Node:
        node = self.factor()
        for _ in range(MAX_DEPTH):
            sign = "*" if self.takes("*") else "/" if self.takes("/") else ""
            if not sign:
                return node
            node = Node(sign, "decimal", (_number(node), _number(self.factor())))
        raise ConditionError(f"more than {MAX_DEPTH} factors in a product")

    def factor(self) -> Node:
        negative = False
        while self.kind() == "sign" and self.tokens[self.at][1] in {"+", "-"}:
            negative ^= self.takes("-")
            if not self.kind():
                break
            self.takes("+")
        node = self.primary()
        if not negative:
            return node
        if node.op == "literal" and node.kind in NUMBERS:
            return replace(node, value=f"-{node.value}")
        return Node("negative", "decimal", (_number(node),))

    def literal(self) -> str:
        text = self.tokens[self.at][1]
        self.at += 1
        return text[1:-1].replace(text[0] * 2, text[0])

    def primary(self) -> Node:
        kind = self.kind()
        if kind == "number":
            self.at += 1
            return _literal(self.tokens[self.at - 1][1])
        if kind == "text":
            return Node("literal", "text", value=self.literal())
        if kind == "name":
            return self.column(self.literal())
        if self.takes("("):
            node = self.either()
            self.require(")")
            return node
        if kind == "word":
            return self.word()
        raise self.unexpected("a value")

    def word(self) -> Node:
        word = self.tokens[self.at][1]
        upper = word.upper()
        following = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else ("", "")
        if upper in {"DATE", "TIMESTAMP"} and following[0] == "text":
            self.at += 1
            return _as(Node("literal", "text", value=self.literal()), CASTS[upper])
        if following == ("sign", "("):
            self.at += 2
            return self.call(upper)
        if upper in WORDS and word not in self.kinds:
            if upper not in {"TRUE", "FALSE"}:
                raise self.unexpected('a value (a column of that name stands in "double quotes")')
            self.at += 1
            return Node("literal", "boolean", value=upper)
        self.at += 1
        return self.column(word)

    def column(self, name: str) -> Node:
        if name not in self.kinds:
            raise ConditionError(
                f"{name!r} is no column; there are {', '.join(self.kinds)} (texts stand in "
                "'single' quotes)"
            )
        return Node("column", self.kinds[name], value=name)

    def call(self, name: str) -> Node:
        if name in {"CAST", "TRY_CAST"}:
            node = self.sum()
            self.require("AS")
            kind = CASTS.get(self.tokens[self.at][1].upper()) if self.kind() == "word" else None
            if kind is None:
                raise self.unexpected(f"one of {', '.join(CASTS)}")
            self.at += 1
            self.require(")")
            return _cast(node, kind)
        if name not in FUNCTIONS:
            raise ConditionError(
                f"{name} is not known to all engines; known: {', '.join(FUNCTIONS)}"
            )
        parts = [self.sum()]
        while self.takes(","):
            parts.append(self.sum())
        self.require(")")
        if name == "COALESCE":
            return _coalesce(parts)
        if len(parts) > 1:
            raise ConditionError(f"{name} takes one value")
        if name == "ABS":
            return Node("abs", "decimal", (_number(parts[0]),))
        if parts[0].kind != "text":
            raise ConditionError(f"{name} takes a text, not {_shown(parts[0])}")
        return Node(name.lower(), "integer" if name == "CHAR_LENGTH" else "text", (parts[0],))


def _balanced(op: str, parts: Iterable[Node]) -> Node:
    """Join conditions by AND or OR, in no deeper a tree than needed."""
    left = list(parts)
    while len(left) > 1:
        pairs = [tuple(left[i : i + 2]) for i in range(0, len(left), 2)]
        left = [Node(op, "boolean", pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return left[0]


def _literal(text: str) -> Node:
    """Return a number; whole ones within 64 bits are integers."""
    if not float(text) <= LARGEST:
        raise ConditionError(f"{text} is no 64-bit number")
    whole = _is(text, INTEGER) and len(text) <= 19 and int(text) < 2**63
    return Node("literal", "integer" if whole else "decimal", value=text)


def _negated(node: Node, *, negated: bool) -> Node:
    return Node("not", "boolean", (node,)) if negated else node


def _compared(sign: str, left: Node, right: Node) -> Node:
    left, right = _alike(left, right)
    if sign not in {"=", "<>"} and left.kind not in ORDERED:
        raise ConditionError(
            f"{_shown(left)} {sign} {_shown(right)} orders values of kind {left.kind!r}; give the "
            "columns the kind integer, decimal, date or datetime, or write TRY_CAST(… AS DOUBLE)"
        )
    return Node(sign, "boolean", (left, right))


def _alike(left: Node, right: Node) -> tuple[Node, Node]:
    """Return two values as ones of the same kind."""
    if left.kind == right.kind:
        return left, right
    for one, other in ((left, right), (right, left)):
        if one.op == "literal" and one.kind == "text":
            made = _as(one, other.kind)
            # 5.0 and a whole number are numbers.
            pair = _alike(made, other)
            return pair if one is left else (pair[1], pair[0])
    kinds = {left.kind, right.kind}
    if kinds <= NUMBERS:
        return _as_decimal(left), _as_decimal(right)
    if kinds == {"date", "datetime"}:
        return _as_datetime(left), _as_datetime(right)
    raise ConditionError(
        f"{_shown(left)} is of kind {left.kind!r} and {_shown(right)} of kind {right.kind!r}; give "
        "the column its kind in the contract, or write TRY_CAST(… AS DOUBLE)"
    )


def _as(text: Node, kind: str) -> Node:
    """Return a literal text as one of another kind."""
    value, is_day = text.value, _is(text.value, DATE)
    dates = {"date": DATE, "datetime": DATETIME}
    shape = {"integer": NUMBER, "decimal": NUMBER, "boolean": BOOLEAN, **dates}[kind]
    if not (_is(value, shape) or (kind in dates and (is_day or _is(value, DATETIME)))):
        raise ConditionError(f"{value!r} is compared with a value of kind {kind!r} and is none")
    if kind in NUMBERS:
        return _minus(value[1:]) if value.startswith("-") else _literal(value.lstrip("+"))
    if kind == "boolean":
        return Node("literal", "boolean", value="TRUE" if _is(value, YES) else "FALSE")
    return Node("literal", "date" if is_day else "datetime", value=value)


def _is(text: str, shape: str) -> bool:
    # Python 3.11 spells the end of a text its own way.
    return re.search(shape.replace(r"\z", r"\Z"), text) is not None


def _minus(text: str) -> Node:
    node = _literal(text)
    return replace(node, value=f"-{node.value}")


def _number(node: Node) -> Node:
    """Return a value as a number that can be calculated with."""
    if node.kind not in NUMBERS:
        raise ConditionError(
            f"{_shown(node)} is of kind {node.kind!r}, no number; give the column kind = 'decimal' "
            "or write TRY_CAST(… AS DOUBLE)"
        )
    return _as_decimal(node)


def _as_decimal(node: Node) -> Node:
    if node.kind == "decimal":
        return node
    if node.op in {"column", "literal"}:
        return replace(node, kind="decimal")  # read from its text at once
    return Node("decimal", "decimal", (node,))


def _as_datetime(node: Node) -> Node:
    return node if node.kind == "datetime" else Node("midnight", "datetime", (node,))


def _cast(node: Node, kind: str) -> Node:
    if node.kind == kind:
        return node
    if node.kind == "text":
        return _as(node, kind) if node.op == "literal" else Node("cast", kind, (node,))
    if node.kind in NUMBERS and kind == "decimal":
        return _as_decimal(node)
    if node.kind == "date" and kind == "datetime":
        return _as_datetime(node)
    raise ConditionError(
        f"{_shown(node)} is of kind {node.kind!r}; only texts are cast to {kind!r}"
    )


def _coalesce(parts: list[Node]) -> Node:
    made = parts[0]
    for part in parts[1:]:
        left, right = _alike(made, part)
        made = Node("coalesce", left.kind, (left, right))
    return made


def _shown(node: Node) -> str:
    return repr(node.value) if node.value else f"{node.op}(…)"
