"""Grafana's HTTP API as far as we need it: plain data in and out, every failure one of ours."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from fleetmark_collector.grafana.names import OLDEST_GRAFANA
from fleetmark_protocol.errors import ConfigError, FleetmarkError, GrafanaFailed
from fleetmark_protocol.settings import is_loopback

TIMEOUT_S = 30.0

Json = dict[str, Any]


class Grafana:
    """A server.

    What is asked for and is not there is None; what goes wrong is a `ConfigError` where the user
    can mend it (address, token, permission, version), else a `GrafanaFailed`.
    """

    def __init__(self, url: str, token: SecretStr, ca_file: Path | None = None) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: of the server, with the path it is served under, if any.
            token: of a service account.
            ca_file: the CA that signed the server's certificate, if the system does not know it.

        Raises:
            ConfigError: the address is none, or would send the token in clear.
        """
        from grafana_client import GrafanaApi

        parts = _address(url)
        path = parts.path.strip("/")
        self.url = url.rstrip("/")
        self._api = GrafanaApi(
            token.get_secret_value(),
            protocol=parts.scheme,
            host=f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname,
            port=parts.port,
            url_path_prefix=f"{path}/" if path else "",
            verify=True if ca_file is None else str(ca_file),
            timeout=TIMEOUT_S,
        )

    def check(self) -> str:
        """Return the server's version, once it is known that it is a Grafana that knows us.

        Raises:
            ConfigError: it is none, is too old, or does not take the token.
            GrafanaFailed: it cannot be reached.
        """
        health = self._ask("", lambda: self._api.client.GET("/health"))
        if not isinstance(health, dict) or "database" not in health:
            raise ConfigError(f"{self.url} answers, but not as a Grafana does")
        settings = self._ask("", lambda: self._api.client.GET("/frontend/settings"))
        # A server may be set to hide its version from strangers; with a token it tells.
        version = str((settings or {}).get("buildInfo", {}).get("version", ""))
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
        if len(numbers) == 2 and numbers < OLDEST_GRAFANA:
            oldest = ".".join(map(str, OLDEST_GRAFANA))
            raise ConfigError(
                f"{self.url} is Grafana {version}; the dashboards need {oldest} or newer",
                hint="a newer Grafana shows older dashboards, never the other way round",
            )
        return version

    # --- folders ----------------------------------------------------------------------------

    def folder(self, uid: str) -> Json | None:
        """Return a folder."""
        return self._find(f"folder {uid}", lambda: self._api.folder.get_folder(uid))

    def create_folder(self, uid: str, title: str) -> None:
        """Make a folder."""
        self._ask(f"folder {title}", lambda: self._api.folder.create_folder(title, uid=uid))

    def rename_folder(self, uid: str, title: str, version: int) -> None:
        """Give a folder its title back."""
        self._ask(
            f"folder {title}",
            lambda: self._api.folder.update_folder(uid, title=title, version=version),
        )

    # --- datasource -------------------------------------------------------------------------

    def datasource(self, uid: str) -> Json | None:
        """Return a datasource; secrets are never in it, but which there are is."""
        return self._find(
            f"datasource {uid}", lambda: self._api.datasource.get_datasource_by_uid(uid)
        )

    def create_datasource(self, payload: Json) -> None:
        """Make a datasource."""
        self._ask("datasource", lambda: self._api.datasource.create_datasource(payload))

    def update_datasource(self, uid: str, payload: Json) -> None:
        """Replace a datasource; secrets that are not given stay."""
        self._ask("datasource", lambda: self._api.datasource.update_datasource_by_uid(uid, payload))

    def datasource_problem(self, uid: str) -> str | None:
        """Let Grafana ask the datasource something; return what went wrong."""
        from grafana_client.client import GrafanaClientError, GrafanaServerError

        try:
            with _translated("datasource", self.url):
                answer = self._api.datasource.health(uid)
        except GrafanaFailed as error:
            cause = error.__cause__
            if isinstance(cause, GrafanaClientError | GrafanaServerError):
                return _message(cause.response, str(cause))
            raise
        ok = isinstance(answer, dict) and answer.get("status") == "OK"
        return None if ok else _message(answer, "no answer")

    # --- dashboards -------------------------------------------------------------------------

    def dashboard(self, uid: str) -> Json | None:
        """Return a dashboard with what Grafana knows of it: `dashboard` and `meta`."""
        return self._find(f"dashboard {uid}", lambda: self._api.dashboard.get_dashboard(uid))

    def save_dashboard(self, dashboard: Json, folder_uid: str, message: str) -> None:
        """Make or replace a dashboard; its `version` must be the server's, if it has one."""
        payload = {
            "dashboard": dashboard,
            "folderUid": folder_uid,
            "message": message,
            "overwrite": False,
        }
        self._ask(
            f"dashboard {dashboard['title']}",
            lambda: self._api.dashboard.update_dashboard(payload),
        )

    # --- alert rules ------------------------------------------------------------------------

    def rule_group(self, folder_uid: str, group: str) -> Json | None:
        """Return a group of rules."""
        return self._find(
            f"alert rules {group}",
            lambda: self._api.alertingprovisioning.get_rule_group(folder_uid, group),
        )

    def save_rule_group(self, folder_uid: str, group: str, payload: Json) -> None:
        """Replace a group of rules; people may change them in Grafana, too."""
        self._ask(
            f"alert rules {group}",
            lambda: self._api.alertingprovisioning.update_rule_group(
                folder_uid, group, payload, disable_provenance=True
            ),
        )

    # --- errors -----------------------------------------------------------------------------

    def _ask(self, what: str, ask: Any) -> Any:
        with _translated(what, self.url):
            return ask()

    def _find(self, what: str, ask: Any) -> Json | None:
        from grafana_client.client import GrafanaClientError

        with _translated(what, self.url):
            try:
                return dict(ask())
            except GrafanaClientError as error:
                if error.status_code == 404:
                    return None
                raise


