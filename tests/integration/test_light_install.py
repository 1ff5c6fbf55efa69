"""The wheel and its small installs: what is inside, what comes along, what the scripts say.

Fresh virtual environments, filled by pip as a user's are.
"""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PACKAGES = {"fleetmark_agent", "fleetmark_collector", "fleetmark_protocol"}
NEEDED_DATA = {
    "fleetmark_agent/py.typed",
    "fleetmark_collector/demo/demo.yaml",
    "fleetmark_collector/mosquitto/acl",
    "fleetmark_collector/mosquitto/mosquitto.conf",
    "fleetmark_collector/py.typed",
    "fleetmark_collector/report/templates/report.css",
    "fleetmark_collector/report/templates/report.html.j2",
    "fleetmark_collector/report/templates/report.js",
    "fleetmark_protocol/py.typed",
}
ENGINES = {"llama-cpp-python", "torch", "xllamacpp"}

IMPORT_ALL = """
import importlib, pkgutil, sys
names = []
for package in sys.argv[1:]:
    root = importlib.import_module(package)
    names += [found.name for found in pkgutil.walk_packages(root.__path__, package + ".")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


class Venv:
    """A virtual environment, and what its scripts answer."""

    def __init__(self, directory: Path, wheel: Path, extras: str = "") -> None:
        self.directory = directory
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        self.run(
            *("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("-c", str(ROOT / "constraints.txt"), f"{wheel}{extras}"),
            check=True,
        )

    def run(self, script: str, *words: str, check: bool = False):
        """Run a script of it, far from the repository and from the user's own settings."""
        return subprocess.run(
            [self.directory / "bin" / script, *words],
            capture_output=True,
            text=True,
            check=check,
            cwd=self.directory,
            env={"HOME": str(self.directory), "PATH": "/usr/bin:/bin"},
        )

    def distributions(self) -> set[str]:
        listed = self.run("python", "-m", "pip", "freeze", "--all", check=True).stdout
        return {line.partition("==")[0].partition(" @")[0].lower() for line in listed.splitlines()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", directory, ROOT],
        check=True,
    )
    (file,) = directory.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def light(tmp_path_factory, wheel) -> Venv:
    """What a device gets."""
    return Venv(tmp_path_factory.mktemp("light") / "venv", wheel, "[agent]")


@pytest.fixture(scope="module")
def bare(tmp_path_factory, wheel) -> Venv:
    """What who forgets the extra gets."""
    return Venv(tmp_path_factory.mktemp("bare") / "venv", wheel)


def test_the_wheel_holds_the_three_packages_with_their_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {PurePosixPath(name) for name in archive.namelist()}
    inside = {name for name in names if not name.parts[0].endswith(".dist-info")}
    assert {name.parts[0] for name in inside} == PACKAGES
    data = {str(name) for name in inside if name.suffix != ".py"}
    assert data >= NEEDED_DATA
    leavings = (".pyc", ".db", ".log", ".gguf")
    assert [name for name in data if name.endswith(leavings) or "/." in name] == []


def test_the_wheel_holds_every_module_of_the_source(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    for room in ("agent", "collector", "protocol"):
        for file in (ROOT / room).rglob("*.py"):
            assert file.relative_to(ROOT / room).as_posix() in inside


def test_building_it_leaves_nothing_in_the_source(wheel):
    assert wheel.exists()
    left = [name for name in ("build", "dist") if (ROOT / name).exists()]
    assert left + list(ROOT.rglob("*.egg-info")) == []


def test_a_device_gets_no_engine_and_nothing_of_the_centre(light):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        name: {word.partition(">")[0] for word in words}
        for name, words in project["optional-dependencies"].items()
    }
    # rich comes with typer, wanted or not; numpy with gguf, and urllib3 with its requests.
    not_wanted = extras["collector"] - extras["agent"] - {"rich", "numpy", "urllib3"}
    assert {"scipy", "plotly", "amqtt", "jinja2", "ruamel.yaml"} <= not_wanted
    installed = light.distributions()
    assert {"fleetmark", *extras["agent"]} <= installed
    assert installed & (not_wanted | ENGINES | extras["dev"]) == set()


def test_every_module_of_the_agent_can_be_imported_there(light):
    done = light.run("python", "-c", IMPORT_ALL, "fleetmark_agent", "fleetmark_protocol")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_the_doctor_there_says_how_to_install_an_engine(light):
    done = light.run("fleetmark-agent", "doctor")
    assert done.returncode == 1
    assert "no backend is available" in done.stdout
    assert "pip install 'fleetmark[xllamacpp]'" in done.stdout
    assert done.stderr == ""


def test_what_the_pieces_need_is_all_there(light):
    done = light.run("python", "-m", "pip", "check")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("campaign", "validate", "x.yaml"),
        ("report", "x"),
        ("demo",),
    ],
    ids=" ".join,
)
def test_a_command_of_the_centre_says_there_what_to_install(light, words):
    done = light.run("fleetmark", *words)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "this command needs fleetmark[collector]" in done.stderr
    assert "pip install 'fleetmark[collector]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("script", "extra"), [("fleetmark", "collector"), ("fleetmark-agent", "agent")]
)
def test_without_any_extra_both_scripts_say_what_to_install(bare, script, extra):
    done = bare.run(script, "--help")
    assert done.returncode == 1
    assert f"pip install 'fleetmark[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_agents_script_says_in_the_centre_what_to_install(tmp_path):
    # Not a third environment, for scipy and plotly are large: what the centre lacks is hidden.
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['psutil', 'gguf', 'httpx']));"
        "sys.argv = ['fleetmark-agent', 'run', '--state-dir', sys.argv[1]];"
        "from fleetmark_agent.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "this command needs fleetmark[agent]: the Python package psutil" in done.stderr
    assert "Traceback" not in done.stderr
