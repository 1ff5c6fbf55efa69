"""A campaign file that needs no other file, so that it means the same whenever it is read again."""

import io
from pathlib import Path

from ruamel.yaml import YAML

from fleetmark_collector.campaigns.file import Campaign, checked
from fleetmark_collector.campaigns.prompts import read_prompts
from fleetmark_collector.campaigns.yaml_source import parse_yaml

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
            prompts = list(read_prompts(directory / entry.pop("prompts_file")))
            entry.insert(place, "prompts", prompts)
            changed = True
    if not changed:
        return text
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def load_text(text: str, file: Path) -> Campaign:
    """Return the campaign of a text that needs no other file.

    Args:
        text: of a campaign file.
        file: where it came from; mistakes are told as of it, and it is not read.

    Raises:
        ConfigError: all mistakes, as `load_campaign` tells them.
    """
    return checked(parse_yaml(file, text))
