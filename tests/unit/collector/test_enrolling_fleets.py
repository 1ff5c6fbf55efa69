"""What one identity says of fleet and host: for its own device, and for nobody later."""

import json
from dataclasses import replace

import pytest

from enrolled import BY_PASSWORD, Clock
from fleetmark_agent.config import AgentSettings, load_settings
from fleetmark_collector.enrolment import brokeracl
from fleetmark_collector.enrolment.enrolling import Enrolment, Wish


@pytest.fixture
def enrolment(tmp_path):
    return Enrolment.open(tmp_path, clock=Clock())


def lines_of(enrolment, device):
    _, found, block = enrolment.keep.read("broker/acl").partition(f"user {device}\n")
    assert found
    return block.partition("\n\n")[0].splitlines()


def test_a_device_has_topics_in_its_own_fleet_alone_and_its_kit_says_which(enrolment):
    usual = AgentSettings(device_id="x").fleet
    for device, wished, fleet in (("pi-lab", "lab", "lab"), ("pi", None, usual)):
        kit = enrolment.enroll(device, replace(BY_PASSWORD, fleet=wished))
        assert all(f"/{fleet}/{device}/" in line for line in lines_of(enrolment, device))
        assert load_settings(kit.directory / "agent.toml").fleet == fleet
        assert enrolment.find(device).fleet == fleet
    assert brokeracl.devices(enrolment.keep) == {"pi-lab": "lab", "pi": usual}


def test_a_renewal_keeps_the_fleet_unless_it_names_another(enrolment):
    enrolment.enroll("pi", replace(BY_PASSWORD, fleet="lab"))
    kit = enrolment.enroll("pi", BY_PASSWORD, renew=True)
    assert enrolment.find("pi").fleet == "lab"
    assert 'fleet = "lab"' in kit.files["agent.toml"]
    enrolment.enroll("pi", replace(BY_PASSWORD, fleet="field"), renew=True)
    assert {line.split("/")[2] for line in lines_of(enrolment, "pi")} == {"field"}


def test_who_was_enrolled_before_there_were_fleets_speaks_in_any_until_renewed_with_one(enrolment):
    enrolment.enroll("pi", BY_PASSWORD)
    file = enrolment.keep.path("identities.json")
    kept = json.loads(file.read_text())
    del kept["identities"]["pi"]["fleet"]
    file.write_text(json.dumps(kept))
    enrolment.prepare()
    assert enrolment.find("pi").fleet is None
    assert {line.split("/")[2] for line in lines_of(enrolment, "pi")} == {"+"}
    assert brokeracl.devices(enrolment.keep) == {"pi": None}
    kit = enrolment.enroll("pi", BY_PASSWORD, renew=True)
    assert {line.split("/")[2] for line in lines_of(enrolment, "pi")} == {"+"}
    assert "fleet =" not in kit.files["agent.toml"]
    enrolment.enroll("pi", replace(BY_PASSWORD, fleet="lab"), renew=True)
    assert {line.split("/")[2] for line in lines_of(enrolment, "pi")} == {"lab"}


def test_the_host_of_one_kit_is_not_that_of_later_ones(enrolment):
    def host(device, wish):
        return load_settings(enrolment.enroll(device, wish).directory / "agent.toml").broker.host

    assert host("first", Wish(kind="password", host="centre.example")) == "centre.example"
    assert host("typo", Wish(kind="password", host="center.example")) == "center.example"
    assert host("later", Wish(kind="password")) == "centre.example"
    assert host("again", Wish(kind="password", host="center.example")) == "center.example"


def test_an_address_of_one_of_this_machines_networks_is_not_asked_of_the_certificate_any_more(
    enrolment,
):
    enrolment.prepare(["centre.example"])
    names = enrolment.keep.path("names")
    names.write_text("fe80::1%eth0\n" + names.read_text())
    made = enrolment.keep.read("broker/server.crt")
    enrolment.enroll("pi", BY_PASSWORD)
    assert enrolment.keep.read("broker/server.crt") == made
    assert names.read_text() == "centre.example\n"
