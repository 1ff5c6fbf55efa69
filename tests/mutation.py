"""Makes hostile messages out of lawful ones, thousands a second; one seed, one sequence."""

import json
import random
from collections.abc import Sequence
from typing import Any

VALUES = (
    *("0", "-0", "1", "-1", "1.0", "-0.0", "1e2", "5e-324", "1e308", "1e309", "-1e999", "1e-400"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" * 400),
    *("NaN", "Infinity", "-Infinity", "null", "true", "false", "tru", "", "01", "+1", "0x1", "1_0"),
    *('""', '"x"', '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\u001b[2J"', '"\\u202e"'),
    *('"=1+1"', '"<script>"', '"{{7*7}}"', '"../../etc/passwd"', '"\'; DROP TABLE trial;--"'),
    *('"2026-01-01"', '"a,b=c d"', '"\U0001f600"', '"\\ufffd"', '"c.other.001"', '"+/#"'),
    *("[]", "{}", "[[]]", "[null]", '{"":0}', '{"a":{"a":{"a":[{}]}}}', "[" * 200 + "]" * 200),
)
"""What may stand for any value: JSON texts, some of which are none."""

LARGE = (
    *("[" * 100_000, '{"a":' * 100_000, "[" * 900 + "]" * 900, '"' + "x" * 300_000 + '"'),
    *("[" + "0," * 50_000 + "0]", "9" * 300_000, "0." + "1" * 300_000, '"' + "\\u0000" * 9 + '"'),
    *('{"a":1' + ',"a":1' * 20_000 + "}", '"' + "x" * 1_000_000 + '"', " " * 300_000 + "1"),
)
"""The same, and seldom: they take a while to read."""

_RAW = "\x01"


class Mutator:
    """An endless source of messages that a broken or hostile sender might send."""

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        """Begin.

        Args:
            seeds: lawful messages, small ones.
            seed: of all choices.
        """
        self.rng = random.Random(seed)
        self._seeds = list(seeds)
        self._trees = [json.loads(one) for one in seeds]

    def next(self) -> bytes:
        """Return another message."""
        drawn = self.rng.random()
        if drawn < 0.03:
            return self.rng.randbytes(self.rng.randrange(60))
        if drawn < 0.3:
            return self._bytes(self.rng.choice(self._seeds))
        return self.tree(self.rng.randrange(len(self._trees)))

    def tree(self, number: int) -> bytes:
        """Return a message with one to three of its values, keys or members changed."""
        tree = json.loads(self._seeds[number])
        raws: list[str] = []
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            tree = self._changed(tree, raws)
        text = json.dumps(tree, separators=(",", ":"), ensure_ascii=self.rng.random() < 0.5)
        for at, raw in enumerate(raws):
            text = text.replace(f'"\\u0001{at}"', raw)
        if self.rng.random() < 0.15:
            text = self._twice(text)
        return text.encode("utf-8", "surrogatepass")

    def _changed(self, tree: Any, raws: list[str]) -> Any:
        """Change something at some depth."""
        if not isinstance(tree, dict | list) or not tree or self.rng.random() < 0.03:
            return self._raw(raws)
        if isinstance(tree, list):
            return self._changed_list(tree, raws)
        key = self.rng.choice(list(tree))
        drawn = self.rng.random()
        if drawn < 0.08:
            del tree[key]
        elif drawn < 0.16:
            tree[self.rng.choice(("x", key + "_", "__class__", "\x1b", "kind", "seq", ""))] = (
                self._raw(raws)
            )
        elif drawn < 0.22:
            tree[self.rng.choice(list(tree))] = tree[key]
        elif isinstance(tree[key], dict | list) and drawn < 0.9:
            tree[key] = self._changed(tree[key], raws)
        else:
            tree[key] = self._raw(raws)
        return tree

    def _changed_list(self, tree: list[Any], raws: list[str]) -> list[Any]:
        at = self.rng.randrange(len(tree))
        drawn = self.rng.random()
        if drawn < 0.1:
            tree.append(tree[at])
        elif drawn < 0.15:
            tree *= self.rng.choice((2, 40, 1001 if len(tree) == 1 else 3))
        elif drawn < 0.2:
            del tree[at]
        else:
            tree[at] = self._changed(tree[at], raws)
        return tree

    def _raw(self, raws: list[str]) -> str:
        large = self.rng.random() < 0.002
        raws.append(self.rng.choice(LARGE if large else VALUES))
        return f"{_RAW}{len(raws) - 1}"

    def _twice(self, text: str) -> str:
        """Have a key come twice, with another value the second time."""
        at = text.find('":', self.rng.randrange(max(1, len(text))))
        start = text.rfind('"', 0, max(at, 0))
        if at < 0 or start < 0:
            return text
        return f"{text[:start]}{text[start : at + 2]}{self.rng.choice(VALUES)},{text[start:]}"

    def _bytes(self, payload: bytes) -> bytes:
        changed = bytearray(payload)
        for _ in range(self.rng.choice((1, 1, 2, 8))):
            at = self.rng.randrange(len(changed) + 1)
            drawn = self.rng.random()
            if drawn < 0.4 and at < len(changed):
                changed[at] ^= 1 << self.rng.randrange(8)
            elif drawn < 0.6:
                changed[at:at] = self.rng.choice(
                    (b"\xff", b"\x00", b"\xed\xa0\x80", b'"', b"}", b",")
                )
            elif drawn < 0.8:
                del changed[at : at + self.rng.randrange(1, 20)]
            elif drawn < 0.9:
                del changed[at:]
            else:
                other = self.rng.choice(self._seeds)
                changed[at:] = other[self.rng.randrange(len(other)) :]
        return bytes(changed)
