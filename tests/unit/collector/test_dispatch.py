"""The dispatcher against the real store and state file; broker and devices only pretend."""

import pytest

from fakes.fake_fleet import (
    CAMPAIGN,
    EPOCH,
    START_NS,
    FakeDevice,
    FakeWorld,
    S,
    make_inventory,
    trial_record,
)
from fleetmark_collector.campaigns.patience import PATIENCE
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import KnownJob
from fleetmark_protocol.records import JobRecord

J = JobState


def campaign_state(world: FakeWorld, campaign_id: str = "c1") -> CampaignState:
    store = world.store()
    state = store.campaign(campaign_id).state
    store.close()
    return state


def cancel(world: FakeWorld, campaign_id: str = "c1") -> None:
    store = world.store()
    store.request_cancel(campaign_id)
    store.close()


def report(world: FakeWorld, job_id: str, state: JobState, seq: int, **fields) -> None:
    """Put a device's word into the store."""
    known = {
        "time_ns": START_NS + seq,
        "campaign_id": job_id.split(".")[0],
        "job_id": job_id,
        "attempt": 1,
        "state": state,
    }
    record = JobRecord(**{**known, **fields})
    world.sink.write([Stored("lab", job_id.split(".")[1], EPOCH, seq, record)])


def job(world: FakeWorld, job_id: str):
    store = world.store()
    (found,) = (one for one in store.jobs("c1") if one.job_id == job_id)
    store.close()
    return found


def test_a_campaign_runs_to_its_end_and_leaves_nothing_on_the_broker(make_world):
    world = make_world(FakeDevice("pi-1"), FakeDevice("pi-2"))
    ids = world.submit()
    for _ in range(40):
        world.step()
    assert world.states() == dict.fromkeys(ids, J.SUCCEEDED)
    assert campaign_state(world) is CampaignState.SUCCEEDED
    assert world.retained == {}


def test_a_device_has_one_job_at_a_time_in_the_order_of_the_plan(make_world):
    device = FakeDevice("pi-1")
    world = make_world(device)
    ids = world.submit()
    for _ in range(40):
        world.step()
        assert sum(not state.terminal for state in device.known.values()) <= 1
    assert device.started == ids


def test_nothing_is_published_twice_on_one_connection(make_world):
    world = make_world(FakeDevice("pi-1"))
    ids = world.submit()
    for _ in range(40):
        world.step()
    assert sorted(world.sent) == sorted(
        # Again once an attempt has begun: a device that forgets must count on from there.
        [(job_id, said) for job_id in ids for said in ("run", "run", "nothing")]
    )


def test_an_older_campaign_goes_first_on_a_shared_device(make_world):
    device = FakeDevice("pi-1")
    world = make_world(device)
    first = world.submit("c1")
    world.now_ns += S
    second = world.submit("a-later-one")
    for _ in range(60):
        world.step()
    assert device.started == first + second
    assert campaign_state(world, "a-later-one") is CampaignState.SUCCEEDED


@pytest.mark.parametrize("end", [J.FAILED, J.TIMED_OUT, J.REJECTED])
def test_a_job_that_ends_badly_fails_the_campaign_and_the_others_go_on(make_world, end):
    world = make_world(FakeDevice("pi-1", ends={"002": end}))
    ids = world.submit()
    for _ in range(40):
        world.step()
    assert world.states() == {**dict.fromkeys(ids, J.SUCCEEDED), "c1.pi-1.002": end}
    assert job(world, "c1.pi-1.002").failure.message == "as told"
    assert campaign_state(world) is CampaignState.FAILED


def test_a_job_ends_only_when_all_its_trials_are_in_the_store(make_world):
    world = make_world(FakeDevice("pi-1"))
    world.dispatcher.tick()
    first, *_ = world.submit()
    world.dispatcher.tick()
    spec = world.devices[0].specs[first]
    report(world, first, J.SUCCEEDED, 9, trials_recorded=2)
    world.dispatcher.tick()
    assert not world.states()[first].terminal
    world.sink.write([Stored("lab", "pi-1", EPOCH, 2, trial_record(spec, 0))])
    # The same trial again, as a resend or a second attempt brings it, is not another one.
    world.sink.write([Stored("lab", "pi-1", EPOCH, 7, trial_record(spec, 0))])
    world.dispatcher.tick()
    assert not world.states()[first].terminal
    world.sink.write([Stored("lab", "pi-1", EPOCH, 3, trial_record(spec, 1))])
    world.dispatcher.tick()
    assert world.states()[first] is J.SUCCEEDED
    assert job(world, first).trials_recorded == 2


