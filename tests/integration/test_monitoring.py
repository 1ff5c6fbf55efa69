"""A real collector tells about itself: to probes, to Prometheus, and to dashboards in InfluxDB."""

import json
import signal
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleetmark_collector.config import load_settings
from fleetmark_collector.sinks.stores import open_reader
from fleetmark_protocol.metrics import METRICS
from influxservers import Influxd
from servers import free_port, wait_for

pytestmark = pytest.mark.integration


class Web:
    """The collector's address for probes."""

    def __init__(self, port):
        self.listen = f"127.0.0.1:{port}"

    def health(self):
        """Return status code and answer; None while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://{self.listen}/healthz", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return None

    def wait_for_health(self, code, reason=""):
        def so() -> bool:
            found = self.health()
            return found is not None and (
                found[0] == code
                and (any(reason in one for one in found[1]["reasons"]) or not reason)
            )

        wait_for(so, 60, f"/healthz {code} {reason}")

    def metrics(self):
        """Return (name, labels) -> value."""
        with urllib.request.urlopen(f"http://{self.listen}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {
            (sample.name, tuple(sorted(sample.labels.values()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def web():
    return Web(free_port())


def test_health_and_metrics_of_a_working_collector_and_of_one_whose_broker_died(fleet, web):
    fleet.start_collector("--http-listen", web.listen)
    web.wait_for_health(200)
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    wait_for(lambda: web.metrics()["fleetmark_records_written_total", ()] >= 3, 30, "records")
    wait_for(
        lambda: web.metrics().get(("fleetmark_devices_online", ())) == 1, 30, "a look at devices"
    )
    metrics = web.metrics()
    writes = metrics["fleetmark_store_write_seconds_count", ()]
    assert metrics["fleetmark_store_write_seconds_bucket", ("+Inf",)] == writes > 0
    assert metrics["fleetmark_store_available", ()] == 1
    assert metrics["fleetmark_broker_connected", ()] == 1
    assert metrics["fleetmark_dead_letters_total", ("record",)] == 0
    assert 0 <= time.time() - metrics["process_start_time_seconds", ()] < 300

    fleet.broker.kill()
    web.wait_for_health(503, "broker")
    assert web.health()[1]["store_available"]
    assert web.metrics()["fleetmark_broker_connected", ()] == 0
    fleet.broker.start()
    web.wait_for_health(200)


def test_a_collector_ends_in_time_although_its_broker_hangs(fleet, web):
    """It starts before the broker, too; what it could not acknowledge is sent again."""
    fleet.broker.kill()
    fleet.start_collector("--http-listen", web.listen)
    web.wait_for_health(503, "broker")
    fleet.broker.start()
    web.wait_for_health(200)
    fleet.start_agent("pi-sim", "[telemetry]\ninterval_s = 0.1\n")
    wait_for(lambda: web.metrics()["fleetmark_records_written_total", ()] >= 3, 30, "records")
    fleet.broker.signal(signal.SIGSTOP)
    try:
        begun_s = time.monotonic()
        assert fleet.kill("collector", signal.SIGTERM) == 0
        assert time.monotonic() - begun_s < 30, "the unit's TimeoutStopSec is 45 s"
    finally:
        fleet.broker.signal(signal.SIGCONT)
    lines = [json.loads(line) for line in fleet.log("collector").splitlines()]
    assert lines[-1]["event"] == "collector_stopped"


def test_every_sample_of_an_agent_says_what_waits_in_its_outbox(fleet):
    fleet.start_agent("pi-sim")
    time.sleep(3)
    fleet.start_collector()
    fleet.wait_for_devices("pi-sim")
    reader = open_reader(load_settings(None, {"data_dir": fleet.data_dir}))
    try:
        wait_for(lambda: reader.counts()["telemetry"] >= 5, 30, "telemetry")
        samples = reader.telemetry("default", "pi-sim", 0, 2**62)
    finally:
        reader.close()
    waiting = [sample.outbox_records for sample in samples]
    assert None not in waiting
    assert max(waiting) >= 2, "nothing was acknowledged before the collector came"
    assert all(0 <= sample.outbox_used_percent < 1 for sample in samples)


def test_observations_are_in_influxdb_and_say_what_the_report_says(fleet, web, tmp_path):
    server = Influxd(tmp_path / "influxd").start()
    try:
        database = server.database("fleetmark")
        fleet.settings(
            f'[store]\nkind = "influxdb"\nurl = "{server.url}"\nbucket = "{database.name}"\n'
        )
        fleet.start_collector("--http-listen", web.listen)
        fleet.start_agent("pi-sim")
        fleet.start_agent("ec2-sim")
        fleet.wait_for_devices("pi-sim", "ec2-sim")
        campaign_id = fleet.submit(fleet.write_campaign(repetitions=7))
        assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"

        def collector_rows():
            return database.rows("SELECT * FROM collector")

        wait_for(lambda: any(row.get("records_per_s") for row in collector_rows()), 40, "a rate")
        assert {row["device"] for row in database.rows("SELECT * FROM device")} == {
            "pi-sim",
            "ec2-sim",
        }
        last = database.rows(
            "SELECT last(online) AS online, silent_s, agent_version, cores_logical, backends "
            "FROM device WHERE device = 'pi-sim'"
        )[0]
        assert last["online"] == 1
        assert 0 <= last["silent_s"] < 30
        assert last["agent_version"]
        assert last["cores_logical"] >= 1
        assert "xllamacpp" in last["backends"]
        written = collector_rows()[-1]
        assert written["records_written"] > 0
        assert written["devices_known"] == 2
        assert written["store_available"] == 1
        assert any(row["write_s_max"] for row in collector_rows())

        # What ended is summed up at every start, and then only where something came.
        fleet.kill("collector", 15)
        fleet.start_collector("--http-listen", web.listen)
        wait_for(
            lambda: [row["trials"] for row in database.rows("SELECT * FROM cell")] == [7, 7],
            40,
            "the cells",
        )
        (ended,) = database.rows("SELECT * FROM campaign ORDER BY time DESC LIMIT 1")
        assert ended["campaign_id"] == campaign_id
        assert ended["state"] == "SUCCEEDED"
        assert ended["jobs_succeeded"] == ended["jobs"] == 2
        assert ended["trials"] == ended["trials_planned"] == 16
        assert ended["progress_percent"] == 100
        assert ended["failed_percent"] == 0

        figures = fleet.directory / "figures.json"
        report = fleet.cli("report", campaign_id, "--json", str(figures))
        assert report.returncode == 0, report.stderr
        cells = {row["device"]: row for row in database.rows("SELECT * FROM cell")}
        shown = json.loads(figures.read_text("utf-8"))["cells"]
        assert len(shown) == 2
        for cell in shown:
            told = cells[cell["device"]]
            assert told["trials"] == 7
            assert told["workload"] == cell["workload"] == "single"
            assert told["options"] == "context_tokens=256 threads=1"
            assert set(cell["figures"]) == {name for name in METRICS if told.get(name) is not None}
            for name, figure in cell["figures"].items():
                assert told[name] == figure["median"], name
                assert told.get(f"{name}_low") == figure["low"], name
                assert told.get(f"{name}_high") == figure["high"], name

        server.kill()
        web.wait_for_health(503, "store")
        assert web.health()[1]["broker_connected"]
        server.start()
        web.wait_for_health(200)
    finally:
        server.kill()
