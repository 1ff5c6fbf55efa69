"""Each threat in docs/security.md names files that are there and hold tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "security.md").read_text("utf-8")


def threats() -> list[tuple[str, str]]:
    """Return each threat with the cell that names its tests."""
    rows = [line.strip("| ").split(" | ") for line in DOC.splitlines() if line.startswith("| ")]
    return [(row[0], row[2]) for row in rows if len(row) == 3 and row[2] != "test"]


def held_by(source: str) -> list[str]:
    """Return what pytest would run of a file: functions of it or its classes; no word in a text."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    ]


def test_there_are_threats():
    assert len(threats()) > 15


@pytest.mark.parametrize(("threat", "cell"), threats())
def test_each_threat_names_files_that_hold_tests(threat, cell):
    names = re.findall(r"`([^`]+)`", cell)
    assert names, threat
    folder = ""
    for name in names:
        folder, _, file = name.rpartition("/") if "/" in name else (folder, "", name)
        path = ROOT / "tests" / folder / f"{file}.py"
        assert path.is_file(), name
        assert held_by(path.read_text("utf-8")), f"{name} holds no test"


def test_a_file_without_tests_is_found_out():
    assert held_by('"""def test_nothing(): pass"""\n# def test_either(): pass\n') == []
    assert held_by("class TestIt:\n    def test_it(self):\n        pass\n") == ["test_it"]
