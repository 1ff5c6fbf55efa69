"""A database with a real campaign in it, and what Python knows of the same records.

Broker, collector, agents, engine and database are real. One agent sees a file tree of a Raspberry
Pi that is throttled. What no machine of the tests has (power, energy, cost) comes in records that
are written through the real sink.
"""

import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from collected import EPOCH
from engines import MODEL_REF, MODEL_SHA256
from fakes.fake_sysfs import PI_CPUINFO, FakeSysfs
from fleet import Fleet
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.config import CollectorSettings, load_settings
from fleetmark_collector.report.cells import Cell, read_cells
from fleetmark_collector.report.jobs import PlannedJob
from fleetmark_collector.sinks.influxdb.schema import TAGS
from fleetmark_collector.sinks.influxdb.tags import options_text
from fleetmark_collector.sinks.stores import open_reader
from fleetmark_protocol import codec, topics
from grafanarecords import write_what_is_not_here
from influxservers import Database, Influxd
from servers import Mosquitto, wait_for

FLEET = "default"
PI, EC2, BENCH = "pi-sim", "ec2-sim", "bench-1"
OBSERVED = ("device", "collector", "campaign", "cell")
S = 10**9

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Seen:
    """A point: of a record as the store's reader gives it back, or of an observation."""

    time_ns: int
    tags: Tags
    fields: Mapping[str, Any]


@dataclass
class World:
    """What is in the database, twice.

    Attributes:
        points: measurement -> its points, in order of time, without any InfluxQL that a dashboard
            uses.
        cells: the cells of the campaign as a report computes them.
        start_ms, end_ms: the time shown; whole windows.
    """

    database: Database
    campaign_id: str
    failed_id: str
    start_ms: int
    end_ms: int = 0
    points: dict[str, list[Seen]] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)


def fake_pi(directory: Path) -> FakeSysfs:
    """Return a Raspberry Pi's file tree: too hot, and therefore throttled."""
    tree = FakeSysfs(directory)
    tree.write("proc/cpuinfo", PI_CPUINFO)
    hot(tree)
    return tree


def hot(tree: FakeSysfs) -> None:
    tree.zone(0, "cpu-thermal", 81_300)
    tree.policy(0, 1_500_000, (0, 1))
    tree.firmware_bits(0x4)


def cool(tree: FakeSysfs) -> None:
    tree.zone(0, "cpu-thermal", 64_700)
    tree.policy(0, 2_400_000, (0, 1))
    tree.firmware_bits(0x0)


