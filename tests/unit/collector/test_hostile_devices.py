"""What one device can do to the others and to the centre by what it sends: nothing that lasts."""

import json

import pytest

from besieged import LETTERS_BYTES, Centre
from collected import BOOT, EPOCH, OTHER_EPOCH, S, data, event, job, telemetry, trial
from fleetmark_collector import plain
from fleetmark_collector.batch import MAX_BYTES, Batch
from fleetmark_collector.culprits import (
    ALLOWED_BYTES,
    LEAST_BYTES,
    MAX_FLEETS,
)
from fleetmark_collector.dead_letters import MAX_RAW_CHARS
from fleetmark_collector.inbox import Arrival
from fleetmark_protocol import codec
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES, Status
from fleetmark_protocol.version import __version__

EVIL = "fleetmark/v1/lab/evil"
GOOD = "fleetmark/v1/lab/good"


@pytest.fixture
def centre(tmp_path):
    made = Centre(tmp_path)
    yield made
    made.close()


def zeros(count: int = 1000) -> bytes:
    """A small message of many records that are none."""
    head = f'{{"epoch":"{EPOCH}","agent_version":"{__version__}","records":['.encode()
    return head + b",".join([b"0"] * count) + b"]}"


# --- statuses and inventories ----------------------------------------------------------------


def test_an_inventory_that_is_larger_when_it_is_kept_is_refused_and_stops_nobody(centre):
    backend = {"name": "a", "available": True}
    hardware = {"arch": "a", "os": "b", "kernel": "c", "hostname": "d"}
    swollen = {
        "boot_id": BOOT,
        "time_ns": 1,
        "agent_version": "1",
        "python_version": "3",
        "hardware": hardware,
        "backends": [backend] * 25_000,
    }
    payload = json.dumps(swollen, separators=(",", ":")).encode()
    assert len(payload) < MAX_PAYLOAD_BYTES
    centre.say(f"{EVIL}/inventory", payload, retained=True)
    centre.online("good")
    centre.tick()
    assert [(one.device, one.online) for one in centre.registry.list()] == [("good", True)]
    assert "inventory" in centre.dead_file.read_text()


def test_a_will_that_is_played_again_after_a_newer_birth_changes_nothing(centre):
    def status(boot: str, online: bool, started_ns: int) -> bytes:
        return codec.encode(
            Status(online=online, boot_id=boot, agent_version="0.1.0", started_ns=started_ns)
        )

    centre.say(f"{GOOD}/status", status(EPOCH, True, 1))
    old_will = status(EPOCH, False, 1)
    centre.say(f"{GOOD}/status", status(OTHER_EPOCH, True, 2))
    for _ in range(3):
        centre.say(f"{GOOD}/status", old_will, retained=True)
        centre.tick()
    assert centre.registry.get("lab", "good").online


def test_a_name_in_ever_new_fleets_is_listened_to_in_a_few_of_them_only(centre):
    for number in range(MAX_FLEETS + 30):
        centre.say(
            f"fleetmark/v1/f{number}/evil/status",
            codec.encode(Status(online=True, boot_id=BOOT, agent_version="1", started_ns=1)),
        )
        centre.say(f"fleetmark/v1/f{number}/evil/data", data((1, telemetry())))
    centre.online("good")
    centre.settle()
    assert len(centre.registry.list()) == MAX_FLEETS + 1
    assert centre.reader.counts()["telemetry"] == MAX_FLEETS


# --- nonsense --------------------------------------------------------------------------------


