"""A bill of materials lists what is there, with its licence, its digests and what needs it."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sbom

ROOT = Path(__file__).resolve().parents[2]


def wheel(directory, name, version, *lines, tag="py3-none-any"):
    file = directory / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(file, "w") as archive:
        text = "\n".join(("Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines))
        archive.writestr(f"{name}-{version}.dist-info/METADATA", text + "\n")
        # One within another is somebody else's.
        archive.writestr(f"{name}/_vendor/other-9.dist-info/METADATA", "Name: other\n")
    return file


@pytest.fixture
def wheels(tmp_path):
    directory = tmp_path / "wheels"
    directory.mkdir()
    wheel(directory, "fleetmark", "0.9.0", "Requires-Dist: Low_Level>=1")
    wheel(directory, "low_level", "1.2", "License-Expression: MIT", tag="cp311-abi3-linux_x86_64")
    wheel(directory, "low_level", "1.2", "License-Expression: MIT", tag="cp311-abi3-linux_aarch64")
    wheel(
        directory,
        "High",
        "3",
        "License: " + "a whole text " * 20,
        "Classifier: License :: OSI Approved :: MIT License",
        'Requires-Dist: low.level; extra == "x"',
    )
    return directory


@pytest.fixture
def made(wheels, tmp_path, monkeypatch, capsys):
    out = tmp_path / "dist" / "bill.json"
    monkeypatch.setattr(
        sys, "argv", ["sbom.py", "--wheels", str(wheels), "--version", "0.9.0", "--out", str(out)]
    )
    sbom.main()
    assert "2 packages" in capsys.readouterr().out
    return json.loads(out.read_text("utf-8"))


def test_what_is_delivered_is_the_subject_and_its_wheels_are_the_components(made):
    assert made["bomFormat"] == "CycloneDX"
    subject = made["metadata"]["component"]
    assert (subject["name"], subject["version"]) == ("fleetmark-agent", "0.9.0")
    assert [(one["name"], one["version"]) for one in made["components"]] == [
        ("high", "3"),
        ("low-level", "1.2"),
    ]
    assert made["components"][1]["purl"] == "pkg:pypi/low-level@1.2"


def test_each_wheel_of_a_package_has_its_digest(made, wheels):
    archives = {
        one["url"]: one["hashes"][0]["content"]
        for one in made["components"][1]["externalReferences"]
    }
    assert archives == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in wheels.glob("low_level*")
    }
    assert len(archives) == 2


def test_a_licence_is_an_expression_or_else_what_the_classifiers_say_never_its_text(made):
    high, low = made["components"]
    assert low["licenses"] == [{"license": {"id": "MIT"}}]
    assert high["licenses"] == [{"license": {"name": "MIT License"}}]


def test_it_says_who_needs_whom(made):
    needs = {one["ref"]: one.get("dependsOn", []) for one in made["dependencies"]}
    assert needs["fleetmark-agent"] == ["high@3", "low-level@1.2"]
    assert needs["high@3"] == ["low-level@1.2"]


def test_the_same_wheels_give_the_same_bill(wheels, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = sbom.bill("a", "1", sbom.of_wheels(wheels))
    assert sbom.bill("a", "1", sbom.of_wheels(wheels)) == first
    assert "2023-11-14T22:13:20" in first


def test_a_directory_without_wheels_is_no_bill(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "sbom.py", "--wheels", tmp_path, "--out", tmp_path / "b"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no wheels" in done.stderr
    assert not (tmp_path / "b").exists()
