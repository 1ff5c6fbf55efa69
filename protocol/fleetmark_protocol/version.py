"""The version of the wheel and of the wire schema, in one place."""

__version__ = "0.1.0"

SCHEMA_VERSION = 1
"""Version of the wire contract; part of every topic (`fleetmark/v1/...`)."""

SIMULATED_VERSION = "simulated"
"""`backend_version` of what `fleetmark simulate` made up: no engine ran."""
