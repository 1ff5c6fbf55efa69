"""Gives the file of an earlier campaign out again, to be run anew, with changes if wanted."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fleetmark_collector.campaigns.file import load_campaign
from fleetmark_collector.campaigns.selfcontained import quoted
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.workloads import wire_names
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import suggestion

_STEP = re.compile(r"\.?([A-Za-z0-9_-]+)|\[(\d+)\]", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+|\[\d+\])*", re.ASCII)
LINE_CHARACTERS = 100


def clone_text(
    store: CampaignStore, campaign_id: str, changes: Sequence[tuple[str, object]] = ()
) -> str:
    """Return the text of a campaign's file, complete in itself.

    Prompts that came from a file of their own are written into it as they were asked: that file may
    have changed or gone. Without such, and without changes, the text is what was kept, to the byte.

    Args:
        store: has the campaign.
        campaign_id: which.
        changes: a key's path (`workloads[0].repetitions`) and its new value.

    Raises:
        ConfigError: there is no such campaign, or a path leads nowhere.
        StoreError: the state file cannot be used.
    """
    store.campaign(campaign_id)
    text = store.file_text(campaign_id)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = LINE_CHARACTERS
    data = yaml.load(text)
    asked = _prompts(store, campaign_id) if "prompts_file" in text else {}
    inlined = _inline(data, asked)
    for path, value in changes:
        _set(data, path, value)
    if not changes and not inlined:
        return text
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def read_change(text: str) -> tuple[str, object]:
    """Return a change from `PATH=VALUE`; the value is YAML.

    Raises:
        ConfigError: it is not of that form.
    """
    path, equals, value = text.partition("=")
    if not equals or not _PATH.fullmatch(path):
        raise ConfigError(
            f"--set {text}: not of the form KEY=VALUE",
            hint="such as --set workloads[0].repetitions=3 or --set 'targets={tags: [pi4]}'",
        )
    try:
        return path, YAML(typ="safe", pure=True).load(value)
    except YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not YAML: {value!r}") from error


def write_new(file: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        ConfigError: it is there, or cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8", newline="") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{file} is there already", hint="name another file") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error


def _prompts(store: CampaignStore, campaign_id: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for job in store.jobs(campaign_id):
        for workload in store.spec(job.job_id).workloads:
            found[workload.name] = tuple(workload.prompts)
    return found


def _inline(data: Any, asked: Mapping[str, tuple[str, ...]]) -> bool:
    entries = data["workloads"]
    changed = False
    for entry in entries if isinstance(entries, list) else [entries]:
        clients = entry.get("clients") or []
        # What clients ask at the same time has a workload for each number of them.
        name = wire_names(entry["name"], clients if isinstance(clients, list) else [clients])[0]
        if "prompts_file" in entry and name in asked:
            place = list(entry).index("prompts_file")
            del entry["prompts_file"]
            entry.insert(place, "prompts", quoted(asked[name]))
            changed = True
    return changed


def _set(data: Any, path: str, value: object) -> None:
    steps = [name or int(index) for name, index in _STEP.findall(path)]
    here = data
    for number, step in enumerate(steps[:-1]):
        here = _into(here, step, path, steps[number + 1])
    last = steps[-1]
    if isinstance(last, int) and (not isinstance(here, list) or last >= len(here)):
        raise ConfigError(f"--set {path}: the file has no such place")
    if isinstance(last, str) and not isinstance(here, dict):
        raise ConfigError(f"--set {path}: there are no keys there, but a list or a plain value")
    here[last] = value


def _into(here: Any, step: str | int, path: str, following: str | int) -> Any:
    if isinstance(step, int):
        if not isinstance(here, list) or step >= len(here):
            raise ConfigError(f"--set {path}: the file has no [{step}] there")
        return here[step]
    if not isinstance(here, dict):
        raise ConfigError(f"--set {path}: there are no keys there, but a list or a plain value")
    if step not in here:
        if isinstance(following, int):
            raise ConfigError(f"--set {path}: no {step!r} there{suggestion(step, list(here))}")
        here[step] = {}
    return here[step]


def checked(text: str) -> None:
    """Refuse a text that is no campaign file any more.

    Raises:
        ConfigError: all mistakes, with lines and columns of the changed text.
    """
    with TemporaryDirectory() as directory:
        file = Path(directory) / "changed.yaml"
        file.write_text(text, "utf-8")
        try:
            load_campaign(file)
        except ConfigError as error:
            message = error.message.replace(f"{file}:", "with these changes, line ")
            raise ConfigError(message) from error
