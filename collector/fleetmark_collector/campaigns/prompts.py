"""Prompt files: one prompt a line, or a YAML list for prompts of several lines."""

from pathlib import Path

from fleetmark_collector.campaigns.yaml_source import Problem, read_text, read_yaml
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import suggestion

YAML_SUFFIXES = (".yaml", ".yml")


def read_prompts(file: Path) -> tuple[str, ...]:
    """Return the prompts of a file, blank lines left out.

    Args:
        file: `.yaml` or `.yml` for a YAML list; anything else has one prompt a line.

    Raises:
        ConfigError: missing, not UTF-8, not a list of texts, or no prompt in it.
    """
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{file}: no such file{_nearest(file)}") from error
    except (OSError, ValueError) as error:  # no way to it, too long a name, a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: {reason}") from error
    if file.suffix in YAML_SUFFIXES:
        prompts = _from_yaml(file)
    else:
        # Only line feeds end a line: prompts may hold other separators that Unicode knows.
        lines = (line.rstrip("\r") for line in read_text(file).split("\n"))
        prompts = tuple(line for line in lines if line.strip())
    if not prompts:
        raise ConfigError(f"{file}: no prompt in it")
    return prompts


def _nearest(file: Path) -> str:
    """Return a hint where a file of about this name is in the same directory."""
    try:
        there = sorted(one.name for one in file.parent.iterdir())
    except OSError:
        return ""
    hint = suggestion(file.name, there)
    return hint if "did you mean" in hint else ""


def _from_yaml(file: Path) -> tuple[str, ...]:
    source = read_yaml(file)
    problems = list(source.problems)
    prompts: list[str] = []
    if not isinstance(source.data, list):
        raise source.error([*problems, Problem((), "not a YAML list of prompts")])
    for index, item in enumerate(source.data):
        if isinstance(item, str) and item.strip():
            prompts.append(item)
        else:
            problems.append(Problem((index,), "not a text, or an empty one (put it in quotes?)"))
    if problems:
        raise source.error(problems)
    return tuple(prompts)
