"""A stand-in for `docker compose exec` and `run`: runs the command here, /tmp being a directory."""

import sys
from pathlib import Path

_SCRIPT = """\
#!{python}
import os, subprocess, sys
args = sys.argv[1:]
assert args.pop(0) == "compose", args
kind = args.pop(0)
if kind not in ("exec", "run"):
    sys.exit(0)
environment, entry = dict(os.environ), []
while args[0].startswith("-"):
    flag = args.pop(0)
    if flag == "--entrypoint":
        entry = [args.pop(0)]
service = args.pop(0)
home = os.path.join({home!r}, service)
os.makedirs(home, exist_ok=True)
command = [arg.replace("/tmp/", home + "/") for arg in entry + args]
environment["PATH"] = {programs!r} + os.pathsep + environment["PATH"]
sys.exit(subprocess.run(command, env=environment).returncode)
"""

_INFLUX = """\
#!{python}
import shutil, sys
from pathlib import Path
data = Path({data!r})
if sys.argv[1] == "backup":
    shutil.copytree(data, sys.argv[2])
else:
    assert sys.argv[1:3] == ["restore", "--full"], sys.argv
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(sys.argv[3], data)
"""

_FLEETMARK = """\
#!{python}
from fleetmark_collector.cli import main
main()
"""


def install(directory: Path) -> tuple[Path, Path]:
    """Write `docker`, and what is in its containers; return what to put on PATH, and the database.

    `fleetmark` is the real one; `influx` copies a directory, which is the database.
    """
    outside, programs, data = directory / "bin", directory / "inside", directory / "influxdb"
    for made in (outside, programs, data):
        made.mkdir(parents=True)
    places = {
        "python": sys.executable,
        "home": str(directory / "home"),
        "programs": str(programs),
        "data": str(data),
    }
    for file, text in (
        (outside / "docker", _SCRIPT),
        (programs / "influx", _INFLUX),
        (programs / "fleetmark", _FLEETMARK),
    ):
        file.write_text(text.format(**places), "utf-8")
        file.chmod(0o755)
    return outside, data
