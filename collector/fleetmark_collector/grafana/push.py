"""Brings a Grafana to what the code says: makes what is missing, mends what differs, no more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fleetmark_collector.grafana.alerts import group_for_api
from fleetmark_collector.grafana.api import Grafana, Json
from fleetmark_collector.grafana.board import to_json
from fleetmark_collector.grafana.catalogue import BOARDS
from fleetmark_collector.grafana.datasource import Source, secrets, visible
from fleetmark_collector.grafana.names import (
    ALERT_FOLDER_TITLE,
    ALERT_FOLDER_UID,
    ALERT_GROUP,
    DATASOURCE_UID,
    FOLDER_TITLE,
    FOLDER_UID,
)
from fleetmark_protocol.errors import GrafanaFailed
from fleetmark_protocol.version import __version__

Did = Literal["created", "updated", "unchanged"]

MESSAGE = f"fleetmark {__version__}: grafana push"
"""What Grafana notes with the new version of a dashboard."""

NOT_COMPARED = frozenset({"schemaVersion"})
"""A newer Grafana rewrites a dashboard for itself, and says so here."""


@dataclass(frozen=True)
class Outcome:
    """What became of one thing, or would have become of it.

    Attributes:
        differences: where the server's differed, as paths into it.
    """

    kind: Literal["folder", "datasource", "dashboard", "alert rules"]
    name: str
    did: Did
    differences: tuple[str, ...] = ()


def push(grafana: Grafana, source: Source | None, *, dry_run: bool) -> Iterator[Outcome]:
    """Do it, and tell of each thing when it is done; what needs another comes after it.

    Args:
        grafana: the server.
        source: the datasource; None leaves the server's alone.
        dry_run: only look.

    Raises:
        ConfigError, GrafanaFailed: see `Grafana`; what was told before is done.
    """
    yield _folder(grafana, FOLDER_UID, FOLDER_TITLE, dry_run)
    yield _folder(grafana, ALERT_FOLDER_UID, ALERT_FOLDER_TITLE, dry_run)
    if source is not None:
        yield _datasource(grafana, source, dry_run)
    for board in BOARDS:
        yield _dashboard(grafana, to_json(board), dry_run)
    yield _rules(grafana, group_for_api(), dry_run)


def check_datasource(grafana: Grafana) -> None:
    """Let Grafana ask InfluxDB.

    Raises:
        GrafanaFailed: it cannot.
    """
    problem = grafana.datasource_problem(DATASOURCE_UID)
    if problem is not None:
        raise GrafanaFailed(
            f"all is pushed, but Grafana cannot ask InfluxDB: {problem}",
            hint="is the address right as seen from Grafana, and is the token or password one "
            "that may read? For InfluxDB 2, `fleetmark store init` makes the DBRP mapping",
        )


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield where a server's thing lacks or contradicts ours.

    What the server has beyond ours in an object is its own (ids, times, defaults); lists must have
    the same length.
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key, value in ours.items():
            if key not in NOT_COMPARED:
                yield from differences(value, theirs.get(key), f"{path}.{key}" if path else key)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(mine, other, f"{path}[{place}]")
    elif not _same(ours, theirs):
        yield path


def _same(ours: Any, theirs: Any) -> bool:
    # Grafana leaves out what is empty or false.
    return bool(ours == theirs) or (theirs is None and ours in ("", False, [], {}))


def _folder(grafana: Grafana, uid: str, title: str, dry_run: bool) -> Outcome:
    theirs = grafana.folder(uid)
    if theirs is None:
        if not dry_run:
            grafana.create_folder(uid, title)
        return Outcome("folder", title, "created")
    if theirs.get("title") == title:
        return Outcome("folder", title, "unchanged")
    if not dry_run:
        grafana.rename_folder(uid, title, int(theirs.get("version", 0)))
    return Outcome("folder", title, "updated", ("title",))


def _datasource(grafana: Grafana, source: Source, dry_run: bool) -> Outcome:
    ours, hidden = visible(source), secrets(source)
    name = str(ours["name"])
    theirs = grafana.datasource(DATASOURCE_UID)
    if theirs is None:
        if not dry_run:
            grafana.create_datasource({**ours, "secureJsonData": hidden})
        return Outcome("datasource", name, "created")
    found = tuple(differences(ours, theirs))
    kept: Mapping[str, object] = theirs.get("secureJsonFields") or {}
    found += tuple(f"secureJsonData.{key}" for key in hidden if not kept.get(key))
    if not found and hidden and not dry_run and grafana.datasource_problem(DATASOURCE_UID):
        # Grafana shows no secret, so a changed one only shows in that the old one fails.
        found = tuple(f"secureJsonData.{key}" for key in hidden)
    if not found:
        return Outcome("datasource", name, "unchanged")
    if not dry_run:
        payload = {**ours, "secureJsonData": hidden, "version": theirs.get("version")}
        grafana.update_datasource(DATASOURCE_UID, payload)
    return Outcome("datasource", name, "updated", found)


def _dashboard(grafana: Grafana, ours: Json, dry_run: bool) -> Outcome:
    title = str(ours["title"])
    theirs = grafana.dashboard(str(ours["uid"]))
    if theirs is None:
        if not dry_run:
            grafana.save_dashboard({**ours, "id": None}, FOLDER_UID, MESSAGE)
        return Outcome("dashboard", title, "created")
    found = tuple(differences(ours, theirs["dashboard"]))
    if theirs["meta"].get("folderUid") != FOLDER_UID:
        found += ("its folder",)
    if not found:
        return Outcome("dashboard", title, "unchanged")
    if not dry_run:
        # With the version that was compared: what somebody saves meanwhile is not lost unseen.
        place = {key: theirs["dashboard"].get(key) for key in ("id", "version")}
        grafana.save_dashboard({**ours, **place}, FOLDER_UID, MESSAGE)
    return Outcome("dashboard", title, "updated", found)


def _rules(grafana: Grafana, ours: Json, dry_run: bool) -> Outcome:
    theirs = grafana.rule_group(ALERT_FOLDER_UID, ALERT_GROUP)
    found = (
        ()
        if theirs is None
        else tuple(differences(ours, {**theirs, "rules": _by_uid(theirs, ours)}))
    )
    if theirs is not None and not found:
        return Outcome("alert rules", ALERT_GROUP, "unchanged")
    if not dry_run:
        grafana.save_rule_group(ALERT_FOLDER_UID, ALERT_GROUP, ours)
    return Outcome("alert rules", ALERT_GROUP, "created" if theirs is None else "updated", found)


def _by_uid(theirs: Json, ours: Json) -> Sequence[Json]:
    """Return the server's rules in our order, those that are not ours last."""
    order = {rule["uid"]: place for place, rule in enumerate(ours["rules"])}
    return sorted(
        theirs.get("rules") or [], key=lambda rule: order.get(rule.get("uid"), len(order))
    )
