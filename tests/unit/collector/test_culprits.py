"""Who is not listened to, for how long, and what that must not cost it."""

import json

import pytest

from besieged import Centre
from collected import BOOT, EPOCH, data, telemetry
from fleetmark_collector.culprits import (
    ALLOWED_BYTES,
    FLEETS_S,
    LEAST_BYTES,
    MAX_FLEETS,
    PAUSE_S,
    Culprits,
)
from fleetmark_protocol import codec, logs
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.messages import Status

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
    culprits = Culprits(lambda: now_s)
    culprits.learn([("old", "pi")])

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


def test_what_was_not_listened_to_of_a_device_in_many_fleets_is_asked_for_again(centre):
    fleets = [f"f{number:02d}" for number in range(2 * MAX_FLEETS)]
    status = codec.encode(Status(online=True, boot_id=BOOT, agent_version="1", started_ns=1))

    def all_say():
        for fleet in fleets:
            centre.say(f"fleetmark/v1/{fleet}/pi/status", status, retained=True)

    centre.look_after()
    all_say()
    centre.look_after()
    assert [one.fleet for one in centre.registry.list()] == fleets[:MAX_FLEETS]
    centre.time.now_s += FLEETS_S - 1
    centre.look_after()
    assert centre.asked_again == 0, "they would not be listened to"
    centre.time.now_s += 1
    centre.look_after()
    centre.look_after()
    assert centre.asked_again == 1
    all_say()
    assert [one.fleet for one in centre.registry.list()] == fleets
    centre.time.now_s += 2 * FLEETS_S
    centre.look_after()
    assert centre.asked_again == 1, "nobody was missed"


def test_what_a_device_says_of_itself_while_it_is_ignored_is_asked_for_again(centre):
    centre.look_after()
    for _ in range(ALLOWED_BYTES // LEAST_BYTES + 1):
        centre.say(f"{EVIL}/status", b"nonsense")
    centre.online("evil")
    centre.time.now_s += FLEETS_S
    centre.look_after()
    assert centre.asked_again == 1


def test_a_registry_that_cannot_be_read_at_first_is_read_later_and_nobody_stays_new(
    centre, monkeypatch
):
    fleets = [f"f{number:02d}" for number in range(2 * MAX_FLEETS)]
    centre.registry.seen((fleet, "pi") for fleet in fleets)
    centre.registry.flush()

    def away():
        raise StoreUnavailable("locked")

    with monkeypatch.context() as patched:
        patched.setattr(centre.registry, "list", away)
        centre.look_after()
        heard = [not centre.culprits.ignored((fleet, "pi"), "self") for fleet in fleets]
        assert sum(heard) == MAX_FLEETS
        centre.look_after()
        assert centre.asked_again == 0
    centre.look_after()
    assert not any(centre.culprits.ignored((fleet, "pi"), "self") for fleet in fleets)
    assert centre.asked_again == 1, "at once: those missed were known"


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
