"""`fleetmark collect` on a real InfluxDB: bad records apart, limits waited for, secrets kept."""

import json
import time

import pytest

from collected import job, telemetry
from commands import Command, fleetmark
from influxservers import Influxd
from servers import wait_for
from wiredevice import Device

pytestmark = pytest.mark.integration


@pytest.fixture
def collect(tmp_path, mosquitto):
    """Start `fleetmark collect` with a store block."""
    made: list[Command] = []

    def start(**store: object) -> Command:
        config = tmp_path / "collector.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in store.items()]
        config.write_text(
            f'data_dir = "{tmp_path / "data"}"\n[broker]\nport = {mosquitto.port}\n'
            + '[store]\nkind = "influxdb"\n'
            + "\n".join(lines),
            "utf-8",
        )
        made.append(fleetmark("collect", "--config", config, log=tmp_path / "collect.log"))
        return made[-1]

    yield start
    for command in made:
        command.kill()
        assert "Traceback" not in command.output()


@pytest.fixture
def device(mosquitto):
    device = Device(mosquitto.port)
    yield device
    device.close()


def dead(tmp_path) -> list[dict]:
    file = tmp_path / "data" / "dead_letters.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_record_that_the_database_refuses_goes_to_the_dead_letters_and_the_rest_goes_on(
    collect, device, influxd, tmp_path
):
    policy = f'ON "{influxd.name}" DURATION 2d SHARD DURATION 1h'
    influxd.query(f"ALTER RETENTION POLICY autogen {policy}")
    command = collect(url=influxd.url, bucket=influxd.name)
    now_s = time.time()
    records = {seq: telemetry(now_s + seq) for seq in range(1, 101)}
    records[50] = telemetry(50)  # its clock was reset to 1970
    device.send_all(records)
    assert influxd.count("telemetry") == 99
    (letter,) = dead(tmp_path)
    assert "beyond retention policy" in letter["reason"]
    assert letter["topic"] == "fleetmark/v1/lab/pi/data"
    assert "store_found" in command.output()
    assert "InfluxDB 1 (1.6.7" in command.output()


def test_what_a_limit_keeps_out_arrives_once_the_limit_is_raised(collect, device, tmp_path):
    # Room for what the collector observes of itself, for telemetry and for some of the jobs.
    limit = {"data.max-series-per-database": "10"}
    influxd = Influxd(tmp_path / "influxd", changes=limit).start()
    database = influxd.database()
    try:
        command = collect(url=database.url, bucket=database.name)
        device.send_all({seq: telemetry(seq) for seq in range(1, 11)})
        jobs = {seq: job(seq, campaign_id=f"c{seq}") for seq in range(11, 41)}
        device.publish_all(jobs)
        wait_for(lambda: "records_deferred" in command.output(), what="the warning")
        assert "max-series-per-database" in command.output()
        device.send_all({seq: telemetry(seq) for seq in range(41, 51)})
        assert database.count("telemetry") == 20, "what is known already is written"
        assert not device.acked >= set(jobs)
        assert dead(tmp_path) == [], "no record is to blame"
        influxd.kill()
        influxd = Influxd(tmp_path / "influxd", port=influxd.port).start()  # without the limit
        device.send_all(jobs)
        assert database.count("job") == 30
    finally:
        influxd.kill()


@pytest.mark.parametrize("secret", ["wrong-secret-7", "secret"])
def test_a_wrong_password_ends_it_with_a_hint_and_no_password_is_ever_shown(
    collect, device, tmp_path, secret
):
    influxd = Influxd(tmp_path / "influxd", auth=True).start()
    try:
        database = influxd.database()
        file = tmp_path / "password"
        file.write_text(f"{secret}\n")
        command = collect(
            url=database.url, bucket=database.name, username="admin", password_file=str(file)
        )
        if secret == "secret":
            device.send_all({1: telemetry(1)})
            command.end()
        else:
            assert command.process.wait(30) == 2
            assert "store.username" in command.output()
            assert "authorization failed" in command.output()
        assert "wrong-secret-7" not in command.output()
        assert "YWRtaW46" not in command.output(), "nor as base64"
    finally:
        influxd.kill()
