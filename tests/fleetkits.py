"""The kit of one device for tests of `fleet install`, and what tells of its secret."""

import hashlib

from fleetmark_collector.fleet.kits import Kit

SETTINGS = """\
device_id = "pi-1"

[broker]
host = "centre.example"
password_file = "/etc/fleetmark/agent-password"
"""
KIT = Kit("pi-1", {"agent.toml": SETTINGS.encode(), "agent-password": b"secret\n"})
DIGEST = {"agent-password": hashlib.sha256(b"secret\n").hexdigest()}