def test_a_device_that_is_done_gets_its_next_job_while_trials_are_on_their_way(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, second, *_ = world.submit()
    world.dispatcher.tick()
    report(world, first, J.SUCCEEDED, 9, trials_recorded=2)
    world.dispatcher.tick()
    assert (second, "run") in world.sent
    assert (first, "nothing") not in world.sent


def test_trials_that_never_come_fail_the_job_after_a_while(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    world.dispatcher.tick()
    report(world, first, J.SUCCEEDED, 9, trials_recorded=2)
    world.dispatcher.tick()
    world.now_ns += int(PATIENCE.trials_s * S)
    world.dispatcher.tick()
    assert not world.states()[first].terminal
    world.now_ns += S
    world.dispatcher.tick()
    assert world.states()[first] is J.FAILED
    assert job(world, first).failure.code == "PARTIAL_WRITE"


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 2, 1), (3, 1, 4, 2)])
def test_reports_count_the_same_in_any_order_and_any_number(make_world, order):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    world.dispatcher.tick()
    words = {
        1: {"state": J.IN_PROGRESS, "attempt": 1},
        2: {"state": J.IN_PROGRESS, "attempt": 2},
        3: {"state": J.FAILED, "attempt": 2},
        4: {"state": J.FAILED, "attempt": 2},  # said again after a reconnect
    }
    for seq in order:
        report(world, first, seq=seq, **words[seq])
        report(world, first, seq=seq, **words[seq])
        world.dispatcher.tick()
    ended = job(world, first)
    assert ended.state is J.FAILED
    if order[0] != 4 and order[0] != 3:
        assert ended.attempt == 2