def make_world(directory: Path, server: Influxd) -> World:
    """Fill a database of its own."""
    database = server.database()
    broker = Mosquitto(directory).start()
    fleet = Fleet(directory, broker)
    fleet.settings(
        f"[store]\nkind = 'influxdb'\nurl = '{database.url}'\nbucket = '{database.name}'\n"
    )
    world = World(database, "", "", (int(time.time()) // 60 - 10) * 60_000)
    try:
        _run(fleet, world, fake_pi(directory / "pi"))
    finally:
        fleet.close()
        broker.kill()
    world.end_ms = (int(time.time()) // 60 + 1) * 60_000
    settings = load_settings(fleet.config_file, {"data_dir": fleet.data_dir})
    _remember(world, settings)
    return world


def _run(fleet: Fleet, world: World, pi: FakeSysfs) -> None:
    fleet.start_collector()
    fleet.start_agent(PI, f"[telemetry]\nsensor_root = '{pi.root}'\n")
    fleet.start_agent(EC2)
    fleet.wait_for_devices(PI, EC2)
    _poison(fleet.broker.port)
    world.campaign_id = fleet.submit(_campaign(fleet))
    assert fleet.wait_for_end(world.campaign_id) == "SUCCEEDED", fleet.log("collector")
    world.failed_id = fleet.submit(_hopeless(fleet))
    assert fleet.wait_for_end(world.failed_id) == "FAILED"
    wait_for(lambda: _rounds(world.database) >= 3, 60, "three looks around")
    cool(pi)
    fleet.kill(EC2, signal.SIGTERM)
    settings = load_settings(fleet.config_file, {"data_dir": fleet.data_dir})
    write_what_is_not_here(settings, FLEET, BENCH, world.campaign_id)
    # A collector that starts tells of every campaign anew, whatever has come meanwhile.
    fleet.kill("collector", signal.SIGTERM)
    fleet.start_collector()
    wait_for(lambda: _summed_up(world), 30, "the cells of the new records")
    fleet.kill("collector", signal.SIGTERM)


def _rounds(database: Database) -> int:
    return (
        database.count("collector", "write_s_mean") if database.count("collector", "lag_s") else 0
    )


def _summed_up(world: World) -> bool:
    rows = world.database.rows(f"SELECT trials FROM cell WHERE device = '{BENCH}'")
    online = world.database.rows(f"SELECT last(online) AS n FROM device WHERE device = '{EC2}'")
    failed = world.database.rows(
        f"SELECT last(jobs_failed) AS n FROM campaign WHERE campaign_id = '{world.failed_id}'"
    )
    return bool(rows and online and online[0]["n"] == 0 and failed and failed[0]["n"])


def _campaign(fleet: Fleet) -> Path:
    return fleet.write_campaign(
        workloads=[
            {
                "name": "single",
                "kind": "single",
                "prompt": "The capital of Italy is",
                "output_tokens": 6,
                "warmup": 1,
                "repetitions": 7,
            },
            {
                "name": "session",
                "kind": "multi",
                "prompts": ["The sun is", "A river is"],
                "output_tokens": 4,
                "warmup": 0,
                "repetitions": {"half_width_percent": 90, "min": 6, "max": 7},
            },
        ],
    )


def _hopeless(fleet: Fleet) -> Path:
    return fleet.write_campaign(
        name="hopeless",
        targets={"devices": [PI]},
        matrix={
            "backend": ["xllamacpp"],
            "model": [{"name": "smollm2-135m", "ref": MODEL_REF, "sha256": MODEL_SHA256}],
            "options": {"threads": 1, "context_tokens": 256},
        },
        workloads=[
            {
                "name": "long",
                "kind": "single",
                "prompt": "word " * 300,
                "warmup": 0,
                "repetitions": 1,
            }
        ],
    )


def _poison(port: int) -> None:
    """Send what can never be written: a message that is no batch, and a record that is none."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for payload in (b"no batch", codec.encode_batch(EPOCH, [(1, b'{"kind":"nonsense"}')])):
        client.publish(topics.topic(FLEET, "broken-1", "data"), payload, 1).wait_for_publish(10)
    client.loop_stop()
    client.disconnect()


# --- the same in Python -----------------------------------------------------------------------


def _remember(world: World, settings: CollectorSettings) -> None:
    reader = open_reader(settings)
    try:
        both = (world.campaign_id, world.failed_id)
        world.points["trial"] = _points(one for id_ in both for one in reader.trials(id_))
        world.points["load"] = _points(one for id_ in both for one in reader.loads(id_))
        world.points["job"] = _points(one for id_ in both for one in reader.job_records(id_))
        world.points["event"] = _points(reader.events())
        world.points["telemetry"] = sorted(
            (
                Seen(one.time_ns, {"fleet": FLEET, "device": name}, one.model_dump())
                for name in (PI, EC2, BENCH)
                for one in reader.telemetry(FLEET, name, 0, 2**62)
            ),
            key=lambda seen: seen.time_ns,
        )
        world.cells, _ = read_cells(reader, world.campaign_id, _plan(settings, world.campaign_id))
    finally:
        reader.close()
    for measurement in OBSERVED:
        world.points[measurement] = _raw(world.database, measurement)


def _plan(settings: CollectorSettings, campaign_id: str) -> list[PlannedJob]:
    store = CampaignStore(settings.state_file)
    try:
        return [
            PlannedJob(row.fleet, row.device, store.spec(row.job_id), row.state, row.failure)
            for row in store.jobs(campaign_id)
        ]
    finally:
        store.close()


def _points(records: Iterable[Any]) -> list[Seen]:
    return sorted(map(_seen, records), key=lambda seen: seen.time_ns)


def _seen(item: Any) -> Seen:
    record = item.record
    tags = {"fleet": item.fleet, "device": item.device}
    for name in TAGS[record.kind][2:]:
        value = getattr(record, name)
        tags[name] = options_text(value) if name == "options" else value or ""
    fields = record.model_dump(mode="json")
    failure = record.failure if hasattr(record, "failure") else None
    fields["failure_code"] = failure.code if failure else None
    fields["failure_message"] = failure.message if failure else None
    return Seen(record.time_ns, tags, fields)


TAGS_OBSERVED = {
    "device": ("fleet", "device"),
    "collector": ("collector",),
    "campaign": ("campaign_id",),
    "cell": (
        *("fleet", "device", "campaign_id", "backend"),
        *("model", "quantization", "workload", "options"),
    ),
}


def _raw(database: Database, measurement: str) -> list[Seen]:
    """Return an observation's points as they lie there, one by one."""
    tags = TAGS_OBSERVED[measurement]
    return [
        Seen(
            row["time"],
            {tag: row.get(tag) or "" for tag in tags},
            {key: value for key, value in row.items() if key not in (*tags, "time")},
        )
        for row in database.rows(f'SELECT * FROM "{measurement}"', epoch="ns")
    ]
