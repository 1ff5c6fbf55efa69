"""What an agent does while a collector refuses it: it keeps all, asks rarely, says so once."""

import logging

import pytest

from conversing import Device
from fleetmark_agent.conversation import BATCH_RECORDS
from fleetmark_agent.joblog import JobLog
from fleetmark_agent.recorder import Recorder
from fleetmark_agent.resend import REFUSED_WAIT_MAX_S, REFUSED_WAIT_S
from fleetmark_agent.wishes import RETRY_S
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.version import __version__


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


def next_offer(device):
    """Take turns as the link does until something is sent; return the seconds, and how much."""
    for seconds in range(1, 200):
        device.time.now_s += 1
        device.talk.turn()
        sent = sum(map(len, device.batches()))
        if sent:
            return seconds, sent
    raise AssertionError("nothing is offered any more")


def test_what_is_refused_is_kept_and_offered_again_one_record_at_a_time_and_ever_more_rarely(
    device,
):
    device.talk.greet()
    for _ in range(BATCH_RECORDS + 5):
        device.event()
    device.talk.turn()
    assert sum(map(len, device.batches())) == BATCH_RECORDS + 5
    # An answer for each of the two batches.
    device.refuse()
    device.refuse()
    gaps = []
    for _ in range(7):
        gap_s, many = next_offer(device)
        assert many == 1
        gaps.append(gap_s)
        device.refuse()
    assert gaps[0] >= REFUSED_WAIT_S * 0.75
    assert gaps[1] > gaps[0]
    assert REFUSED_WAIT_MAX_S * 0.75 <= max(gaps) <= REFUSED_WAIT_MAX_S * 1.25 + 1
    assert device.outbox.backlog().records == BATCH_RECORDS + 5
    assert device.watched.count(("acked", 0)) == 0


def test_when_the_collector_takes_one_the_rest_goes_at_once(device):
    device.talk.greet()
    for _ in range(10):
        device.event()
    device.talk.turn()
    device.batches()
    device.refuse()
    assert next_offer(device)[1] == 1
    device.ack(1)
    device.talk.turn()
    assert sum(map(len, device.batches())) == 9


def test_after_a_reconnect_all_is_offered_at_once(device):
    device.talk.greet()
    for _ in range(10):
        device.event()
    device.talk.turn()
    device.batches()
    device.refuse()
    device.talk.turn()
    assert device.batches() == []
    device.talk.lost()
    device.talk.greet()
    device.talk.turn()
    assert sum(map(len, device.batches())) == 10


def test_the_log_says_it_once_for_each_change(device, caplog):
    caplog.set_level(logging.INFO)
    device.talk.greet()
    device.event()
    for _ in range(3):
        device.talk.lost()
        device.talk.greet()
        device.talk.turn()
        device.refuse("upgrade the agent")
    assert device.talk.centre.refusal == "upgrade the agent"
    device.talk.lost()
    device.talk.greet()
    device.talk.turn()
    device.ack(1)
    assert device.talk.centre.refusal is None
    said = [one.getMessage() for one in caplog.records if "collector_" in one.getMessage()]
    assert said == ["collector_refuses_records", "collector_takes_records"]


def test_a_refusal_does_not_bring_control_characters_into_log_and_terminal(device):
    device.talk.greet()
    device.event()
    device.talk.turn()
    device.refuse("\x1b[2Jgone\n" + "x" * 4000)
    assert device.talk.centre.refusal.isprintable()
    assert len(device.talk.centre.refusal) <= 500


def test_the_refusal_of_another_outbox_changes_nothing(device):
    device.talk.greet()
    device.event()
    device.talk.turn()
    other = "0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a0009"
    device.hear(
        "ack", Ack(epoch=other, ranges=(), collector_version="99.0.0", refused="not for us")
    )
    assert device.talk.centre.refusal is None
    assert device.talk.centre.version is None


def test_an_ack_of_a_collector_from_before_versions_were_said_is_believed(device):
    device.talk.greet()
    device.event()
    device.talk.turn()
    device.hear("ack", Ack(epoch=device.outbox.epoch, ranges=((1, 1),)))
    assert device.outbox.backlog().records == 0
    assert device.talk.centre.refusal is None


def test_a_refused_job_is_handed_on_with_its_reason_and_again_while_the_disk_is_full(device):
    device.room = False
    device.wish(1, "run", power_cap_w=5)
    assert device.taken == []
    device.room = True
    device.time.now_s += RETRY_S
    device.talk.turn()
    ((job_id, what),) = device.taken
    assert job_id == "c.d1.001"
    assert "power_cap_w" in what


def test_a_refused_job_is_answered_rejected_without_being_kept_and_an_open_one_goes_on(tmp_path):
    device = Device(tmp_path)
    database = device.outbox._database
    recorder = Recorder(database, device.outbox, JobLog(database), stopped=lambda: False)
    refused = device.refused(1, power_cap_w=5)
    assert recorder.refuse(refused)
    (record,) = device.records()
    assert (record.job_id, record.state) == ("c.d1.001", JobState.REJECTED)
    assert record.failure.code == "VERSION_MISMATCH"
    assert "upgrade the agent" in record.failure.message
    assert recorder.joblog.get("c.d1.001") is None

    open_one = device.refused(2, version="99.0.0")
    recorder.joblog.accept(device.spec(2))
    assert not recorder.refuse(open_one)
    assert len(device.records()) == 1


def test_a_refused_cancelling_of_a_job_that_is_not_known_ends_it_canceled(tmp_path):
    device = Device(tmp_path)
    database = device.outbox._database
    recorder = Recorder(database, device.outbox, JobLog(database), stopped=lambda: False)
    assert recorder.refuse(device.refused(1, desired="cancel", options=3))
    assert [one.state for one in device.records()] == [JobState.CANCELED]


def test_the_own_version_goes_with_each_batch(device):
    device.talk.greet()
    device.event()
    device.talk.turn()
    (payload,) = [payload for channel, payload, _ in device.said if channel == "data"]
    assert f'"agent_version":"{__version__}"'.encode() in payload
