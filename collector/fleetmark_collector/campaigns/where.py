"""Boolean expressions over tags (`pi4 and not (bench or slow)`), with the place of each mistake."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from boolean import (
    TOKEN_AND,
    TOKEN_LPAR,
    TOKEN_NOT,
    TOKEN_OR,
    TOKEN_RPAR,
    TOKEN_SYMBOL,
    BooleanAlgebra,
    Expression,
)

from fleetmark_protocol.ids import is_name

MAX_CHARACTERS = 500

_OPERATORS = {
    "and": TOKEN_AND,
    "or": TOKEN_OR,
    "not": TOKEN_NOT,
    "(": TOKEN_LPAR,
    ")": TOKEN_RPAR,
}
_WORD = re.compile(r"[()]|[^\s()]+")
_OPERAND = "a tag, `not` or `(`"
_JOINT = "`and`, `or` or `)`"


@dataclass(frozen=True)
class Where:
    """An expression.

    Attributes:
        text: as it was written.
        tags: each tag that it names, with its place in the text, counted from 0.
    """

    text: str
    tags: tuple[tuple[str, int], ...]
    _expression: Expression

    def holds(self, tags: Collection[str]) -> bool:
        """Whether it is true of a device with these tags."""
        return bool(self._expression(**{_symbol(name): name in tags for name, _ in self.tags}))


class NotAnExpression(ValueError):
    """Says what is wrong with an expression, and where.

    Attributes:
        offset: the place in the text, counted from 0.
    """

    def __init__(self, text: str, offset: int) -> None:
        super().__init__(text)
        self.offset = offset


def parse(text: str) -> Where:
    """Return the expression.

    `not` binds closer than `and`, `and` closer than `or`; parentheses group.

    Raises:
        NotAnExpression: it is none; says what should stand where.
    """
    tokens = list(_checked(text))
    expression = BooleanAlgebra().parse(
        [(kind, _symbol(w) if kind == TOKEN_SYMBOL else w, at) for kind, w, at in tokens]
    )
    named = tuple((word, offset) for kind, word, offset in tokens if kind == TOKEN_SYMBOL)
    return Where(text, named, expression)


def _symbol(tag: str) -> str:
    # Symbols are told their values as keyword arguments, beside one that is called `self`.
    return f"tag {tag}"


def _checked(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield (kind, word, offset); what comes through is an expression.

    The library knows that something is wrong, but seldom where.
    """
    if len(text) > MAX_CHARACTERS:
        raise NotAnExpression(f"longer than {MAX_CHARACTERS} characters", 0)
    expected, before = _OPERAND, ""
    open_at: list[int] = []
    for found in _WORD.finditer(text):
        word, offset = found.group(), found.start()
        kind = _OPERATORS.get(word, TOKEN_SYMBOL)
        fits = _OPERAND if kind in (TOKEN_SYMBOL, TOKEN_NOT, TOKEN_LPAR) else _JOINT
        if kind == TOKEN_SYMBOL and not is_name(word):
            raise NotAnExpression(_no_tag(word), offset)
        if fits != expected:
            after = f" after {before!r}" if before else " first"
            raise NotAnExpression(f"{expected} should stand{after}, not {word!r}", offset)
        if kind == TOKEN_LPAR:
            open_at.append(offset)
        elif kind == TOKEN_RPAR:
            if not open_at:
                raise NotAnExpression("this ) closes nothing", offset)
            open_at.pop()
        expected = _JOINT if kind in (TOKEN_SYMBOL, TOKEN_RPAR) else _OPERAND
        before = word
        yield kind, word, offset
    if expected is _OPERAND:
        ending = f"ends after {before!r}" if before else "is empty"
        raise NotAnExpression(f"{ending}: {_OPERAND} should follow", max(len(text) - 1, 0))
    if open_at:
        raise NotAnExpression("this ( is never closed", open_at[-1])


def _no_tag(word: str) -> str:
    if word.lower() in _OPERATORS:
        return f"write {word.lower()!r} in small letters"
    return (
        f"{word!r} is no tag (lower-case letters, digits, - and _); tags are joined by and, or, "
        "not and parentheses"
    )
