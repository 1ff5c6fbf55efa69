"""A hundred devices at a time are dealt with a few at a time, and the broker is told once."""

import asyncio

import pytest

from fakes.fake_kits import FakeKits
from fakes.fake_ssh import FakeSsh
from fleetmark_collector.fleet import scripts
from fleetmark_collector.fleet.hosts import read_targets
from fleetmark_collector.fleet.install import Installer
from fleetmark_collector.fleet.kits import Kit
from fleetmark_collector.fleet.probe import PROBE

NAMES = [f"pi-{number}" for number in range(100)]


class Heard:
    """What the user is told."""

    def __init__(self):
        self.steps, self.outcomes, self.notes = [], [], []

    def step(self, target, doing):
        self.steps.append((target.destination, doing))

    def ended(self, outcome):
        self.outcomes.append(outcome)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def run():
    """Return what installs the hundred: outcomes, and what the user was told."""

    def install(ssh, kits, *, wait_s=60, dry_run=False):
        heard = Heard()
        installer = Installer(ssh, kits, {}, heard, at_once=8, wait_s=wait_s)
        return asyncio.run(installer.install(read_targets(NAMES), dry_run=dry_run)), heard

    return install


def test_no_more_than_asked_are_spoken_with_at_once(run):
    ssh = FakeSsh()
    outcomes, heard = run(ssh, FakeKits())
    assert {one.state for one in outcomes} == {"done"}
    assert [one.target.destination for one in outcomes] == NAMES
    assert ssh.most_at_once == 8
    assert len(heard.outcomes) == 100


def test_all_are_enrolled_before_the_broker_is_told_once_and_before_any_identity_travels(run):
    kits = FakeKits(todo="reload the broker")
    ssh = FakeSsh()
    _, heard = run(ssh, kits)
    assert kits.events == [*NAMES, "published"]
    assert heard.notes == ["reload the broker"]
    enrolling = [index for index, (_, doing) in enumerate(heard.steps) if doing == "enrolling"]
    copying = [index for index, (_, doing) in enumerate(heard.steps) if doing.startswith("copying")]
    assert max(enrolling) < min(copying)


def test_where_nobody_is_enrolled_the_broker_is_not_told(run):
    kits = FakeKits(Kit("pi", {"agent.toml": b""}), todo="reload the broker")
    _, heard = run(FakeSsh(), kits)
    assert (kits.events, heard.notes) == ([], [])


def test_who_cannot_be_enrolled_gets_nothing_and_the_others_all(run):
    ssh = FakeSsh()
    outcomes, _ = run(ssh, FakeKits(refused=("pi-7",)))
    assert [one.device for one in outcomes if one.state == "failed"] == ["pi-7"]
    assert outcomes[7].problem == "no room for pi-7"
    assert [script for name, script in ssh.ran if name == "pi-7"] == [PROBE]


def test_a_dry_run_enrolls_nobody_and_only_looks(run):
    ssh, kits = FakeSsh(), FakeKits()
    outcomes, _ = run(ssh, kits, dry_run=True)
    assert {one.state for one in outcomes} == {"planned"}
    assert {script for _, script in ssh.ran} == {PROBE}
    assert kits.events == []


def test_who_is_online_but_refused_by_the_collector_is_not_done(run):
    refused = '{{"device": "{node}", "connected": true, "collector_refusal": "9.0 is too new"}}'
    outcomes, _ = run(FakeSsh(refused), FakeKits())
    assert {one.state for one in outcomes} == {"failed"}
    assert outcomes[0].problem.endswith("the collector takes nothing of it: 9.0 is too new")
    assert "--package" in outcomes[0].hint


def test_who_does_not_wish_to_wait_does_not_ask(run):
    ssh = FakeSsh()
    outcomes, _ = run(ssh, FakeKits(), wait_s=0)
    assert {one.state for one in outcomes} == {"done"}
    assert scripts.WAIT not in {script for _, script in ssh.ran}
