"""A campaign file that needs no other file, so that it means the same whenever it is read again."""

import io
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from fleetmark_collector.campaigns.file import Campaign, checked
from fleetmark_collector.campaigns.prompts import read_prompts
from fleetmark_collector.campaigns.yaml_source import parse_yaml
from fleetmark_protocol.errors import ConfigError

LINE_CHARACTERS = 100


def self_contained(text: str, directory: Path) -> str:
    """Return a campaign file's text with the prompts of each `prompts_file` written into it.

    Comments stay. A text without such files comes back as it is, to the byte.

    Args:
        text: of a campaign file that is right.
        directory: where the file is.

    Raises:
        ConfigError: a file with prompts cannot be read.
    """
    if "prompts_file" not in text:
        return text
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = LINE_CHARACTERS
    data = yaml.load(text)
    entries = data["workloads"]
    changed = False
    for entry in entries if isinstance(entries, list) else [entries]:
        if entry.get("prompts_file") is not None:
            place = list(entry).index("prompts_file")
            prompts = read_prompts(directory / entry.pop("prompts_file"))
            entry.insert(place, "prompts", quoted(prompts))
            changed = True
    if not changed:
        return text
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def quoted(prompts: Sequence[str]) -> list[str]:
    """Return prompts to be put into a file's data: in quotes, whatever surrounds them.

    Plain ones are written without regard to what they begin with inside of `[]`.
    """
    return [DoubleQuotedScalarString(prompt) for prompt in prompts]


def whole(campaign: Campaign) -> Campaign:
    """Return a campaign as a text of its own.

    Raises:
        ConfigError: a file with prompts cannot be read any more, or has changed meanwhile.
    """
    text = self_contained(campaign.text, campaign.file.parent)
    if text == campaign.text:
        return campaign
    made = load_text(text, campaign.file)
    if made.cells != campaign.cells:
        raise ConfigError(
            f"{campaign.file}: with its prompts written into it, it asks something else",
            hint="if a prompts_file has changed just now, try again",
        )
    return made


def load_text(text: str, file: Path, *, kept: bool = False) -> Campaign:
    """Return the campaign of a text that needs no other file.

    Args:
        text: of a campaign file.
        file: where it came from; mistakes are told as of it, and it is not read.
        kept: whether it was checked when it was kept, maybe by an older version: what only newer
            ones refuse is taken, numbers beyond the bounds are brought within them.

    Raises:
        ConfigError: all mistakes, as `load_campaign` tells them.
    """
    return checked(parse_yaml(file, text), kept=kept)
