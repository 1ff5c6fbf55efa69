"""Trials of one round begin at the same time and share all tags: each is a point of its own."""

from itertools import pairwise

import orjson

from collected import trial
from fleetmark_agent.database import Database
from fleetmark_agent.outbox import Outbox
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.influxdb.lines import Lines
from fleetmark_protocol.records import RECORD

EPOCH = "0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a0001"


def test_clients_that_ask_at_the_same_moment_are_points_of_their_own_in_their_order(tmp_path):
    database = Database(tmp_path / "outbox.db")
    outbox = Outbox(database, 10_000_000)
    for repetition in range(2):
        for client in range(4):
            outbox.append(
                trial(
                    7.0,  # all at once, and the next round on a clock that was set back
                    f"c.pi.1.crowd-4.{repetition}.{client}",
                    workload="crowd-4",
                    workload_kind="concurrency",
                    repetition=repetition,
                    clients=4,
                    client=client,
                    throughput_tps=12.5,
                )
            )
    items = [
        Stored("lab", "pi", EPOCH, seq, RECORD.validate_python(orjson.loads(body)))
        for seq, body in outbox.batch(100, 1_000_000)
    ]
    database.close()
    lines = Lines().lines(items)
    series = {line.split(b" ")[0] for line in lines}
    times = [int(line.rsplit(b" ")[-1]) for line in lines]
    assert len(series) == 1
    assert len(lines) == 8
    assert all(one < other for one, other in pairwise(times))
    for client, line in enumerate(lines[:4]):
        assert b"clients=4i" in line
        assert b"client=%di" % client in line
        assert b"throughput_tps=12.5" in line
