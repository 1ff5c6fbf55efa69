"""Asks whether a pinned package has a known vulnerability: pip-audit, and a check that it can tell.

    tools/audit.py                   exit 0: none known; 1: there is one, or nobody could be asked
    tools/audit.py --if-reachable    where nobody can be asked, says so and exits 0

pip-audit alone would call everything sound where the index has no such knowledge, as a mirror has
none. So a service is believed only if it knows the hole of an old package that has one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KNOWN_HOLE = "jinja2==2.11.2"
"""CVE-2020-28493."""
SERVICES = ("pypi", "osv")
OSV_URL = "FLEETMARK_OSV_URL"
"""Variable: address of another service that speaks as OSV does; then that alone is asked."""


def ask(service: list[str], requirements: Path) -> list[dict[str, Any]] | None:
    """Return what a service says of each package; None where it cannot be asked."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "said.json")
        command = [sys.executable, "-m", "pip_audit", *service, "--requirement", str(requirements)]
        command += ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "10"]
        command += ["--format", "json", "--output", str(out)]
        # Exit 1 is a hole as well as no network: what it wrote tells them apart.
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            said: list[dict[str, Any]] = json.loads(out.read_text("utf-8"))["dependencies"]
        except (OSError, ValueError, KeyError):
            return None
        return said


def knows(service: list[str]) -> bool:
    """Whether a service can be asked, and knows the hole that everybody knows."""
    with tempfile.TemporaryDirectory() as directory:
        requirements = Path(directory, "requirements.txt")
        requirements.write_text(KNOWN_HOLE + "\n", "utf-8")
        return any(one.get("vulns") for one in ask(service, requirements) or ())


def services() -> dict[str, list[str]]:
    """Return pip-audit's options for each service that may be asked, the first one first."""
    other = os.environ.get(OSV_URL)
    if other:
        return {other: ["--vulnerability-service", "osv", "--osv-url", other]}
    return {name: ["--vulnerability-service", name] for name in SERVICES}


def audit(requirements: Path, *, if_reachable: bool) -> int:
    """Say what is known of the pinned packages; return the exit code."""
    known = services()
    name = next((name for name, options in known.items() if knows(options)), None)
    said = None if name is None else ask(known[name], requirements)
    if said is None:
        print(f"not audited: no vulnerability service reachable (tried {', '.join(known)})")
        return 0 if if_reachable else 1
    holes = [(one, hole) for one in said for hole in one.get("vulns", ())]
    for one, hole in holes:
        mended = ", ".join(hole.get("fix_versions", ())) or "none yet"
        print(f"{one['name']} {one['version']}: {hole['id']}; without it: {mended}")
    left_out = [one for one in said if "skip_reason" in one]
    for one in left_out:
        print(f"not audited: {one['skip_reason']}")
    print(f"{len(said) - len(left_out)} packages audited by {name}: {len(holes)} known holes")
    return 1 if holes or left_out else 0


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--if-reachable", action="store_true")
    parser.add_argument("requirements", nargs="?", type=Path, default=ROOT / "constraints.txt")
    asked = parser.parse_args()
    return audit(asked.requirements, if_reachable=asked.if_reachable)


if __name__ == "__main__":
    sys.exit(main())
