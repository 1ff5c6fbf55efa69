"""A power meter's readings, from a device's file tree through its agent into store and report.

The agent, the engine, broker, collector and store are real; the meter is a file.
"""

import json

import pytest

from fakes.fake_sysfs import FakeSysfs

pytestmark = pytest.mark.integration

WATTS = 4.2


def test_trials_carry_the_energy_that_a_meter_saw_and_the_report_shows_it(fleet):
    root = fleet.directory / "pi"
    FakeSysfs(root).meter(0, "ina219", round(WATTS * 1e6))
    fleet.start_collector()
    fleet.start_agent("pi-1", f"[telemetry]\nsensor_root = {json.dumps(str(root))}\n")
    fleet.wait_for_devices("pi-1")
    campaign_id = fleet.submit(fleet.write_campaign())
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    trials = [one.record for one in fleet.trials(campaign_id)]
    assert len(trials) == 4
    for one in trials:
        assert one.energy_source == "meter"
        # A steady power: what it drew is that over the window, which holds the request.
        assert one.energy_j >= WATTS * one.latency_s
        assert one.energy_j < WATTS * (one.latency_s + 30)
        assert one.co2_g is None
    figures = fleet.directory / "figures.json"
    done = fleet.cli("report", campaign_id, "--json", str(figures))
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(figures.read_text("utf-8"))["cells"]
    assert cell["energy_sources"] == ["meter"]
    assert cell["figures"]["energy_j"]["median"] > 0
