"""`fleetmark doctor`: is everything there that collecting needs?"""

from dataclasses import asdict

import typer

from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_finding,
    print_json,
    settings_from,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    as_json: JsonOption = False, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Check what collecting needs, and say what to do about what is missing.

    Exit code 0 when all is well (warnings included), 1 when something is missing.
    """
    from fleetmark_collector.checkup import examine
    from fleetmark_collector.findings import Finding
    from fleetmark_protocol import logs

    settings = settings_from(config, data_dir)
    # What the checks find is printed below; what they log on the way would only repeat it.
    logs.configure("error", settings.log_format)
    out = console()
    found: list[Finding] = []
    for finding in examine(settings):
        found.append(finding)
        if not as_json:
            print_finding(out, finding)
    if as_json:
        print_json([asdict(finding) for finding in found])
    raise typer.Exit(1 if any(finding.level == "missing" for finding in found) else 0)