def test_a_flood_of_nonsense_keeps_nobody_elses_records_waiting(centre):
    """Such messages are cheap to send, dear to read, and fill no batch with records."""
    for number in range(1, 400):
        centre.say(f"{EVIL}/data", zeros())
        if number % 100 == 0:
            centre.say(f"{GOOD}/data", data((number, telemetry(number))))
    centre.settle()
    assert centre.acked("good", EPOCH) == {100, 200, 300}
    stats = centre.ingest.stats()
    assert 1000 <= stats.records_dead <= (ALLOWED_BYTES // LEAST_BYTES + 1) * 1000
    assert stats.messages_dropped >= 250
    assert centre.letters_bytes() < 3 * LETTERS_BYTES


def test_a_write_is_not_held_open_by_messages_that_bring_it_nothing():
    batch = Batch()
    for _ in range(3):
        arrival = Arrival(f"{EVIL}/data", zeros(1000), 0.0)
        assert not batch.full(3000)
        batch.count(arrival)
        batch.add(arrival)
    assert batch.full(3000)
    empty = Batch()
    for _ in range(3000):
        assert not empty.full(3000)
        empty.count(Arrival(f"{EVIL}/data", b"nonsense", 0.0))
    assert empty.full(3000)
    large = Batch()
    while not large.full(3000):
        large.count(Arrival(f"{EVIL}/data", b"x" * MAX_PAYLOAD_BYTES, 0.0))
    assert large.bytes < MAX_BYTES + MAX_PAYLOAD_BYTES


def test_a_mistake_of_ours_with_one_message_does_not_stop_the_others(centre, monkeypatch):
    real = plain.decode_batch

    def decode(payload):
        if b"cursed" in payload:
            raise ZeroDivisionError
        return real(payload)

    monkeypatch.setattr(plain, "decode_batch", decode)
    centre.say(f"{EVIL}/data", b"cursed")
    centre.say(f"{GOOD}/data", data((1, telemetry())))
    centre.settle()
    assert centre.acked("good", EPOCH) == {1}
    assert "cursed" in centre.dead_file.read_text()


def test_who_was_ignored_is_listened_to_again_after_a_while(centre):
    for _ in range(ALLOWED_BYTES // LEAST_BYTES + 1):
        centre.say(f"{EVIL}/data", b"nonsense")
    centre.settle()
    centre.say(f"{EVIL}/data", data((1, telemetry())))
    centre.settle()
    assert centre.acked("evil", EPOCH) == set(), "its agent keeps what is not acknowledged"
    centre.forgive()
    centre.say(f"{EVIL}/data", data((1, telemetry())))
    centre.settle()
    assert centre.acked("evil", EPOCH) == {1}


def test_an_honest_device_that_now_and_then_sends_a_wrong_record_is_always_listened_to(centre):
    for number in range(300):
        # As fast as an agent sends telemetry: every two seconds.
        centre.time.now_s += 2.0
        good, bad = 2 * number + 1, 2 * number + 2
        payload = codec.encode_batch(
            EPOCH, [(good, codec.encode(telemetry(good))), (bad, b'{"kind":"odd"}')]
        )
        centre.say(f"{GOOD}/data", payload)
        if number % 15 == 0:
            centre.settle()
    centre.settle()
    assert centre.acked("good", EPOCH) == set(range(1, 601))


def test_a_letter_of_a_large_record_is_short_from_the_beginning(centre):
    large = json.dumps({"kind": "odd", "x": "\U0001f600" * 200_000}).encode()
    payload = b'{"epoch":"%s","records":[{"seq":1,"record":%s}]}' % (
        EPOCH.encode(),
        large[:900_000],
    )
    centre.say(f"{EVIL}/data", payload)
    whole = codec.encode_batch(EPOCH, [(1, json.dumps({"x": "y" * 900_000}).encode())])
    centre.say(f"{EVIL}/data", whole)
    centre.settle()
    letters = [json.loads(line) for line in centre.dead_file.read_text().splitlines()]
    assert [len(one["raw"]) <= MAX_RAW_CHARS + 3 for one in letters] == [True, True]


# --- played again ----------------------------------------------------------------------------


def test_a_batch_that_is_played_again_is_confirmed_again_and_written_once(centre):
    payload = data((1, telemetry(1)), (2, trial(2)), (3, job(3)), (4, event(4)))
    for _ in range(5):
        centre.say(f"{GOOD}/data", payload)
        centre.settle()
    assert centre.acked("good", EPOCH) == {1, 2, 3, 4}
    assert sum(centre.reader.counts().values()) == 4


def test_a_number_that_is_used_again_for_something_else_does_not_change_what_was_written(centre):
    centre.say(f"{GOOD}/data", data((1, telemetry(1)), (2, trial(2, latency_s=1.0))))
    centre.settle()
    centre.say(f"{GOOD}/data", data((1, telemetry(9, cpu_percent=99)), (2, trial(9, latency_s=9))))
    # And another kind under the same number, which has a table of its own.
    centre.say(f"{GOOD}/data", data((2, telemetry(5))))
    centre.settle()
    (sample, _) = centre.reader.telemetry("lab", "good", 0, 100 * S)
    assert (sample.time_ns, sample.cpu_percent) == (S, 12.5)
    (only,) = centre.reader.trials("c")
    assert (only.record.time_ns, only.record.latency_s) == (2 * S, 1.0)


@pytest.mark.parametrize("time_ns", [0, 1, 2**63 - 1])
def test_times_from_the_ends_of_the_world_are_kept_and_can_be_listed(centre, time_ns):
    centre.say(
        f"{EVIL}/data",
        data(
            (1, telemetry().model_copy(update={"time_ns": time_ns})),
            (2, event().model_copy(update={"time_ns": time_ns})),
        ),
    )
    centre.settle()
    assert centre.reader.latest_telemetry()["lab", "evil"].time_ns == time_ns
    assert centre.reader.events()[0].record.time_ns == time_ns


# --- another device's jobs -------------------------------------------------------------------


def test_a_device_cannot_end_another_devices_job_nor_add_to_its_trials(centre):
    job_id = centre.campaign("c1", "good")[0]
    forged = {"campaign_id": "c1", "job_id": job_id}
    centre.say(
        f"{EVIL}/data",
        data(
            (1, job(1, "IN_PROGRESS", **forged)),
            (2, trial(2, f"{job_id}.one.0.0", **forged)),
            (3, job(3, "SUCCEEDED", trials_recorded=1, **forged)),
        ),
    )
    centre.settle()
    centre.tick()
    row = next(one for one in centre.jobs("c1") if one.job_id == job_id)
    assert row.state == "QUEUED"
    # The device itself has ended it, and says that it made a trial, which is not here yet.
    own = [
        (1, job(1, "IN_PROGRESS", **forged)),
        (2, job(2, "SUCCEEDED", trials_recorded=1, **forged)),
    ]
    centre.say(f"{GOOD}/data", data(*own))
    centre.settle()
    centre.tick()
    row = next(one for one in centre.jobs("c1") if one.job_id == job_id)
    assert row.state == "IN_PROGRESS", "another's trial stood for its own"
    centre.say(f"{GOOD}/data", data((3, trial(2, f"{job_id}.one.0.0", **forged))))
    centre.settle()
    centre.tick()
    row = next(one for one in centre.jobs("c1") if one.job_id == job_id)
    assert row.state == "SUCCEEDED"


def test_what_a_device_says_after_its_last_word_changes_nothing(centre):
    job_id = centre.campaign("c1", "good")[0]
    mine = {"campaign_id": "c1", "job_id": job_id}
    centre.say(
        f"{GOOD}/data", data((1, job(1, "IN_PROGRESS", **mine)), (2, job(2, "FAILED", **mine)))
    )
    centre.settle()
    centre.tick()
    later = [
        job(3, "SUCCEEDED", **mine),
        job(4, "IN_PROGRESS", **{**mine, "attempt": 2**31 - 1}),
        job(5, "CANCELED", **mine),
        job(0.5, "SUCCEEDED", **{**mine, "attempt": 0}),
    ]
    centre.say(f"{GOOD}/data", data(*enumerate(later, start=3)))
    centre.settle()
    centre.tick()
    row = next(one for one in centre.jobs("c1") if one.job_id == job_id)
    assert row.state == "FAILED"
