"""The bills of `make sbom` list exactly the pinned packages that a device and a centre run."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {normal(name): version for name, version in pairs}


def needed(requirements, extras, seen):
    """Add what is needed on this machine, followed through what is installed beside us."""
    for one in map(Requirement, requirements):
        if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        key = (normal(one.name), frozenset(one.extras))
        if key not in seen:
            seen.add(key)
            needed(distribution(one.name).requires or (), one.extras, seen)


@pytest.fixture(scope="module")
def bills(tmp_path_factory):
    out = tmp_path_factory.mktemp("sbom")
    subprocess.run([sys.executable, ROOT / "tools" / "sbom.py", "--out", out], check=True)
    return out


@pytest.mark.parametrize(
    ("name", "extras"),
    [("fleetmark-agent", {"agent", "xllamacpp"}), ("fleetmark-centre", {"collector"})],
)
def test_a_bill_lists_exactly_the_pinned_packages_that_run(bills, name, extras):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    seen = set()
    needed(project["dependencies"], set(), seen)
    for extra in extras:
        needed(project["optional-dependencies"][extra], set(), seen)
    runtime = {package for package, _ in seen}
    bill = json.loads((bills / f"{name}.cdx.json").read_text("utf-8"))
    listed = {one["name"]: one["version"] for one in bill["components"]}
    assert listed == {package: pinned()[package] for package in runtime}
    for one in bill["components"]:
        assert one["licenses"], one["name"]
        assert all(archive["hashes"] for archive in one["externalReferences"]), one["name"]
        # A file's name, not where it was fetched.
        assert all("/" not in archive["url"] for archive in one["externalReferences"])
