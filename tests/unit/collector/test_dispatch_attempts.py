"""Which attempt's trials count, and what counts as late: a job that began anew, one given up."""

import pytest

from fakes.fake_fleet import EPOCH, START_NS, FakeDevice, trial_record
from fleetmark_collector.campaigns.reports import is_late
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Assignment
from fleetmark_protocol.records import JobRecord

J = JobState


@pytest.fixture
def world(make_world):
    made = make_world(FakeDevice("pi-1"))
    made.first, *_ = made.submit()
    made.dispatcher.tick()
    return made


def job_record(world, state, seq, **fields):
    record = JobRecord(
        time_ns=START_NS + seq,
        campaign_id="c1",
        job_id=world.first,
        state=state,
        **{"attempt": 1, **fields},
    )
    return Stored("lab", "pi-1", EPOCH, seq, record)


def spec_of(world):
    store = world.store()
    spec = store.spec(world.first)
    store.close()
    return spec


def row_of(world):
    store = world.store()
    row = store.job(world.first)
    store.close()
    return row


def measure(world, attempt, first_seq):
    spec = spec_of(world)
    world.sink.write(
        [
            Stored(
                *("lab", "pi-1", EPOCH, first_seq + index),
                trial_record(spec, index).model_copy(update={"attempt": attempt}),
            )
            for index in range(2)
        ]
    )


def test_trials_of_the_attempt_before_do_not_end_a_job_that_began_anew(world):
    world.sink.write([job_record(world, J.IN_PROGRESS, 1)])
    measure(world, 1, 2)
    world.sink.write([job_record(world, J.IN_PROGRESS, 5, attempt=2, since_attempt=2)])
    end = {"attempt": 2, "since_attempt": 2, "trials_recorded": 2}
    world.sink.write([job_record(world, J.SUCCEEDED, 9, **end)])
    world.dispatcher.tick()
    assert world.states()[world.first] is J.IN_PROGRESS
    measure(world, 2, 6)
    world.dispatcher.tick()
    assert world.states()[world.first] is J.SUCCEEDED
    assert (row_of(world).attempt, row_of(world).trials_recorded) == (2, 2)


def test_trials_of_all_attempts_end_a_job_that_went_on(world):
    measure(world, 1, 2)
    world.sink.write([job_record(world, J.SUCCEEDED, 9, attempt=2, trials_recorded=2)])
    world.dispatcher.tick()
    assert world.states()[world.first] is J.SUCCEEDED


def test_a_device_is_told_how_many_attempts_the_centre_has_heard_of(world):
    world.sink.write([job_record(world, J.IN_PROGRESS, 1, attempt=3)])
    world.dispatcher.tick()
    world.dispatcher.on_connect()
    world.dispatcher.tick()
    (said,) = [Assignment.model_validate_json(one) for one in world.retained.values()]
    assert said.attempts_begun == 3


@pytest.mark.parametrize("state", [J.CANCELED, J.SUCCEEDED])
def test_the_last_word_on_a_job_that_was_given_up_is_late_whatever_it_says(world, state):
    store = world.store()
    store.set_job_state(world.first, J.CANCELED)
    store.close()
    assert is_late(row_of(world), job_record(world, state, 3))


def test_a_device_that_repeats_its_last_word_is_not_late(world):
    store = world.store()
    store.set_job_state(world.first, J.CANCELED, trials_recorded=0)
    store.close()
    assert not is_late(row_of(world), job_record(world, J.CANCELED, 3))
    assert is_late(row_of(world), job_record(world, J.SUCCEEDED, 3))
