"""The books of a simulation: what is counted, and what no longer waits."""

import pytest

from fakes.fake_time import FakeTime
from fleetmark_agent.simulation.ledger import Delays, Ledger, Tally


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def tally():
    return Tally()


@pytest.fixture
def ledger(tally, time):
    return Ledger(tally, time)


def test_the_oldest_is_the_first_made_of_those_that_wait(ledger, time):
    assert ledger.oldest_s is None
    for seq in (1, 2, 3):
        ledger.made(seq)
        time.now_s += 1
    ledger.acked([(1, 1), (3, 3)], 2)
    assert ledger.oldest_s == 101
    ledger.acked([(2, 2)], 1)
    assert ledger.oldest_s is None


def test_only_what_was_sent_before_and_not_acknowledged_counts_as_sent_again(ledger, tally):
    ledger.sent([1, 2])
    ledger.sent([2, 3])
    assert (tally.sent, tally.resent) == (4, 1)
    ledger.acked([(1, 3)], 3)
    ledger.sent([1])
    assert (tally.sent, tally.resent) == (5, 1)


def test_what_counts_as_acknowledged_is_what_the_outbox_freed(ledger, tally):
    ledger.made(1)
    ledger.acked([(1, 10**15)], 1)
    ledger.acked([(1, 10**15)], 0)
    assert tally.acked == 1


def test_delays_are_from_the_record_to_its_acknowledgement_and_not_of_what_was_carried(
    ledger, tally, time
):
    ledger.carried(1, time.now_s - 3600)
    assert ledger.oldest_s == time.now_s - 3600
    ledger.made(2)
    time.now_s += 2
    ledger.acked([(1, 2)], 2)
    assert tally.delays.max_s == 2
    assert sum(tally.delays.counts.values()) == 1


def test_what_was_thinned_does_not_wait(ledger, time):
    for seq in (1, 2, 3):
        ledger.made(seq)
        time.now_s += 1
    ledger.keep_only([2, 3, 4])
    assert ledger.oldest_s == 101


def test_a_class_of_delays_is_named_by_its_longest_and_is_narrow():
    delays = Delays()
    for delay_s in (0.0, 0.0005, 0.1, 1.0, 10.0):
        delays.add(delay_s)
    classes = delays.by_length()
    assert sum(classes.values()) == 5
    assert classes["0.001"] == 2
    for delay_s in (0.1, 1.0, 10.0):
        assert any(delay_s <= float(length) <= delay_s * 1.06 for length in classes)
