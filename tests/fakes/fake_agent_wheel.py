"""A wheel of an agent that is one in name only, for installers: seconds instead of minutes."""

import zipfile
from pathlib import Path

AGENT = """\
import sys

def main():
    if "--version" in sys.argv:
        print("fleetmark-agent {version}")
    elif {starts}:
        sys.exit(0)
    else:
        sys.exit("it cannot start")
"""


def write_wheel(
    directory: Path,
    name: str,
    version: str,
    files: dict[str, bytes],
    *,
    tag: str = "py3-none-any",
    metadata: str = "",
) -> Path:
    """Write a wheel that pip takes."""
    about = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{about}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}"
        ).encode(),
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    wheel = directory / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(_member(path), content, zipfile.ZIP_DEFLATED)
        archive.writestr(_member(f"{about}/RECORD"), "".join(f"{path},,\n" for path in files))
    return wheel


def _member(path: str) -> zipfile.ZipInfo:
    # The same bytes whenever it is written.
    return zipfile.ZipInfo(path, date_time=(2026, 1, 1, 0, 0, 0))


def write_agent(
    directory: Path, version: str, *, starts: bool = True, unpacked_bytes: int = 0
) -> Path:
    """Write the wheel of an agent; unpacked it may take far more room than it seems to."""
    return write_wheel(
        directory,
        "fleetmark",
        version,
        {
            "fake_agent.py": AGENT.format(version=version, starts=starts).encode(),
            "fake_ballast": b"\0" * unpacked_bytes,
            f"fleetmark-{version}.dist-info/entry_points.txt": (
                b"[console_scripts]\nfleetmark-agent = fake_agent:main\n"
            ),
        },
        metadata="Provides-Extra: agent\nProvides-Extra: xllamacpp\n"
        "Requires-Dist: xllamacpp>=2026.10 ; extra == 'xllamacpp'\n",
    )
