"""The datasource: InfluxDB asked in InfluxQL, which 1.x, 2.x and 3 Core all answer."""

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from fleetmark_collector.grafana.names import DATASOURCE_NAME, DATASOURCE_TYPE, DATASOURCE_UID


@dataclass(frozen=True)
class Source:
    """Where and how Grafana asks InfluxDB.

    Attributes:
        url: as Grafana reaches it, which may differ from how the collector does.
        database: 1.x, 3 Core: the database; 2.x: that of the DBRP mapping.
        token: 2.x and 3 Core; None for none.
        username, password: 1.x with users; empty and None without.
        ca: the certificate (PEM) of the authority behind an https address; None for those that
            Grafana's system knows.
    """

    url: str
    database: str
    token: SecretStr | None = None
    username: str = ""
    password: SecretStr | None = None
    ca: SecretStr | None = None


def visible(source: Source) -> dict[str, Any]:
    """Return the datasource without its secrets, as Grafana gives it back."""
    # InfluxDB takes a token in a header alone, which Grafana knows as a custom one.
    header = {"httpHeaderName1": "Authorization"} if source.token else {}
    return {
        "uid": DATASOURCE_UID,
        "name": DATASOURCE_NAME,
        "type": DATASOURCE_TYPE,
        "access": "proxy",
        "url": source.url,
        "user": source.username,
        "isDefault": False,
        "jsonData": {
            "version": "InfluxQL",
            "dbName": source.database,
            "httpMode": "GET",
            # The collector observes every ten seconds: narrower windows would mostly be empty.
            "timeInterval": "10s",
            "tlsAuthWithCACert": source.ca is not None,
            **header,
        },
    }


def secrets(source: Source) -> dict[str, str]:
    """Return what Grafana keeps encrypted and gives back to nobody."""
    found: dict[str, str] = {}
    if source.token:
        found["httpHeaderValue1"] = f"Token {source.token.get_secret_value()}"
    if source.password:
        found["password"] = source.password.get_secret_value()
    if source.ca:
        found["tlsCACert"] = source.ca.get_secret_value()
    return found


def with_token_file(token_file: str, ca_file: str) -> dict[str, Any]:
    """Return the file that Grafana reads at its start, for a server that asks for a token.

    Grafana reads address and database from its environment, token and certificate from files.

    Args:
        token_file: holds the token alone; Grafana reads it, not we.
        ca_file: certificate of the authority; empty for none.
    """
    return _file(
        Source(
            "${INFLUXDB_URL}",
            "${INFLUXDB_DATABASE}",
            token=_from_file(token_file),
            ca=_from_file(ca_file) if ca_file else None,
        )
    )


def with_environment() -> dict[str, Any]:
    """Return the same for InfluxDB 1.x: user and password from the environment, or neither."""
    return _file(
        Source(
            "${INFLUXDB_URL}",
            "${INFLUXDB_DATABASE}",
            username="${INFLUXDB_USERNAME}",
            password=SecretStr("${INFLUXDB_PASSWORD}"),
        )
    )


def _from_file(path: str) -> SecretStr:
    return SecretStr(f"$__file{{{path}}}")


def _file(source: Source) -> dict[str, Any]:
    one = {**visible(source), "secureJsonData": secrets(source), "editable": False}
    return {"apiVersion": 1, "datasources": [one]}
