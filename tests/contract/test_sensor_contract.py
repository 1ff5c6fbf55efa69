"""What every sensor keeps to, on this machine, on the files of other machines and on none."""

import time
from pathlib import Path

import pytest

from fakes.fake_sysfs import raspberry_pi, x86_server
from fleetmark_agent.telemetry.backlog import Waiting
from fleetmark_agent.telemetry.base import MIN_RATE_NS
from fleetmark_agent.telemetry.sensors import all_sensors
from fleetmark_protocol.metrics import METRICS
from fleetmark_protocol.records import TelemetryRecord


def sensors(root, directory):
    return all_sensors(root, directory, lambda: Waiting(7, 0.5))


NAMES = [sensor.name for sensor in sensors(Path("/"), Path("/"))]
NOT_METRICS = {"cpu_percent_per_core"}


@pytest.fixture(params=["this machine", "pi", "pi with a meter", "server", "empty"])
def root(request, tmp_path):
    if request.param == "this machine":
        return Path("/")
    if request.param == "pi":
        raspberry_pi(tmp_path)
    if request.param == "pi with a meter":
        raspberry_pi(tmp_path).meter(7, "ina219", 4_200_000)
    if request.param == "server":
        x86_server(tmp_path)
    return tmp_path


@pytest.fixture(params=NAMES)
def sensor(request, root, tmp_path):
    found = {one.name: one for one in sensors(root, tmp_path)}
    return found[request.param]


def read_twice(sensor, status):
    first = sensor.read()
    if status.available:
        # For those that give rates; where there is nothing, nothing changes.
        time.sleep(2 * MIN_RATE_NS / 1e9)
    return first, sensor.read()


def test_it_says_what_it_gives_or_why_it_gives_nothing(sensor):
    status = sensor.probe()
    assert status.source
    assert bool(status.fields) == status.available
    assert (status.reason is None) == status.available


def test_its_fields_are_fields_of_a_telemetry_record_and_metrics(sensor):
    fields = set(sensor.probe().fields)
    assert fields <= set(TelemetryRecord.model_fields)
    assert fields - NOT_METRICS <= set(METRICS)


def test_its_second_reading_gives_all_that_it_promised_and_a_record_takes_both(sensor):
    status = sensor.probe()
    first, second = read_twice(sensor, status)
    assert set(first) <= set(status.fields)
    assert set(second) == set(status.fields)
    for values in (first, second):
        TelemetryRecord.model_validate(
            {"time_ns": 1, "boot_id": "00000000-0000-0000-0000-000000000000", **values}
        )


def test_no_two_sensors_give_the_same_field(root, tmp_path):
    fields = [field for one in sensors(root, tmp_path) for field in one.probe().fields]
    assert len(fields) == len(set(fields))
