"""What docs/security.md promises is tested where it says so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "security.md").read_text("utf-8")


def threats() -> list[tuple[str, str]]:
    """Return each threat with the cell that names its tests."""
    rows = [line.strip("| ").split(" | ") for line in DOC.splitlines() if line.startswith("| ")]
    return [(row[0], row[2]) for row in rows if len(row) == 3 and row[2] != "test"]


def test_there_are_threats():
    assert len(threats()) > 15


@pytest.mark.parametrize(("threat", "cell"), threats())
def test_each_threat_names_tests_that_are_there(threat, cell):
    names = re.findall(r"`([^`]+)`", cell)
    assert names, threat
    folder = ""
    for name in names:
        folder, _, file = name.rpartition("/") if "/" in name else (folder, "", name)
        assert (ROOT / "tests" / folder / f"{file}.py").is_file(), name
