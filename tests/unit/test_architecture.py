"""The rules of the house: who may import whom, how long a module may get, what starts light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from fleetmark_protocol.errors import all_errors

ROOT = Path(__file__).parents[2]
ROOMS = ("agent/fleetmark_agent", "collector/fleetmark_collector", "protocol/fleetmark_protocol")
MODULES = sorted(
    file.relative_to(ROOT) for room in (*ROOMS, "tools") for file in (ROOT / room).rglob("*.py")
)
MAX_LINES = 300
"""Blank lines are free."""

ENGINES = {"ctransformers", "llama_cpp", "ollama", "torch", "transformers", "xllamacpp"}
NUMBERS = {"gguf", "numpy", "pandas", "plotly", "scipy"}
NETWORK = {"amqtt", "httpx", "paho"}

AGENT_MODULES = sorted(
    ".".join(file.relative_to("agent").with_suffix("").parts)
    for file in MODULES
    if file.parts[0] == "agent" and file.name not in {"__init__.py", "__main__.py"}
)


def loaded_after(*modules):
    """The top-level packages in memory of a fresh interpreter that imported these modules."""
    code = f"import sys, json, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_nobody_imports_what_the_design_forbids(capsys):
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


@pytest.mark.parametrize("file", MODULES, ids=str)
def test_a_module_says_why_it_exists_and_is_short_enough_to_be_read_at_once(file):
    text = (ROOT / file).read_text("utf-8")
    assert (ast.get_docstring(ast.parse(text)) or "").strip(), "its first line must be a docstring"
    assert len(text.splitlines()) <= MAX_LINES, "split it: one reason to exist each"


def test_a_module_of_one_room_is_never_named_like_its_room():
    # `import agent` would take whatever package of that name somebody else installed.
    for room in ("agent", "collector", "protocol"):
        assert not (ROOT / room / "__init__.py").exists()


def test_the_agents_command_starts_without_engines_numbers_or_network():
    assert loaded_after("fleetmark_agent.cli.main") & (ENGINES | NUMBERS | NETWORK) == set()


def test_the_collectors_command_starts_without_numbers_or_network():
    assert loaded_after("fleetmark_collector.cli.main") & (ENGINES | NUMBERS | NETWORK) == set()


def test_no_module_of_the_agent_loads_an_engine_by_being_imported():
    assert loaded_after(*AGENT_MODULES) & ENGINES == set()


def test_the_protocol_needs_nothing_but_its_few_libraries():
    modules = [f"fleetmark_protocol.{file.stem}" for file in MODULES if file.parts[0] == "protocol"]
    heavy = ENGINES | NUMBERS | NETWORK | {"psutil", "typer", "fleetmark_agent"}
    assert loaded_after(*(m for m in modules if not m.endswith("__init__"))) & heavy == set()


def test_every_error_is_defined_with_the_others_where_the_docs_find_it():
    names = {kind.__name__ for kind in all_errors().values()}
    elsewhere = [
        f"{file}: {node.name}"
        for file in MODULES
        if file.name != "errors.py"
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
        and {base.id for base in node.bases if isinstance(base, ast.Name)} & names
    ]
    assert elsewhere == [], "define it in protocol/fleetmark_protocol/errors.py"
