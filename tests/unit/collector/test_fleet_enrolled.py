"""Kits of this centre: made once, renewed in time, and never shared by two boards."""

from datetime import UTC, datetime, timedelta

import pytest

from fleetmark_collector.enrolment.enrolling import Enrolment, Wish
from fleetmark_collector.fleet.enrolled import EnrolledKits

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=340)


@pytest.fixture
def kits(tmp_path):
    """Return what opens the centre's kits at a time."""

    def at(now, kind="password", fleet=None):
        enrolment = Enrolment.open(tmp_path, tmp_path / "identities", clock=lambda: now)
        return EnrolledKits(enrolment, Wish(kind=kind, host="centre.example", fleet=fleet), now)

    return at


def test_a_device_that_is_unknown_is_enrolled_with_its_tags(kits):
    there = kits(NOW)
    assert (there.taken("pi-1"), there.due("pi-1"), there.find("pi-1")) == (False, False, None)
    made = there.make("pi-1", ("pi4",))
    assert b'tags = ["pi4"]' in made.files["agent.toml"]
    assert (there.taken("pi-1"), there.due("pi-1"), there.find("pi-1")) == (True, False, made)


def test_an_identity_that_ends_soon_is_renewed_by_one_of_its_kind(kits):
    first = kits(NOW).make("pi-1", ())
    assert not kits(NOW).due("pi-1")
    there = kits(LATER, kind="certificate")
    assert there.due("pi-1")
    second = there.make("pi-1", ())
    assert second.files["agent-password"] != first.files["agent-password"]
    assert second.broker == first.broker
    assert not there.due("pi-1")


def test_a_renewal_leaves_a_device_in_the_fleet_of_its_settings_whatever_is_wished_for(kits):
    kits(NOW, fleet="lab").make("pi-1", ())
    there = kits(LATER, fleet="field")
    assert there.make("pi-1", ()).fleet == "lab"
    assert there.enrolment.find("pi-1").fleet == "lab"
    assert there.make("pi-2", ()).fleet == "field"


def test_an_identity_that_was_lost_everywhere_is_ended_before_another_is_made(kits):
    there = kits(NOW, kind="certificate")
    there.enrolment.enroll("pi-1", Wish(host="centre.example", fleet="lab"))
    [first] = there.enrolment.find("pi-1").certificates
    directory = there.enrolment.keep.path("devices/pi-1")
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    assert (there.taken("pi-1"), there.find("pi-1")) == (True, None)
    there.make("pi-1", ())
    assert first not in there.enrolment.find("pi-1").certificates
    assert there.enrolment.find("pi-1").fleet == "lab", "as before, as nothing else is wished for"


def test_a_broker_that_does_not_run_needs_nothing_of_the_operator(kits):
    there = kits(NOW)
    there.make("pi-1", ())
    assert there.publish() is None
