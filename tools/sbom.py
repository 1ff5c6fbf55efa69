"""Says what fleetmark brings along: CycloneDX bills of materials, with licences and digests.

    tools/sbom.py
        dist/: what a device gets (with the default engine) and what a centre gets, as pip resolves
        it here and now
    tools/sbom.py --wheels DIR --name NAME --version VERSION --out FILE
        what is in a directory of wheels; asks no network

A bill lists Python packages. What their makers compiled into them (llama.cpp in xllamacpp) and what
comes from the system (Python, Mosquitto, InfluxDB) is not in it.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import uuid
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, PathDistribution, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cyclonedx.contrib.hash.factories import HashTypeFactory
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fleetmark_protocol.version import __version__

ROOT = Path(__file__).resolve().parent.parent
OURS = "fleetmark"
SETS = {
    "fleetmark-agent": ("agent", "xllamacpp"),
    "fleetmark-centre": ("collector",),
}
"""Who gets what: name of the bill -> extras."""
_LONGEST_LICENCE = 80
"""A longer one is the text itself, not its name."""


@dataclass(frozen=True, eq=False)
class Package:
    """A Python package that is brought along."""

    metadata: dict[str, Any]
    """As the package has it, in the JSON form of pip and importlib."""
    archives: tuple[tuple[str, str], ...]
    """File name and SHA-256; several where a bill is for several kinds of machine."""

    @property
    def name(self) -> str:
        """The name as indexes write it."""
        return canonicalize_name(self.metadata["name"])

    @property
    def version(self) -> str:
        """Its version."""
        return str(self.metadata["version"])

    @property
    def requires(self) -> set[str]:
        """Names of what it may need, on whatever machine."""
        named = self.metadata.get("requires_dist") or ()
        return {canonicalize_name(Requirement(one).name) for one in named}


def resolved(extras: Iterable[str]) -> list[Package]:
    """Return what pip would install for these extras, in the pinned versions."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--disable-pip-version-check", "--report", str(report)]
        command += ["-c", str(ROOT / "constraints.txt"), *_requirements(extras)]
        # As tools/setup.sh does: its wheel would put itself in the place of urllib3.
        also = {"PIP_NO_BINARY": "urllib3-future", "URLLIB3_NO_OVERRIDE": "1"}
        subprocess.run(command, check=True, env={**os.environ, **also})
        entries = json.loads(report.read_text("utf-8"))["install"]
    packages = []
    for entry in entries:
        source = entry["download_info"]
        file = unquote(urlsplit(source["url"]).path.rsplit("/", 1)[-1])
        digest = source["archive_info"]["hashes"]["sha256"]
        packages.append(Package(_whole(entry["metadata"]), ((file, digest),)))
    return packages


def _requirements(extras: Iterable[str]) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = (project["optional-dependencies"][extra] for extra in extras)
    return [*project["dependencies"], *(one for some in asked for one in some)]


def _whole(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a package: pip before 24 does not report `License-Expression`."""
    try:
        here = distribution(metadata["name"])
    except PackageNotFoundError:
        return metadata
    return metadata if here.version != metadata["version"] else {**here.metadata.json, **metadata}


def of_wheels(directory: Path) -> list[Package]:
    """Return what lies in a directory of wheels, but for our own."""
    found: dict[tuple[str, str], Package] = {}
    for wheel in sorted(directory.rglob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            [info] = {
                name.split("/")[0]
                for name in archive.namelist()
                if name.endswith(".dist-info/METADATA") and name.count("/") == 1
            }
            metadata = PathDistribution(zipfile.Path(archive, f"{info}/")).metadata.json
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        package = Package(metadata, ((wheel.name, digest),))
        same = found.get((package.name, package.version))
        if same is not None:
            # Of another architecture, or for another Python.
            archives = dict([*same.archives, *package.archives])
            package = Package(metadata, tuple(sorted(archives.items())))
        if package.name != OURS:
            found[package.name, package.version] = package
    return list(found.values())


def bill(name: str, version: str, packages: Iterable[Package]) -> str:
    """Return the bill of materials, as JSON; the same for the same packages but for its date."""
    packages = sorted(packages, key=lambda one: (one.name, one.version))
    bom = Bom(
        serial_number=uuid.uuid5(
            uuid.NAMESPACE_URL,
            repr([name, version, [(one.name, one.version, one.archives) for one in packages]]),
        )
    )
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    bom.metadata.timestamp = (
        datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    )
    licences = LicenseFactory()
    root = Component(
        name=name,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=name,
        licenses=[licences.make_from_string("Apache-2.0")],
    )
    bom.metadata.component = root
    components = {}
    for package in packages:
        component = Component(
            name=package.name,
            version=package.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{package.name}@{package.version}",
            purl=PackageURL("pypi", name=package.name, version=package.version),
            licenses=_licences(package.metadata, licences),
            external_references=[
                ExternalReference(
                    type=ExternalReferenceType.DISTRIBUTION,
                    url=XsUri(file),
                    hashes=[HashTypeFactory().from_composite_str(f"sha256:{digest}")],
                )
                for file, digest in package.archives
            ],
        )
        components[package] = component
        bom.components.add(component)
    bom.register_dependency(root, components.values())
    for package, component in components.items():
        needed = [other for one, other in components.items() if one.name in package.requires]
        bom.register_dependency(component, needed)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _licences(metadata: dict[str, Any], factory: LicenseFactory) -> list[Any]:
    """Return what a package says of its licence; none where it says nothing."""
    named = metadata.get("license_expression") or metadata.get("license") or ""
    if named.strip() and len(named) <= _LONGEST_LICENCE and "\n" not in named.strip():
        return [factory.make_from_string(named.strip())]
    said = (one for one in metadata.get("classifier", ()) if one.startswith("License :: "))
    return [factory.make_with_name(one.rsplit(" :: ", 1)[-1]) for one in said]


def main() -> None:
    """Write the bills that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--name", default="fleetmark-agent")
    parser.add_argument("--version", default=__version__)
    parser.add_argument("--out", type=Path, help="a file; without --wheels a directory")
    asked = parser.parse_args()
    if asked.wheels is not None:
        bills = {asked.out or ROOT / "dist" / f"{asked.name}.cdx.json": of_wheels(asked.wheels)}
    else:
        into = asked.out or ROOT / "dist"
        bills = {into / f"{name}.cdx.json": resolved(extras) for name, extras in SETS.items()}
    for file, packages in bills.items():
        if not packages:
            sys.exit(f"{asked.wheels}: no wheels")
        file.parent.mkdir(parents=True, exist_ok=True)
        name = asked.name if asked.wheels is not None else file.name.removesuffix(".cdx.json")
        file.write_text(bill(name, asked.version, packages), "utf-8")
        print(f"{file}: {len(packages)} packages")


if __name__ == "__main__":
    main()
