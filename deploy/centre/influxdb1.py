"""The users of an InfluxDB 1.x: ours, and Grafana's, which only reads; and what tells Grafana."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

from centre.telling import Wrong, say
from fleetmark_collector.enrolment.keep import Keep

GRAFANA = "grafana.env"
"""Read by systemd as root, so that no other user need see it."""

_GRAFANA_ENV = """\
INFLUXDB_URL={url}
INFLUXDB_DATABASE={database}
INFLUXDB_USERNAME=grafana
INFLUXDB_PASSWORD={readers}
GF_SECURITY_ADMIN_PASSWORD={admin}
"""


def make_users(keep: Keep, url: str, database: str) -> None:
    """Make users and database, as far as they are missing.

    Raises:
        Wrong: the server cannot be reached, or does not take our password.
    """
    own, readers = (keep.read(f"{name}-password") for name in ("influxdb", "grafana-influxdb"))
    # Without any user in it the server lets exactly this pass without a password.
    _run(url, f"CREATE USER fleetmark WITH PASSWORD '{own}' WITH ALL PRIVILEGES", None)
    _run(url, f'CREATE DATABASE "{database}"', own)
    _run(url, f"CREATE USER grafana WITH PASSWORD '{readers}'", own)
    _run(url, f'GRANT READ ON "{database}" TO grafana', own)
    say(f"{url}: user fleetmark may do everything, user grafana may read {database}")
    admin = keep.read("grafana-password")
    text = _GRAFANA_ENV.format(url=url, database=database, readers=readers, admin=admin)
    keep.write(GRAFANA, text, 0o600)


def _run(url: str, query: str, password: str | None) -> None:
    headers = {}
    if password is not None:
        code = base64.b64encode(f"fleetmark:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {code}"
    body = urllib.parse.urlencode({"q": query}).encode()
    # The address is the operator's own word.
    request = urllib.request.Request(f"{url}/query", data=body, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            said = json.load(answer)
    except urllib.error.HTTPError as error:
        # It has users already; if ours is not among them, the next query says so.
        if error.code in (401, 403) and password is None:
            return
        raise Wrong(
            f"{url}: {error.code} {error.reason}: has user fleetmark another password there?"
        ) from error
    except (OSError, ValueError) as error:
        raise Wrong(f"{url}: {error}") from error
    problem = said.get("error") or said.get("results", [{}])[0].get("error")
    if problem and "already exists" not in problem:
        raise Wrong(f"{url}: {problem}")
