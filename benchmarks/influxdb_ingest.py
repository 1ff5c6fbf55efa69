"""How fast one collector brings points from the broker into InfluxDB, beside what is possible.

Three sides take turns in one run, all on this machine's cores, with a real influxd of Debian and a
real Mosquitto: (a) the bare write, which posts prebuilt requests of exactly the lines that the
collector makes, in requests of the collector's size and of the size and number of connections at
which this server is fastest (found out at the start); the collector, from the first byte sent to
the broker to the last acknowledgement; (b) other people's bridges (`peers.py`), to the last point
written. Server, brokers, collector and peers are started anew for each block, each side with a new
database; at the end of a block every database is asked what it holds.

All processes share all cores; or, with `--server-core`, the server has one core to itself, in the
bare write as well as in the others, and everything else runs on what is left.

    python benchmarks/influxdb_ingest.py [--peer node-red] [--blocks 5] [--rounds 3]
"""

import argparse
import os
import platform
import random
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
from influxdb_sides import BareWrite, Bridge, Collect, Side
from influxdb_turns import Slice, Turn, make_slice
from ingest import DEVICES, RECORDS_PER_MESSAGE
from pairs import Figures, ratio_interval, run_blocks, take_turns
from peers import PEERS, Absent, set_up

from influxservers import Influxd

QUIET_PERCENT = 5
OURS = "collector"
SAME = "bare write, requests as the collector's"
BEST = "bare write, the server's best"


def settle(server: Influxd) -> None:
    """Wait until the server has done what a turn left it to do (snapshots, compactions)."""
    process = psutil.Process(server.pid)
    deadline_s = time.monotonic() + 20
    while process.cpu_percent(0.5) > QUIET_PERCENT and time.monotonic() < deadline_s:
        pass


def start_server(directory: Path, core: int | None) -> Influxd:
    """Start the server, on a core of its own if that is wanted."""
    if core is None:
        return Influxd(directory).start()
    rest = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # what is started now stays there
    try:
        return Influxd(directory).start()
    finally:
        os.sched_setaffinity(0, rest)


def fastest(
    load: Slice, sizes: list[int], connections: list[int], core: int | None
) -> dict[int, tuple[int, float]]:
    """Return request size -> (best number of connections, points/s), each tried alone, anew."""
    found: dict[int, tuple[int, float]] = {}
    for size in sizes:
        for links in connections:
            with tempfile.TemporaryDirectory() as name:
                server = start_server(Path(name), core)
                try:
                    side = BareWrite(server, "bare", size, links)
                    rate = side.run(load).rate
                    side.close()
                finally:
                    server.kill()
            if rate > found.get(size, (0, 0.0))[1]:
                found[size] = links, rate
        print(f"{size} points a request: {found[size][1]:,.0f}/s by {found[size][0]} connection(s)")
    return found


def held(server: Influxd, database: str) -> dict[str, tuple[int, int]]:
    """Return device -> (points, sum of their seq) as the database has them."""
    answer = server.query(
        "SELECT count(seq), sum(seq) FROM telemetry GROUP BY device", database, epoch="ns"
    )
    series = answer["results"][0].get("series", [])
    return {
        one["tags"]["device"]: (int(one["values"][0][1]), int(one["values"][0][2]))
        for one in series
    }


def expected(loads: list[Slice]) -> dict[str, tuple[int, int]]:
    seqs = [seq for load in loads for seq in range(load.first_seq, load.first_seq + load.seqs)]
    return {f"d{number}": (len(seqs), sum(seqs)) for number in range(DEVICES)}


