"""Other people's bridges from MQTT to InfluxDB, set up and run beside ours.

Each is installed when a benchmark is asked for it (`--peer NAME`), pinned, into the cache directory
`~/.cache/fleetmark/peers` (`$XDG_CACHE_HOME`), and stays there. Each runs as its own documentation
has it, from a configuration that is written here:

- `node-red`: Node-RED with node-red-contrib-influxdb, as many makers run it. It takes the very
  messages that the collector takes. A function node turns the records of a message into points and
  gathers 5000 of them (or what came in 250 ms, as the collector does), and an "influxdb batch" node
  writes them. It differs in what that node can do: whole numbers become floats, and JavaScript
  rounds times to 256 ns (the times of the benchmark are chosen so that it finds them exact).
  Nothing is validated, and a message is confirmed to the broker before anything is written.
- `mq-bridge`: a pipe in Rust from an MQTT topic to an HTTP address. It can't turn our records into
  points, so it is sent the finished lines, 100 a message, and posts each message as it is. It shows
  what a bridge costs that reads nothing: every check and conversion is left to the sender.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOPIC = "fleetmark/v1/+/+/data"
NODE_RED = {"node-red": "4.1.15", "node-red-contrib-influxdb": "0.7.0"}
"""Node-RED 5 needs a Node.js that is newer than what Debian and most boards have."""

MQ_BRIDGE = "1.2.0"

NODE_RED_FILES = Path(__file__).with_name("node_red")
"""Its flow, the function in it, and its settings."""

PIPE = "import sys; from mq_bridge import Route; Route.from_file(sys.argv[1], 'bridge').run()"


@dataclass(frozen=True)
class Peer:
    """One of them.

    Attributes:
        version: what runs, for the report.
        takes_lines: is sent finished lines instead of our records.
        install: brings it into a directory.
        command: writes its configuration into a directory and returns what to run there, given
            where it is installed, that directory, the broker's port, the server's and a database.
    """

    version: str
    takes_lines: bool
    install: Callable[[Path], None]
    command: Callable[[Path, Path, int, int, str], list[str]]


class Absent(Exception):
    """It cannot be installed here; the message says why."""


def _install_node_red(directory: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Absent("node and npm are not installed (apt install nodejs npm)")
    packages = [f"{name}@{version}" for name, version in NODE_RED.items()]
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *packages]
    _run(command, directory)


def _install_mq_bridge(directory: Path) -> None:
    _run([sys.executable, "-m", "venv", "."], directory)
    _run(["bin/pip", "install", "--quiet", f"mq-bridge=={MQ_BRIDGE}"], directory)


def _run(command: list[str], directory: Path) -> None:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    except OSError as error:
        raise Absent(f"{command[0]}: {error}") from error
    if done.returncode:
        raise Absent(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


def _node_red(installed: Path, run_dir: Path, broker: int, server: int, database: str) -> list[str]:
    flow = (NODE_RED_FILES / "flows.json").read_text("utf-8")
    places = {
        "BROKER_PORT": str(broker),
        "SERVER_PORT": str(server),
        "DATABASE": database,
        "GATHER": (NODE_RED_FILES / "gather.js").read_text("utf-8"),
    }
    for place, value in places.items():
        flow = flow.replace(f'"{place}"', json.dumps(value))
    (run_dir / "flows.json").write_text(flow, "utf-8")
    shutil.copy(NODE_RED_FILES / "settings.js", run_dir)
    (run_dir / "node_modules").symlink_to(installed / "node_modules")
    program = installed / "node_modules" / "node-red" / "red.js"
    return ["node", str(program), "--userDir", str(run_dir)]


def _mq_bridge(
    installed: Path, run_dir: Path, broker: int, server: int, database: str
) -> list[str]:
    source = {
        "url": f"tcp://127.0.0.1:{broker}",
        "topic": TOPIC,
        "protocol": "v5",  # by version 3 it takes 10 KB a message at most
        "qos": 1,
        "client_id": "bridge",
        "clean_session": True,
        "queue_capacity": 1000,
    }
    sink = {"url": f"http://127.0.0.1:{server}/write?db={database}&precision=n"}
    route = {"input": {"mqtt": source}, "output": {"http": sink}}
    config = run_dir / "route.json"
    config.write_text(json.dumps({"routes": {"bridge": route}}), "utf-8")
    return [str(installed / "bin" / "python"), "-c", PIPE, str(config)]


PEERS = {
    "node-red": Peer(
        version=" with ".join(f"{name} {version}" for name, version in NODE_RED.items()),
        takes_lines=False,
        install=_install_node_red,
        command=_node_red,
    ),
    "mq-bridge": Peer(
        version=f"mq-bridge {MQ_BRIDGE}",
        takes_lines=True,
        install=_install_mq_bridge,
        command=_mq_bridge,
    ),
}


def set_up(name: str) -> Path:
    """Return where a peer is installed, and install it where it is not yet.

    Raises:
        Absent: this machine can't have it.
    """
    peer = PEERS[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = cache / "fleetmark" / "peers" / peer.version.replace(" ", "-")
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Moved into place at the end: an install that was cut short is none.
        with tempfile.TemporaryDirectory(dir=kept.parent) as half:
            peer.install(Path(half))
            shutil.copytree(half, kept, symlinks=True)
    return kept
