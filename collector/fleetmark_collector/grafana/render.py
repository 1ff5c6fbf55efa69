"""Writes what a Grafana reads at its start: dashboards, rules, datasource, all as files."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetmark_collector.grafana import datasource
from fleetmark_collector.grafana.alerts import group_for_file
from fleetmark_collector.grafana.board import to_json
from fleetmark_collector.grafana.catalogue import BOARDS
from fleetmark_collector.grafana.names import FOLDER_TITLE, FOLDER_UID


@dataclass(frozen=True)
class Places:
    """Where a Grafana finds what its files speak of; at first those of deploy/compose.yaml.

    Attributes:
        dashboards: the directory with the dashboards' files.
        token: the file with InfluxDB's token.
        ca: the file with the certificate of the authority behind InfluxDB's; empty for none.
    """

    dashboards: str = "/var/lib/grafana/dashboards"
    token: str = "/run/secrets/grafana-influxdb-token"  # noqa: S105 - a place, not a secret
    ca: str = "/run/secrets/ca.crt"


WRITTEN_BY = "# Written by `fleetmark grafana render`; a change here is lost at the next time.\n"


def files(places: Places) -> dict[Path, str]:
    """Return every file with its text; the same every time, so that a change is a change."""
    found = {
        Path("dashboards") / f"{board.uid.removeprefix('fleetmark-')}.json": _json(to_json(board))
        for board in BOARDS
    }
    provisioning = Path("provisioning")
    found[provisioning / "dashboards" / "fleetmark.yaml"] = _yaml(_provider(places.dashboards))
    found[provisioning / "alerting" / "fleetmark.yaml"] = _yaml(
        {"apiVersion": 1, "groups": [group_for_file()]}
    )
    found[provisioning / "datasources" / "fleetmark.yaml"] = _yaml(
        datasource.with_token_file(places.token, places.ca)
    )
    # Beside the others, not among them: Grafana reads every file of that folder.
    found[Path("influxdb1") / "fleetmark.yaml"] = _yaml(datasource.with_environment())
    return found


def write(directory: Path, places: Places) -> list[Path]:
    """Write all files below a directory; return those that were new or different."""
    changed = stale(directory, places)
    texts = files(places)
    for path in changed:
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(texts[path], "utf-8")
    return changed


def stale(directory: Path, places: Places) -> list[Path]:
    """Return which files below a directory are missing or differ from what they should be."""
    return [path for path, text in files(places).items() if _read(directory / path) != text]


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return None


def _provider(dashboards: str) -> dict[str, Any]:
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "fleetmark",
                "orgId": 1,
                "folder": FOLDER_TITLE,
                "folderUid": FOLDER_UID,
                "type": "file",
                "disableDeletion": False,
                "allowUiUpdates": False,
                "updateIntervalSeconds": 60,
                "options": {"path": dashboards},
            }
        ],
    }


def _json(dashboard: Mapping[str, Any]) -> str:
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def _yaml(content: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 10_000
    out = io.StringIO()
    yaml.dump(dict(content), out)
    return WRITTEN_BY + out.getvalue()
