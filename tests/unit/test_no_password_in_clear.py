"""A password goes to another machine under TLS or not at all, whoever says where and how."""

import os
import subprocess
import sys

import pytest

from fleetmark_agent.config import AgentSettings
from fleetmark_collector.config import CollectorSettings
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import is_loopback, load

ELSEWHERE = [
    *("broker.example", "192.0.2.7", "10.0.0.1", "2001:db8::1", "fe80::1", "0.0.0.0", "::"),
    *("localhost.example", "localhost.localdomain", "127.0.0.1.example", "localhost.", "Localhost"),
    *("::ffff:192.0.2.7", "127.0.0.1.nip.io", "ip6-localhost", "xn--lcalhost-54a"),
]
HERE = ["localhost", "127.0.0.1", "127.0.0.2", "::1"]

AGENT = {"FLEETMARK_DEVICE_ID": "pi-1"}


@pytest.mark.parametrize("host", ELSEWHERE)
def test_only_this_machine_passes_for_this_machine(host):
    assert not is_loopback(host)


@pytest.mark.parametrize("kind", [AgentSettings, CollectorSettings])
@pytest.mark.parametrize("host", ELSEWHERE)
def test_a_broker_elsewhere_gets_no_password_without_tls(kind, host):
    environ = {
        **AGENT,
        "FLEETMARK_BROKER__HOST": host,
        "FLEETMARK_BROKER__USERNAME": "pi-1",
        "FLEETMARK_BROKER__PASSWORD_FILE": "/etc/fleetmark/agent-password",
    }
    assert load(kind, None, environ=environ).broker.uses_tls, "where nobody says, TLS it is"
    with pytest.raises(ConfigError, match=r"password to .* in clear"):
        load(kind, None, environ={**environ, "FLEETMARK_BROKER__TLS": "false"})


@pytest.mark.parametrize("kind", [AgentSettings, CollectorSettings])
@pytest.mark.parametrize("host", HERE)
def test_this_machine_gets_it_in_clear(kind, host):
    environ = {
        **AGENT,
        "FLEETMARK_BROKER__HOST": host,
        "FLEETMARK_BROKER__USERNAME": "pi-1",
    }
    assert not load(kind, None, environ=environ).broker.uses_tls


def test_a_flag_over_a_file_is_looked_at_together_with_it(tmp_path):
    file = tmp_path / "collector.toml"
    file.write_text('[broker]\nusername = "u"\ntls = false\n', "utf-8")
    assert not load(CollectorSettings, file).broker.uses_tls
    with pytest.raises(ConfigError, match="in clear"):
        load(CollectorSettings, file, {"broker": {"host": "broker.example"}})


# An address has no capitals: there, Localhost is this machine's name.
@pytest.mark.parametrize("host", [host for host in ELSEWHERE if host != "Localhost"])
def test_a_database_elsewhere_gets_neither_token_nor_password_by_http(host):
    url = f"http://[{host}]:8086" if ":" in host else f"http://{host}:8086"
    for secret in (
        {"token_file": "/x"},
        {"username": "u", "password_file": "/x"},
    ):
        with pytest.raises(ConfigError, match="in clear"):
            load(CollectorSettings, None, {"store": {"kind": "influxdb", "url": url, **secret}}, {})


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("fleetmark_agent", ("run",)),
        ("fleetmark_agent", ("doctor",)),
        ("fleetmark_collector", ("collect",)),
        ("fleetmark_collector", ("doctor",)),
        ("fleetmark_collector", ("simulate", "--devices", "1")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_every_command_that_would_send_it_ends_with_2_before_it_connects(tmp_path, module, command):
    done = subprocess.run(
        [sys.executable, "-m", module, *command],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={
            **os.environ,
            **AGENT,
            "FLEETMARK_STATE_DIR": str(tmp_path),
            "FLEETMARK_DATA_DIR": str(tmp_path),
            "FLEETMARK_BROKER__HOST": "192.0.2.7",
            "FLEETMARK_BROKER__TLS": "false",
            "FLEETMARK_BROKER__USERNAME": "pi-1",
        },
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "in clear" in done.stderr
    assert "Traceback" not in done.stderr
