"""What an idle agent costs its device: CPU share and memory over a minute of 1 Hz sampling.

A real agent process is connected to a real Mosquitto, and a collector stands by that acknowledges
what it sends. Beside it, in the same run, an empty Python process with the same imports of
psutil and paho shows what part of the memory is the interpreter's and the libraries'.

    python benchmarks/idle_agent.py [--seconds 60]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from servers import Mosquitto, wait_for

SETTLE_S = 8
BARE = "import paho.mqtt.client, psutil, time; print('ready', flush=True); time.sleep(600)"


def pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Pss in smaps_rollup")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        broker = Mosquitto(directory).start()
        common = ["--broker-host", "127.0.0.1", "--broker-port", str(broker.port)]
        collector = subprocess.Popen(
            [sys.executable, "-m", "fleetmark_collector", "collect"]
            + ["--data-dir", str(directory / "data"), *common],
            stderr=subprocess.DEVNULL,
        )
        agent = subprocess.Popen(
            [sys.executable, "-m", "fleetmark_agent", "run", "--device-id", "idle"]
            + ["--state-dir", str(directory / "state"), *common],
            stderr=subprocess.DEVNULL,
        )
        bare = subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.DEVNULL)
        try:
            wait_for((directory / "state" / "outbox.db").exists)
            time.sleep(SETTLE_S)
            process = psutil.Process(agent.pid)
            before, started_s = process.cpu_times(), time.monotonic()
            time.sleep(seconds)
            after, took_s = process.cpu_times(), time.monotonic() - started_s
            spent_s = after.user + after.system - before.user - before.system
            rows = [("agent", agent.pid), ("interpreter + psutil + paho", bare.pid)]
            print(f"agent at 1 Hz over {took_s:.0f} s: {100 * spent_s / took_s:.2f} % of one core")
            for label, pid in rows:
                rss = psutil.Process(pid).memory_info().rss
                print(f"{label}: RSS {rss / 2**20:.1f} MiB, PSS {pss_bytes(pid) / 2**20:.1f} MiB")
        finally:
            for child in (agent, collector, bare):
                child.terminate()
                child.wait()
            broker.kill()


if __name__ == "__main__":
    main()