def test_an_interrupted_job_goes_on_with_its_next_attempt(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    world.dispatcher.tick()
    report(world, first, J.IN_PROGRESS, 1)
    world.dispatcher.tick()
    begun = job(world, first).started_ns
    world.now_ns += 5 * S
    report(world, first, J.IN_PROGRESS, 2, attempt=2)
    world.dispatcher.tick()
    assert (job(world, first).attempt, job(world, first).started_ns) == (2, begun + 5 * S)


def test_what_another_device_says_of_a_job_does_not_count(make_world):
    world = make_world(FakeDevice("pi-1"), FakeDevice("pi-2"))
    first, *_ = world.submit()
    world.dispatcher.tick()
    record = JobRecord(
        time_ns=1, campaign_id="c1", job_id=first, attempt=1, state=J.SUCCEEDED, trials_recorded=0
    )
    world.sink.write([Stored("lab", "pi-2", EPOCH, 1, record)])
    world.dispatcher.tick()
    assert world.states()[first] is J.QUEUED


def test_a_late_report_changes_nothing_and_is_kept_once(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    world.dispatcher.tick()
    report(world, first, J.FAILED, 1)
    world.dispatcher.tick()
    report(world, first, J.FAILED, 2)  # the same, said again: nothing new
    report(world, first, J.SUCCEEDED, 3)
    for _ in range(2):
        world.dispatcher.tick()
    world.dispatcher.close()
    world.start().tick()
    store = world.store()
    late = store.late_reports("c1")
    store.close()
    assert [one.record.state for one in late] == [J.SUCCEEDED]
    assert world.states()[first] is J.FAILED


def test_a_rejection_of_a_job_that_had_begun_is_a_failure(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    world.dispatcher.tick()
    report(world, first, J.IN_PROGRESS, 1)
    world.dispatcher.tick()
    report(world, first, J.REJECTED, 2)
    world.dispatcher.tick()
    assert world.states()[first] is J.FAILED


# --- cancel ------------------------------------------------------------------------------------


def test_canceling_asks_the_device_and_ends_when_it_answers(make_world):
    device = FakeDevice("pi-1")
    world = make_world(device)
    first, *others = world.submit()
    world.step()
    world.step()
    cancel(world)
    assert [world.states()[job_id] for job_id in others] == [J.CANCELED] * 3
    for _ in range(3):
        world.step()
    assert (first, "cancel") in world.sent
    assert world.states()[first] is J.CANCELED
    assert campaign_state(world) is CampaignState.CANCELED
    assert world.retained == {}


@pytest.mark.parametrize(
    ("online", "patience_s"),
    [(False, PATIENCE.cancel_offline_s), (True, PATIENCE.cancel_online_s)],
)
def test_a_cancellation_that_nobody_answers_ends_in_the_centre(make_world, online, patience_s):
    device = FakeDevice("pi-1")
    world = make_world(device)
    first, *_ = world.submit()
    world.dispatcher.tick()
    device.online = online
    cancel(world)
    world.now_ns += int(patience_s * S)
    world.dispatcher.tick()
    assert world.states()[first] is J.QUEUED
    world.now_ns += S
    world.dispatcher.tick()
    assert world.states()[first] is J.CANCELED
    assert job(world, first).failure.code == "CANCELED"
    assert world.retained == {}


def test_a_job_that_ended_before_the_cancellation_came_keeps_its_end(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    world.dispatcher.tick()
    cancel(world)
    report(world, first, J.SUCCEEDED, 1)
    world.dispatcher.tick()
    assert world.states()[first] is J.SUCCEEDED
    assert campaign_state(world) is CampaignState.CANCELED


# --- time --------------------------------------------------------------------------------------


def test_a_device_that_is_offline_is_waited_for_until_the_campaigns_time_is_up(make_world):
    device = FakeDevice("pi-1", online=False)
    world = make_world(device)
    first, *others = world.submit("c1", f"{CAMPAIGN}timeouts: {{campaign_s: 3600}}\n")
    world.dispatcher.tick()
    world.now_ns += 3600 * S
    world.dispatcher.tick()
    assert set(world.states().values()) == {J.QUEUED}
    world.now_ns += S
    world.dispatcher.tick()
    assert {world.states()[job_id] for job_id in others} == {J.TIMED_OUT}
    world.now_ns += int((PATIENCE.cancel_offline_s + 1) * S)
    world.dispatcher.tick()
    assert world.states()[first] is J.TIMED_OUT
    assert job(world, first).failure.code == "CAMPAIGN_TIMED_OUT"
    assert campaign_state(world) is CampaignState.TIMED_OUT
    assert world.retained == {}


def test_a_device_that_comes_back_in_time_is_told_its_job_by_the_broker(make_world):
    device = FakeDevice("pi-1", online=False)
    world = make_world(device)
    ids = world.submit()
    world.step(100)
    world.come_online(device)
    for _ in range(40):
        world.step()
    assert world.states() == dict.fromkeys(ids, J.SUCCEEDED)


def test_a_device_that_dies_in_a_job_is_given_up_past_the_jobs_time(make_world):
    device = FakeDevice("pi-1")
    world = make_world(device)
    first, second, *_ = world.submit()
    world.step()
    world.step()
    assert world.states()[first] is J.IN_PROGRESS
    device.online = False
    world.now_ns += int((7200 + PATIENCE.job_s) * S)
    world.dispatcher.tick()
    assert world.states()[first] is J.IN_PROGRESS
    world.now_ns += S
    world.dispatcher.tick()
    assert world.states()[first] is J.TIMED_OUT
    assert job(world, first).failure.code == "DEVICE_SILENT"
    assert (second, "run") in world.sent


def test_a_device_that_is_online_is_trusted_to_keep_its_own_time(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    world.step()
    world.step()
    world.now_ns += 9000 * S
    world.dispatcher.tick()
    assert world.states()[first] is J.IN_PROGRESS


# --- connections and faults --------------------------------------------------------------------


def test_after_a_connect_what_should_be_retained_is_published_again(make_world):
    world = make_world(FakeDevice("pi-1"), FakeDevice("pi-2", online=False))
    world.submit()
    for _ in range(6):
        world.step()
    before = dict(world.retained)
    ended = [job_id for job_id, state in world.states().items() if state.terminal]
    assert before
    assert ended
    world.retained.clear()  # a broker that forgot
    world.sent.clear()
    world.dispatcher.on_connect()
    world.dispatcher.tick()
    assert world.retained == before
    assert [job_id for job_id, said in world.sent if said == "nothing"] == ended


def test_what_was_dropped_without_a_connection_is_said_after_the_next(make_world):
    device = FakeDevice("pi-1")
    world = make_world(device)
    world.submit()
    for _ in range(4):
        world.step()
    world.connected = False
    for _ in range(6):
        world.step(3600)  # longer than campaigns that ended are looked at
    assert len(world.retained) == 1
    world.connected = True
    world.dispatcher.on_connect()
    for _ in range(40):
        world.step()
    assert campaign_state(world) is CampaignState.SUCCEEDED
    assert world.retained == {}


def test_a_publish_that_fails_is_made_up_for_by_the_next_tick(make_world, monkeypatch):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    failing = True
    publish = world.publish

    def flaky(topic, payload, retain=False):
        if failing:
            raise StoreUnavailable("no")
        publish(topic, payload, retain)

    monkeypatch.setattr(world, "publish", flaky)
    world.dispatcher.close()
    world.start()
    with pytest.raises(StoreUnavailable):
        world.dispatcher.tick()
    failing = False
    world.dispatcher.tick()
    assert (first, "run") in world.sent


def test_without_a_store_to_read_jobs_are_sent_and_nothing_is_given_up(make_world, monkeypatch):
    device = FakeDevice("pi-1")
    world = make_world(device)
    first, *_ = world.submit()
    world.step()
    world.step()
    assert world.states()[first] is J.IN_PROGRESS

    def unreadable(campaign_id):
        raise StoreUnavailable("locked")

    monkeypatch.setattr(world.reader, "job_records", unreadable)
    device.online = False
    world.now_ns += 10_000 * S
    world.dispatcher.tick()
    assert world.states()[first] is J.IN_PROGRESS
    other = FakeDevice("pi-3")
    world.devices.append(other)
    world.submit("c2", CAMPAIGN.replace("all: true", "devices: [pi-3]"))
    world.dispatcher.tick()
    assert other.known


def test_a_device_that_comes_back_with_a_job_that_has_ended_here_is_told_to_stop(make_world):
    device = FakeDevice("pi-1", trials=1000)
    world = make_world(device)
    first = world.submit()[0]
    for _ in range(3):
        world.step()
    device.online = False
    cancel(world)
    for _ in range(70):
        world.step()
    assert world.states()[first] is J.CANCELED
    assert device.known[first] is J.IN_PROGRESS
    open_job = KnownJob(job_id=first, attempt=1, state=J.IN_PROGRESS)
    device.inventory = make_inventory(jobs=(open_job,))
    world.come_online(device)
    world.step()
    assert device.known[first] is J.CANCELED
    assert world.retained == {}
    sent = len(world.sent)
    world.step()
    assert len(world.sent) == sent, "once is enough"


def test_trials_are_counted_only_of_jobs_whose_last_word_is_in(make_world, monkeypatch):
    device = FakeDevice("pi-1", trials=1000)
    world = make_world(device)
    ids = world.submit()
    asked = []
    count = world.reader.trial_counts

    def counting(campaign_id, jobs=None):
        asked.append(jobs)
        return count(campaign_id, jobs)

    monkeypatch.setattr(world.reader, "trial_counts", counting)
    for _ in range(5):
        world.step()
    assert world.states()[ids[0]] is J.IN_PROGRESS
    assert asked == []
    report(world, ids[0], J.FAILED, 10**6, trials_recorded=10**6)
    world.dispatcher.tick()
    assert asked == [[ids[0]]]


def test_a_job_whose_trials_stay_out_with_their_device_is_given_up_as_silent(make_world):
    device = FakeDevice("pi-1", trials=1000)
    world = make_world(device)
    first, *_ = world.submit()
    for _ in range(3):
        world.step()
    report(world, first, J.SUCCEEDED, 10**6, trials_recorded=1000)
    device.online = False
    world.dispatcher.tick()
    assert world.states()[first] is J.IN_PROGRESS
    world.now_ns += 10**5 * S
    world.dispatcher.tick()
    ended = job(world, first)
    assert ended.state is J.TIMED_OUT
    assert ended.failure.code == "DEVICE_SILENT"
    assert ended.trials_recorded < 1000


def test_a_store_that_is_away_is_asked_once_a_tick_and_not_for_each_campaign(
    make_world, monkeypatch
):
    world = make_world(FakeDevice("pi-1"))
    world.submit("c1")
    world.submit("c2")
    asked = []

    def unreadable(campaign_id):
        asked.append(campaign_id)
        raise StoreUnavailable("no answer in time")

    monkeypatch.setattr(world.reader, "job_records", unreadable)
    world.dispatcher.tick()
    assert len(asked) == 1
