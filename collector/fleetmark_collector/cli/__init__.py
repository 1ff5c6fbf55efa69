"""The operator's commands, one file per group; this much can be imported in any install."""

from fleetmark_protocol.extras import needed


def main() -> None:
    """Run `fleetmark`, or say what to install for it."""
    with needed("collector"):
        from fleetmark_collector.cli.main import main as run

        run()
