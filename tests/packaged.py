"""A machine in a directory, for Debian's own dpkg and for the agent's installer.

Real are dpkg, the scripts, Python's venv and pip; systemd and the agent's program are not.
"""

import os
import shutil
import subprocess
from pathlib import Path

from deployed import DEPLOY, ROOT
from fakes.fake_agent_wheel import write_agent, write_wheel
from fakes.fake_systemd import FakeSystemd

INSTALLER = DEPLOY / "install-agent.sh"
BUILDER = ROOT / "tools" / "build_deb.sh"
EPOCH_S = 1_790_000_000

Done = subprocess.CompletedProcess[str]


def checkout(directory: Path, version: str) -> Path:
    """Make what the installer reads of a checkout of this version; return its installer."""
    there = directory / f"checkout-{version}"
    if not there.exists():
        shutil.copytree(DEPLOY, there / "deploy")
        shutil.copy(ROOT / "constraints.txt", there)
        about = there / "protocol/fleetmark_protocol/version.py"
        about.parent.mkdir(parents=True)
        about.write_text(f'__version__ = "{version}"\n', "utf-8")
    return there / "deploy" / INSTALLER.name


def run(*command: object, **env: str) -> Done:
    """Run a command; what it says on both channels is its `stdout`."""
    return subprocess.run(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, **env},
    )


def build(out: Path, version: str, *, arch: str = "amd64", **agent: object) -> Path:
    """Build the package of an agent that is one in name only."""
    wheels = out / f"wheels-{version}"
    wheels.mkdir(parents=True, exist_ok=True)
    write_wheel(wheels, "fake_library", "1.0", {})
    write_agent(wheels, version, **agent)  # type: ignore[arg-type]
    words = ("--arch", arch, "--with", "none", "--wheels", wheels, "--out", out)
    done = run(BUILDER, *words, SOURCE_DATE_EPOCH=str(EPOCH_S))
    assert done.returncode == 0, done.stdout
    (package,) = out.glob(f"fleetmark-agent_{version.replace('.dev', '~dev')}_{arch}.deb")
    return package


class Machine:
    """A file tree that dpkg and the installer take for the machine's."""

    def __init__(self, directory: Path, *, booted: bool = True) -> None:
        self.root = directory / "root"
        programs = directory / "programs"
        programs.mkdir(parents=True)
        for place in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "opt", "etc"):
            (self.root / place).mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()
        self._programs = programs
        self._directory = directory
        self.systemd = FakeSystemd(self.root, programs, booted=booted)
        self._env = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory)}

    def program(self, name: str, body: str) -> None:
        """Put a program of a test's own in the place of the machine's."""
        file = self._programs / name
        file.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        file.chmod(0o755)

    def dpkg(self, *words: object) -> Done:
        """Run dpkg on this tree; the packages that ours depends on are not in it."""
        options = (f"--root={self.root}", "--force-script-chrootless", "--force-depends")
        return run("dpkg", *options, "--force-not-root", *words, **self._env)

    def script(self, name: str, *words: str) -> Done:
        """Run a script of the installed package as dpkg does."""
        file = self.root / "var/lib/dpkg/info" / f"fleetmark-agent.{name}"
        return run(file, *words, DPKG_ROOT=str(self.root), **self._env)

    def runs(self, command: str) -> Done:
        """Run a command that the operator was told."""
        return run("sh", "-c", command, DPKG_ROOT=str(self.root), **self._env)

    def installer(self, *words: object, version: str = "1.0", **env: str) -> Done:
        """Run the installer of a checkout of this version."""
        script = checkout(self._directory, version)
        return run(script, *words, DPKG_ROOT=str(self.root), **{**self._env, **env})

    def has_version(self, version: str) -> None:
        """Make a version of the agent the one that runs, as if it had been installed."""
        home = self.root / "opt/fleetmark-agent"
        program = home / "20260101-000000-1/bin/fleetmark-agent"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho fleetmark-agent {version}\n", "utf-8")
        program.chmod(0o755)
        (home / "current").symlink_to(program.parents[1])
        self.systemd.start(version)

    @property
    def settings(self) -> Path:
        return self.root / "etc/fleetmark/agent.toml"

    @property
    def versions(self) -> list[Path]:
        """Directories of versions, whole or not."""
        return sorted((self.root / "opt/fleetmark-agent").glob("2*"))

    def status(self) -> str:
        """What dpkg thinks of the package, such as `install ok installed 1.0`."""
        query = ("dpkg-query", f"--admindir={self.root}/var/lib/dpkg", "-W")
        return run(*query, "-f", "${Status} ${Version}", "fleetmark-agent").stdout

    def traces(self) -> list[str]:
        """What there is of us outside of dpkg's own books."""
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if "fleetmark" in path.name and "var/lib/dpkg" not in str(path)
        )


def leave_kits(directory: Path) -> None:
    """Leave what an installed kit does, and one that ended in the middle: here and by a fleet."""
    for name in ("agent.toml.old", "agent.key", "agent.key.new", ".kit.a1B2c3/agent.key"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("left", "utf-8")


def can_pack() -> bool:
    """Whether Debian's tools are here."""
    return shutil.which("dpkg-deb") is not None and shutil.which("dpkg") is not None
