"""Agents and collectors of other versions, real broker: near ones work, far ones are refused."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

import agentofversion
from fleet import Fleet
from fleetmark_protocol.version import __version__
from recordedwire import FAR, NEAR
from servers import Mosquitto, wait_for

pytestmark = pytest.mark.integration

NEIGHBOURS = [*((agent, __version__) for agent in NEAR[1:]), (__version__, NEAR[1])]
"""Agents one minor version newer and, where there is one, older; a collector that is newer."""
REASON = f"agent {FAR[0]} and collector {__version__} do not work together"


@pytest.fixture
def fleet(tmp_path):
    broker = Mosquitto(tmp_path).start()
    made = Fleet(tmp_path, broker)
    yield made
    made.close()
    broker.kill()


def agent_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "fleetmark_agent", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def numbers(file, query):
    """The numbers of records in an outbox or a store."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        return {seq for (seq,) in db.execute(query)}


def waiting(fleet):
    return numbers(fleet.state_dir("pi") / "outbox.db", "SELECT seq FROM records")


def stored(fleet):
    kinds = ("telemetry", "trial", "load", "job", "event")
    query = " UNION ALL ".join(f"SELECT seq FROM {kind}" for kind in kinds)
    return numbers(fleet.data_dir / "store.db", query)


def test_a_far_agent_is_refused_on_both_sides_and_delivers_everything_after_its_upgrade(fleet):
    # In a file, for the doctor, too.
    fleet.settings(f"[broker]\nhost = '127.0.0.1'\nport = {fleet.broker.port}\n")
    fleet.start_collector()
    fleet.start_agent("pi", "[telemetry]\ninterval_s = 0.2\n", version=FAR[0])
    fleet.wait_for_devices("pi")
    wait_for(lambda: "collector_refuses_records" in fleet.log("pi"), 20, "the agent's message")
    wait_for(lambda: "agent_refused" in fleet.log("collector"), 20, "the collector's message")

    said = agent_command("status", "--state-dir", str(fleet.state_dir("pi")))
    assert said.returncode == 1
    assert f"refuses      {REASON}" in said.stdout, said.stdout
    listed = fleet.cli("devices")
    assert f"nothing of it is taken: {REASON}" in listed.stdout
    (described,) = json.loads(fleet.cli("devices", "--json").stdout)
    assert described["version_problem"].startswith(REASON)
    assert REASON in fleet.cli("doctor").stdout

    campaign = fleet.write_campaign(repetitions=1)
    refused = fleet.cli("campaign", "plan", str(campaign))
    assert REASON in refused.stdout + refused.stderr
    campaign_id = fleet.submit(campaign)
    assert fleet.wait_for_end(campaign_id) == "FAILED"
    (job,) = fleet.status(campaign_id)["jobs"]
    assert job["state"] == "REJECTED"
    assert job["failure"]["code"] == "VERSION_MISMATCH"
    assert REASON in job["failure"]["message"]

    assert stored(fleet) == set()
    # More is kept than was offered, and the log has told it once.
    kept = waiting(fleet)
    assert len(kept) > 20
    assert fleet.log("pi").count("collector_refuses_records") == 1
    assert fleet.log("collector").count("agent_refused") == 1
    fleet.kill("pi", 15)
    kept |= waiting(fleet)

    fleet.start_agent("pi")
    wait_for(lambda: kept <= stored(fleet), 30, "all that was kept in the store")
    assert not (fleet.data_dir / "dead_letters.jsonl").exists()
    wait_for(lambda: not kept & waiting(fleet), 10, "an outbox without what was kept")
    said = agent_command("status", "--state-dir", str(fleet.state_dir("pi")))
    assert said.returncode == 0
    assert f"collector    {__version__}" in said.stdout
    again = fleet.submit(fleet.write_campaign(repetitions=1, name="again"))
    assert fleet.wait_for_end(again) == "SUCCEEDED"
    fleet.assert_each_trial_once(again, 2)


def test_a_far_collector_is_refused_on_both_sides_and_nothing_is_lost(fleet):
    reason = f"agent {__version__} and collector {FAR[0]} do not work together"
    fleet.start_collector(version=FAR[0])
    fleet.start_agent("pi", "[telemetry]\ninterval_s = 0.2\n")
    wait_for(lambda: "collector_refuses_records" in fleet.log("pi"), 20, "the agent's message")
    wait_for(lambda: "agent_refused" in fleet.log("collector"), 20, "the collector's message")
    assert reason in fleet.log("pi")
    assert reason in fleet.log("collector")
    said = agent_command("status", "--state-dir", str(fleet.state_dir("pi")))
    assert said.returncode == 1
    assert f"refuses      {reason}" in said.stdout, said.stdout
    assert stored(fleet) == set()
    wait_for(lambda: len(waiting(fleet)) > 5, 20, "more samples that wait")
    kept = waiting(fleet)
    assert kept == set(range(1, max(kept) + 1))

    fleet.kill("collector", 15)
    fleet.start_collector()
    wait_for(lambda: kept <= stored(fleet), 30, "all that was kept in the store")
    assert not (fleet.data_dir / "dead_letters.jsonl").exists()
    assert "collector_takes_records" in fleet.log("pi")


def test_the_doctor_on_a_far_device_says_that_the_version_is_why_it_does_not_show_up(fleet):
    fleet.start_collector()
    wait_for(lambda: "collector_started" in fleet.log("collector"), 20, "the collector")
    config = fleet.directory / "pi.toml"
    config.write_text(
        f"device_id = 'pi'\nstate_dir = '{fleet.state_dir('pi')}'\n"
        f"broker = {{ host = '127.0.0.1', port = {fleet.broker.port} }}\n"
    )
    found = {}
    for version in (FAR[0], __version__):
        done = subprocess.run(
            [sys.executable, agentofversion.__file__, version, "doctor", "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        found[version] = done.stdout
    assert f"the collector refuses this agent: {REASON}" in found[FAR[0]]
    assert f"a collector, version {__version__}, takes our records" in found[__version__]


@pytest.mark.parametrize(("agent", "collector"), NEIGHBOURS)
def test_one_minor_version_apart_runs_campaigns_like_any_other(fleet, agent, collector):
    fleet.start_collector(version=collector)
    fleet.start_agent("pi", version=agent)
    fleet.wait_for_devices("pi")
    campaign_id = fleet.submit(fleet.write_campaign(repetitions=2))
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    fleet.assert_each_trial_once(campaign_id, 3)
    assert "refuse" not in fleet.log("pi") + fleet.log("collector")
    (described,) = json.loads(fleet.cli("devices", "--json").stdout)
    assert (described["agent_version"], described["version_problem"]) == (agent, None)
    said = agent_command("status", "--state-dir", str(fleet.state_dir("pi")))
    assert f"collector    {collector}" in said.stdout