class Blocks:
    """Runs blocks and keeps what is told of them."""

    def __init__(
        self, loads: list[Slice], peer_loads: list[Slice], peers: list[str], core: int | None
    ) -> None:
        self._loads = loads
        self._peer_loads = peer_loads
        self._peers = peers
        self._core = core
        self.turns: dict[str, list[Turn]] = defaultdict(list)
        self.lost: dict[str, int] = defaultdict(int)
        self.sent: dict[str, int] = defaultdict(int)

    def run(
        self,
        rounds: int,
        rng: random.Random,
        bare: dict[str, tuple[int, int]],
        settings: dict[str, str],
    ) -> Figures:
        """Return points/s of each side in each round of one block."""
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = start_server(directory / "influxd", self._core)
            stack.callback(server.kill)
            sides: dict[str, Side] = {}
            for number, (name, (size, connections)) in enumerate(bare.items()):
                sides[name] = BareWrite(server, f"bare{number}", size, connections)
                stack.callback(sides[name].close)
            for name in [OURS, *self._peers]:
                own = directory / name
                own.mkdir()
                if name == OURS:
                    sides[name] = Collect(own, server, "ours", **settings)
                else:
                    sides[name] = Bridge(own, server, name, name)
                stack.callback(sides[name].close)
            measured = {name: self._measure(name, side, server) for name, side in sides.items()}
            figures = take_turns(measured, rounds, rng)
            for name, side in sides.items():
                self._check(name, server, side.database, rounds + 1)
            return figures

    def _measure(self, name: str, side: Side, server: Influxd) -> Callable[[], float]:
        loads = iter(self._peer_loads if name in self._peers else self._loads)

        def measure() -> float:
            settle(server)
            turn = side.run(next(loads))
            self.turns[name].append(turn)
            return turn.rate

        return measure

    def _check(self, name: str, server: Influxd, database: str, turns: int) -> None:
        loads = (self._peer_loads if name in self._peers else self._loads)[:turns]
        wanted, found = expected(loads), held(server, database)
        points = sum(count for count, _ in wanted.values())
        self.sent[name] += points
        self.lost[name] += points - sum(count for count, _ in found.values())
        if name not in self._peers:
            assert found == wanted, f"{name}: {found} instead of {wanted}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=2000, help="a turn, 100 points each")
    parser.add_argument("--peer-messages", type=int, default=500, help="a turn of a peer")
    parser.add_argument("--peer", choices=sorted(PEERS), action="append", default=[])
    parser.add_argument(
        "--batch", type=int, default=5000, help="points the collector writes at once"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 5000, 10_000, 20_000])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--server-core", type=int, help="run influxd on this core, alone")
    options = parser.parse_args()
    if options.server_core is not None:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {options.server_core})
    peers = [name for name in options.peer if installed(name)]
    load1 = os.getloadavg()[0]
    epoch = str(uuid.uuid4())

    def loads(messages: int) -> list[Slice]:
        messages = messages // DEVICES * DEVICES
        step = messages // DEVICES * RECORDS_PER_MESSAGE
        return [make_slice(messages, 1 + at * step, epoch) for at in range(options.rounds + 1)]

    whole = loads(options.messages)
    print(f"a line: {whole[0].lines[0].decode()}\n")
    sizes = sorted({*options.sizes, options.batch})
    best = fastest(whole[0], sizes, options.connections, options.server_core)
    size = max(best, key=lambda size: best[size][1])
    bare = {BEST: (size, best[size][0]), SAME: (options.batch, best[options.batch][0])}
    peer_loads = loads(options.peer_messages) if peers else []
    blocks = Blocks(whole, peer_loads, peers, options.server_core)
    settings = {"FLEETMARK_INGEST__BATCH_RECORDS": str(options.batch)}
    figures = run_blocks(
        options.blocks, lambda rng: blocks.run(options.rounds, rng, bare, settings)
    )
    report(figures, blocks, bare)
    print(
        f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"influxd on {'all' if options.server_core is None else 'one of its own'}; "
        f"load before the run {load1:.1f}; {options.blocks} blocks of {options.rounds} rounds; "
        f"{len(whole[0].lines):,} points a turn, {RECORDS_PER_MESSAGE} a message"
    )


def installed(name: str) -> bool:
    try:
        set_up(name)
    except Absent as problem:
        print(f"{name} is left out: {problem}")
        return False
    return True


def report(figures: list[Figures], blocks: Blocks, bare: dict[str, tuple[int, int]]) -> None:
    print(
        "\n| side | points/s (median) | ratio to the server's best | 95 % interval | points lost "
        "| CPU, µs a point |\n|---|---|---|---|---|---|"
    )
    for name in figures[0]:
        every = [rate for block in figures for rate in block[name]]
        ratio, low, high = ratio_interval(figures, name, BEST)
        turns = blocks.turns[name]
        points = sum(turn.points for turn in turns)
        cpu = ", ".join(
            f"{process} {1e6 * sum(turn.cpu_s[process] for turn in turns) / points:.1f}"
            for process in turns[0].cpu_s
        )
        label = f"{name} ({bare[name][0]} x {bare[name][1]})" if name in bare else name
        lost = f"{blocks.lost[name]:,} of {blocks.sent[name]:,}"
        print(
            f"| {label} | {np.median(every):,.0f} | {ratio:.3f} | {low:.3f} to {high:.3f} "
            f"| {lost} | {cpu} |"
        )
    for base in [SAME, *(name for name in figures[0] if name in PEERS)]:
        ratio, low, high = ratio_interval(figures, OURS, base)
        print(f"collector to {base}: {ratio:.3f} (95 % interval {low:.3f} to {high:.3f})")
    every_turn = [turn for turns in blocks.turns.values() for turn in turns]
    others = sum(turn.others_cpu_s for turn in every_turn) / sum(t.took_s for t in every_turn)
    print(f"other processes used {100 * others:.0f} % of one core meanwhile")


if __name__ == "__main__":
    main()
