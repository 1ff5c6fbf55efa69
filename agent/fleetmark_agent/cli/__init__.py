"""The command line of a device; this much of it can be imported in any install."""

from fleetmark_protocol.extras import needed


def main() -> None:
    """Run `fleetmark-agent`, or say what to install for it."""
    with needed("agent"):
        from fleetmark_agent.cli.main import main as run

        run()
