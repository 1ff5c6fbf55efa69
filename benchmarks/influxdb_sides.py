"""The sides of `influxdb_ingest.py`: who brings points into one InfluxDB, and how each is timed.

Every side has a database of its own, and where it hears a broker, a broker of its own, so that
nothing of one side's is seen by another. A turn hands each the same slice of points and returns how
long it took and what CPU time each process spent.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from influxdb_turns import Clock, Slice, Turn, make_slice
from ingest import DEVICES, Watcher, send
from peers import PEERS, set_up

from commands import Broker, fleetmark
from influxservers import Influxd, ask
from servers import wait_for

STALLED_S = 10.0
"""A bridge that has written nothing for this long has lost what is missing."""


class Side(Protocol):
    """One way into the database."""

    database: str

    def run(self, load: Slice) -> Turn: ...
    def close(self) -> None: ...


class BareWrite:
    """Prebuilt requests straight to the server: its ceiling."""

    def __init__(self, server: Influxd, database: str, batch: int, connections: int) -> None:
        self._server = server
        self._batch = batch
        self._links = [
            http.client.HTTPConnection("127.0.0.1", server.port) for _ in range(connections)
        ]
        self._path = f"/write?db={database}&precision=ns"
        self.database = database
        server.database(database)

    def run(self, load: Slice) -> Turn:
        starts = range(0, len(load.lines), self._batch)
        bodies = iter([b"\n".join(load.lines[at : at + self._batch]) for at in starts])
        taking = threading.Lock()
        failed: list[str] = []

        def work(link: http.client.HTTPConnection) -> None:
            while True:
                with taking:
                    body = next(bodies, None)
                if body is None or failed:
                    return
                link.request("POST", self._path, body)
                answer = link.getresponse()
                said = answer.read()
                if answer.status != 204:
                    failed.append(f"{answer.status} {said!r}")

        threads = [threading.Thread(target=work, args=(link,)) for link in self._links]
        clock = Clock({"influxd": self._server.pid})
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        turn = clock.stop(len(load.lines))
        assert not failed, failed
        return turn

    def close(self) -> None:
        for link in self._links:
            link.close()


class Collect:
    """`fleetmark collect` between a broker and the server; the clock stops at the last ack."""

    def __init__(self, directory: Path, server: Influxd, database: str, **settings: str) -> None:
        server.database(database)
        self.database = database
        with ExitStack() as stack:
            self._broker = Broker(directory, embedded=False).start()
            stack.callback(self._broker.kill)
            store = {"KIND": "influxdb", "URL": server.url, "BUCKET": database}
            environment = {f"FLEETMARK_STORE__{key}": value for key, value in store.items()}
            self._command = fleetmark(
                *("collect", "--broker-port", self._broker.port, "--data-dir", directory / "data"),
                log=directory / "collect.log",
                env={**environment, **settings},
            )
            stack.callback(self._command.end)
            wait_for(lambda: "broker_connected" in self._command.output(), what="the collector")
            time.sleep(0.5)  # its subscriptions are on their way
            self._watcher = Watcher(self._broker.port)
            stack.callback(self._watcher.close)
            self._ending = stack.pop_all()
        assert self._broker.command is not None
        self._pids = {
            "influxd": server.pid,
            "mosquitto": self._broker.command.pid,
            "collector": self._command.pid,
        }

    def run(self, load: Slice) -> Turn:
        wanted = self._watcher.count() + len(load.lines)
        clock = Clock(self._pids)
        sender = threading.Thread(target=send, args=(self._broker.port, load.records))
        sender.start()
        while self._watcher.count() < wanted:
            time.sleep(0.002)
            assert self._command.process.poll() is None, self._command.output()[-2000:]
        turn = clock.stop(len(load.lines))
        sender.join()
        return turn

    def close(self) -> None:
        self._ending.close()


class Bridge:
    """A peer between a broker and the server; the clock stops at its last successful write.

    It tells nobody when a point is written, so the server's own counter is asked 50 times a second.
    """

    def __init__(self, directory: Path, server: Influxd, database: str, name: str) -> None:
        server.database(database)
        self.database = database
        self._peer = PEERS[name]
        self._server = server
        with ExitStack() as stack:
            self._broker = Broker(directory, embedded=False).start()
            stack.callback(self._broker.kill)
            run_dir = directory / name
            run_dir.mkdir()
            command = self._peer.command(
                set_up(name), run_dir, self._broker.port, server.port, database
            )
            with (directory / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(
                    command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=run_dir
                )
            stack.callback(process.wait)
            stack.callback(process.kill)
            wait_for(self._hears, timeout_s=60, what=f"{name} (log: {log.name})")
            self._ending = stack.pop_all()
        time.sleep(2)
        server.query("DROP MEASUREMENT telemetry", database)
        assert self._broker.command is not None
        self._pids = {
            "influxd": server.pid,
            "mosquitto": self._broker.command.pid,
            name: process.pid,
        }

    def _hears(self) -> bool:
        """Send a few points, and see whether they are written."""
        before = points_written(self._server)
        send(self._broker.port, self._form(make_slice(DEVICES, 1, str(uuid.uuid4()))))
        time.sleep(1)
        return points_written(self._server) > before

    def _form(self, load: Slice) -> bytes:
        return load.line_packets if self._peer.takes_lines else load.records

    def run(self, load: Slice) -> Turn:
        before = points_written(self._server)
        done, took_s = 0, 0.0
        clock = Clock(self._pids)
        start_s = time.perf_counter()
        sender = threading.Thread(target=send, args=(self._broker.port, self._form(load)))
        sender.start()
        while done < len(load.lines) and time.perf_counter() - start_s - took_s < STALLED_S:
            time.sleep(0.02)
            now = points_written(self._server) - before
            if now > done:
                done, took_s = now, time.perf_counter() - start_s
        turn = clock.stop(done, took_s)
        sender.join()
        return turn

    def close(self) -> None:
        self._ending.close()


def points_written(server: Influxd) -> int:
    """Return how many points the server has said yes to since it was started."""
    found = json.loads(ask(server.url, "/debug/vars").body)
    return sum(
        int(part["values"]["pointsWrittenOK"])
        for name, part in found.items()
        if name.startswith("httpd")
    )
