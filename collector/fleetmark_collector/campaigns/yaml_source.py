"""YAML as plain data that still knows where each piece stood; nothing but plain data gets in."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fleetmark_protocol.errors import ConfigError

MAX_FILE_BYTES = 1_000_000
"""A campaign travels to the devices in messages of at most this size, so a larger file is a
mistake."""
MAX_NODES = 100_000
"""Pieces a file may have once its aliases are followed: a few lines of aliases can stand for
billions."""
MAX_DEPTH = 32
MAX_INT = 10**300
"""Larger ones are no floats either, and Python does not write them out (in hexadecimal they are
read)."""

Step = str | int
Loc = tuple[Step, ...]
Position = tuple[int, int]
"""Line and column, from 1."""

_CORE = "tag:yaml.org,2002:"
# A date is no type of a campaign: what looks like one stays the text it is.
_AS_TEXT = {f"{_CORE}str", f"{_CORE}timestamp"}
_AS_VALUE = {f"{_CORE}{kind}" for kind in ("int", "float", "bool", "null")}


@dataclass(frozen=True)
class Problem:
    """One mistake in a file.

    Attributes:
        loc: keys and list positions from the top of the file; empty for the file as a whole.
        text: what is wrong.
        at_key: whether the mistake is the key itself, not its value.
        position: where, if it is known without looking `loc` up.
    """

    loc: Loc
    text: str
    at_key: bool = False
    position: Position | None = None


@dataclass
class Source:
    """A YAML file's data with the position of every piece of it."""

    file: Path
    text: str
    data: object = None
    values: dict[Loc, Position] = field(default_factory=dict)
    keys: dict[Loc, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0
    scalars: SafeConstructor = field(
        default_factory=lambda: YAML(typ="safe", pure=True).constructor, repr=False
    )

    def position(self, problem: Problem) -> Position:
        """Return where to look: at the piece, or at what should have held it."""
        if problem.position is not None:
            return problem.position
        if problem.loc in self.values and not problem.at_key:
            return self.values[problem.loc]
        for end in range(len(problem.loc), 0, -1):
            part = problem.loc[:end]
            # The key says more than the first thing under it; list items have none.
            found = self.keys.get(part) or self.values.get(part)
            if found is not None:
                return found
        return (1, 1)

    def inside(self, loc: Loc, offset: int) -> Position | None:
        """Return where a character of a text stands; None where the file writes it otherwise.

        A text over several lines, or with escapes, is not in the file as it reads.
        """
        value: object = self.data
        for step in loc:
            value = value[step]  # type: ignore[index]
        line, column = self.values[loc]
        written = self.text.split("\n")[line - 1][column - 1 :]
        quote = 1 if written[:1] in ("'", '"') else 0
        if not isinstance(value, str) or not written[quote:].startswith(value):
            return None
        return (line, column + quote + offset)

    def place(self, loc: Loc) -> Loc:
        """Return a validator's path as the file has it, or its part that is there.

        A single value that stands for a list of one has no position in a list, and a text that
        stands for a mapping has no keys.
        """
        found: Loc = ()
        for step in loc:
            if (*found, step) in self.values:
                found = (*found, step)
            elif isinstance(step, str):
                break
        return found

    def lines(self, problems: Iterable[Problem]) -> list[str]:
        """Return FILE:LINE:COLUMN: path: text for each problem, in the order of the file."""
        placed = sorted({(self.position(one), path_text(one.loc), one.text) for one in problems})
        return [
            f"{self.file}:{line}:{column}: {f'{path}: ' if path else ''}{text}"
            for (line, column), path, text in placed
        ]

    def error(self, problems: Iterable[Problem]) -> ConfigError:
        """Return one error that tells all problems, in the order of the file."""
        return ConfigError("\n".join(self.lines(problems)))


def path_text(loc: Loc) -> str:
    """Return a path as people write it: `workloads[0].prompt`."""
    out = ""
    for step in loc:
        out += f"[{step}]" if isinstance(step, int) else f".{step}" if out else step
    return out


def read_text(file: Path) -> str:
    """Return a file's text.

    Raises:
        ConfigError: missing, unreadable, too large, or not UTF-8 (with the position).
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError(
            f"{file}:{line}:{column}: not UTF-8 text", hint="save the file as UTF-8"
        ) from error


def read_yaml(file: Path) -> Source:
    """Return the file's data; pieces that are no plain data are told in `problems`.

    Raises:
        ConfigError: the file cannot be read, or is no YAML at all (with the position).
    """
    return parse_yaml(file, read_text(file))


def parse_yaml(file: Path, text: str) -> Source:
    """Return the data of a text as `read_yaml` does that of a file, which is not read.

    Raises:
        ConfigError: it is no YAML at all, or larger than a file may be.
    """
    if len(text.encode()) > MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes")
    source = Source(file, text)
    try:
        root = YAML(typ="safe", pure=True).compose(source.text)
        if root is not None:
            source.data = _plain(source, root, ())
    except YAMLError as error:
        raise _syntax_error(file, error) from error
    except RecursionError as error:
        raise ConfigError(f"{file}: nested deeper than {MAX_DEPTH} levels") from error
    return source


def _syntax_error(file: Path, error: YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    text = f"not YAML: {f'{context}: ' if context else ''}{what}"
    if "\\t" in text:
        text += " (indent with spaces, not tabs)"
    where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(file)
    return ConfigError(f"{where}: {text}")


def _plain(source: Source, node: Node, loc: Loc) -> object:
    """Turn a node into plain data and note its position, and that of everything in it."""
    here = (node.start_mark.line + 1, node.start_mark.column + 1)
    source.values[loc] = here
    source.nodes += 1
    # Aliases make a graph of the tree: only following it tells how large it really is.
    if source.nodes > MAX_NODES:
        raise source.error([Problem((), f"more than {MAX_NODES} values once aliases are followed")])
    if len(loc) > MAX_DEPTH:
        raise source.error([Problem((), f"nested deeper than {MAX_DEPTH} levels", position=here)])
    if isinstance(node, MappingNode) and node.tag == f"{_CORE}map":
        return _mapping(source, node, loc)
    if isinstance(node, SequenceNode) and node.tag == f"{_CORE}seq":
        return [_plain(source, item, (*loc, index)) for index, item in enumerate(node.value)]
    if isinstance(node, ScalarNode):
        return _scalar(source, node, loc)
    source.problems.append(Problem(loc, f"tag {node.tag!r}: only plain values are allowed"))
    return None


def _mapping(source: Source, node: MappingNode, loc: Loc) -> dict[str, object]:
    out: dict[str, object] = {}
    for key, value in node.value:
        here = (key.start_mark.line + 1, key.start_mark.column + 1)
        if not isinstance(key, ScalarNode):
            source.problems.append(Problem(loc, "a key must be plain text", position=here))
            continue
        name = str(key.value)
        if key.tag == f"{_CORE}merge":
            text = "merge keys (<<) are not supported; write the keys out"
            source.problems.append(Problem(loc, text, position=here))
        elif name in out:
            source.problems.append(Problem((*loc, name), "key given twice", position=here))
        else:
            source.keys[*loc, name] = here
            out[name] = _plain(source, value, (*loc, name))
    return out


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _scalar(source: Source, node: ScalarNode, loc: Loc) -> object:
    if node.tag in _AS_TEXT:
        text = str(node.value)
        if not _is_text(text):
            source.problems.append(Problem(loc, "half of a surrogate pair is no character"))
            return None
        return text
    if node.tag not in _AS_VALUE:
        source.problems.append(Problem(loc, f"tag {node.tag!r}: only plain values are allowed"))
        return None
    try:
        value: object = source.scalars.construct_object(node)
    except (YAMLError, ValueError):
        source.problems.append(Problem(loc, f"not a value that can be read: {node.value[:40]!r}"))
        return None
    if isinstance(value, int) and abs(value) >= MAX_INT:
        source.problems.append(Problem(loc, f"a number beyond all limits: {node.value[:40]!r}"))
        return None
    if isinstance(value, float) and not math.isfinite(value):
        source.problems.append(Problem(loc, "not a finite number"))
        return None
    return value