def _address(url: str) -> Any:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"--url {url}: not an address such as https://grafana.example:3000")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "--url: an address alone, without user, password, ? and #",
            hint="the token of a service account goes into a file: --token-file",
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigError(f"--url: would send the token to {parts.hostname} in clear; use https")
    return parts


@contextmanager
def _translated(what: str, url: str) -> Iterator[None]:
    from grafana_client.client import GrafanaException, GrafanaTimeoutError
    from niquests.exceptions import RequestException

    about = f"{what}: " if what else ""
    try:
        yield
    except GrafanaTimeoutError as error:
        raise GrafanaFailed(f"{about}{url} did not answer within {TIMEOUT_S:.0f} s") from error
    except GrafanaException as error:
        raise _refused(about, url, error.status_code, _message(error.response, "")) from error
    except (RequestException, OSError) as error:
        if isinstance(error, json.JSONDecodeError):
            raise ConfigError(f"{url} answers, but not as a Grafana does") from error
        raise GrafanaFailed(
            f"{about}{url} cannot be reached: {_innermost(error)}",
            hint="does Grafana run, and is this its address as seen from here?",
        ) from error


def _refused(about: str, url: str, status: int, message: str) -> FleetmarkError:
    said = f"{status} {message}".strip()
    if status == 401:
        return ConfigError(
            f"{about}{url} does not take the token ({said})",
            hint="make a token for a service account: Administration > Users and access",
        )
    if status == 403:
        return ConfigError(
            f"{about}{url} does not allow it ({said})",
            hint="the service account needs the role Admin: a datasource and alert rules do; "
            "where files provision the same things, Grafana lets nobody else change them",
        )
    if status == 404 and not about:
        return ConfigError(f"{url} answers, but not as a Grafana does ({said})")
    hints = {
        409: "something else has that name or uid, or somebody changed it at the same time",
        412: "somebody changed it in Grafana at the same time, or another one has its name; "
        "look at it, and push again",
    }
    return GrafanaFailed(f"{about}Grafana says {said}", hint=hints.get(status))


def _message(response: object, otherwise: str) -> str:
    if isinstance(response, dict):
        return str(response.get("message") or otherwise)
    # Something between us and Grafana answers with a page: its beginning will do.
    return str(response)[:200] if response else otherwise


def _innermost(error: BaseException) -> str:
    inner = error.__cause__ or error.__context__
    return _innermost(inner) if inner is not None else str(error) or type(error).__name__
