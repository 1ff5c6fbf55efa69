"""Who is not listened to, for how long, and what that must not cost it."""

import json

import pytest

from besieged import Centre
from collected import EPOCH, data, telemetry
from fleetmark_collector.culprits import (
    ALLOWED_BYTES,
    FLEETS_S,
    LEAST_BYTES,
    MAX_FLEETS,
    PAUSE_S,
    Culprits,
)
from fleetmark_protocol import logs

EVIL = "fleetmark/v1/lab/evil"
GOOD = "fleetmark/v1/lab/good"


@pytest.fixture
def centre(tmp_path):
    made = Centre(tmp_path)
    yield made
    made.close()


def test_what_is_remembered_of_culprits_is_bounded(monkeypatch):
    monkeypatch.setattr("fleetmark_collector.culprits.MAX_KNOWN", 10)
    culprits = Culprits(lambda: 0.0)
    for number in range(1000):
        culprits.charge(("lab", f"d{number}"), 10)
        culprits.ignored(("lab", f"d{number}"))
    assert len(culprits._accounts) <= 10
    assert len(culprits._admitted) <= 10
    assert len(culprits._new) <= 10


def test_a_pause_ends_and_what_was_counted_before_it_is_forgotten():
    now_s = 0.0
    culprits = Culprits(lambda: now_s)
    evil = ("lab", "evil")
    culprits.charge(evil, ALLOWED_BYTES)
    assert not culprits.ignored(evil)
    culprits.charge(evil, 1)
    assert culprits.ignored(evil)
    assert not culprits.ignored(("lab", "good"))
    now_s = PAUSE_S
    assert not culprits.ignored(evil)
    culprits.charge(evil, ALLOWED_BYTES)
    assert not culprits.ignored(evil)


def test_a_name_is_taken_up_in_more_fleets_hour_by_hour_and_each_hour_it_is_told(capsys):
    logs.configure("info", "json")
    now_s = 0.0
    culprits = Culprits(lambda: now_s, known=[("old", "pi")])

    def heard():
        return [n for n in range(30) if not culprits.ignored((f"f{n}", "pi"))]

    def told():
        lines = map(json.loads, capsys.readouterr().err.splitlines())
        return [one["event"] for one in lines]

    assert not culprits.ignored(("old", "pi"))
    assert heard() == heard() == list(range(MAX_FLEETS)), "that of before takes no place"
    assert told() == ["too_many_fleets"]
    now_s = FLEETS_S
    assert heard() == list(range(2 * MAX_FLEETS)), "whoever was heard stays heard"
    assert told() == ["too_many_fleets"]


def test_what_a_muted_device_says_of_itself_is_heard(centre):
    for _ in range(ALLOWED_BYTES // LEAST_BYTES + 1):
        centre.say(f"{GOOD}/data", b"nonsense")
    centre.settle()
    assert centre.culprits.ignored(("lab", "good"))
    centre.online("good")
    centre.tick()
    assert centre.registry.get("lab", "good").online


def test_nonsense_that_a_device_says_of_itself_costs_it_a_pause_but_not_its_records(centre):
    for _ in range(ALLOWED_BYTES // LEAST_BYTES + 1):
        centre.say(f"{EVIL}/status", b"nonsense")
    centre.online("evil")
    centre.say(f"{EVIL}/data", data((1, telemetry())))
    centre.settle()
    assert centre.acked("evil", EPOCH) == {1}
    assert not centre.registry.get("lab", "evil").online
