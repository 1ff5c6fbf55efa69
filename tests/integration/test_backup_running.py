"""Backup and restore beside a collector at work: real broker, real agent, real processes."""

import json

import pytest

from commands import fleetmark
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.sinks.stores import open_reader
from servers import wait_for

pytestmark = pytest.mark.integration


def counts(data_dir):
    reader = open_reader(CollectorSettings(data_dir=data_dir))
    try:
        return reader.counts()
    finally:
        reader.close()


def run(*args, log):
    command = fleetmark(*args, log=log)
    return command.process.wait(60), command.output()


def test_a_collector_at_work_can_be_backed_up_and_taken_back_to_that_moment(fleet, tmp_path):
    fleet.start_collector()
    fleet.start_agent("pi-1", "[telemetry]\ninterval_s = 0.1\n")
    fleet.wait_for_devices("pi-1")
    wait_for(lambda: counts(fleet.data_dir)["telemetry"] > 20, what="samples in the store")

    copies = []
    for number in range(3):
        before = counts(fleet.data_dir)["telemetry"]
        code, said = run(
            *("backup", tmp_path / f"copy{number}", "--data-dir", fleet.data_dir),
            log=tmp_path / "backup.log",
        )
        assert code == 0, said
        copies.append((before, counts(tmp_path / f"copy{number}")["telemetry"]))
        wait_for(
            lambda: counts(fleet.data_dir)["telemetry"] > copies[-1][1] + 5,
            what="the collector writing on",
        )
    assert all(copied >= before for before, copied in copies), copies

    refused, said = run(
        "restore", tmp_path / "copy0", "--data-dir", fleet.data_dir, log=tmp_path / "refused.log"
    )
    assert refused == 2
    assert "another collector" in said

    fleet.kill("collector", 15)
    there = counts(fleet.data_dir)["telemetry"]
    code, said = run(
        "restore", tmp_path / "copy0", "--data-dir", fleet.data_dir, log=tmp_path / "restore.log"
    )
    assert code == 0, said
    assert counts(fleet.data_dir)["telemetry"] == copies[0][1] < there

    # The fleet goes on where the copy ends: the device is known, and what it sends is written.
    fleet.start_collector()
    # What an agent has sent in vain it sends again after 25 s at most.
    wait_for(lambda: counts(fleet.data_dir)["telemetry"] > copies[0][1], 60, "new samples")
    fleet.wait_for_devices("pi-1")
    done = fleet.cli("devices", "--json")
    assert [d["device"] for d in json.loads(done.stdout)] == ["pi-1"]
