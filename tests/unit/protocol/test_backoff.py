"""How long is waited between attempts to connect."""

import random

from fleetmark_protocol.backoff import STABLE_S, Backoff

MIN_S, MAX_S = 1.0, 20.0


class Rig:
    def __init__(self, seed=1):
        self.now_s = 1000.0
        self.backoff = Backoff(MIN_S, MAX_S, random.Random(seed), lambda: self.now_s)

    def waits(self, number):
        return [self.backoff.next_s() for _ in range(number)]


def test_waits_double_up_to_the_longest_and_never_fall_under_half_of_it():
    for number, wait_s in enumerate(Rig().waits(100)):
        longest_s = min(MAX_S, MIN_S * 2**number)
        assert longest_s / 2 <= wait_s <= longest_s


def test_no_two_of_a_fleet_come_back_in_step():
    first = {Rig(seed).backoff.next_s() for seed in range(100)}
    assert len(first) == 100
    assert max(first) - min(first) > MIN_S / 4


def test_a_connection_that_held_begins_anew():
    rig = Rig()
    rig.waits(10)
    rig.backoff.connected()
    rig.now_s += STABLE_S
    assert rig.backoff.next_s() <= MIN_S
    assert rig.backoff.failures == 1


def test_connections_that_are_lost_at_once_are_waited_for_longer_and_longer():
    """Two agents of one name throw each other off; neither may spin."""
    rig = Rig()
    waits = []
    for _ in range(8):
        rig.backoff.connected()
        rig.now_s += STABLE_S - 1
        waits.append(rig.backoff.next_s())
    assert waits[-1] >= MAX_S / 2
    assert rig.backoff.failures == 8


def test_the_time_of_one_connection_is_not_counted_for_the_next_attempt():
    rig = Rig()
    rig.backoff.connected()
    rig.now_s += 1
    rig.backoff.next_s()
    rig.now_s += STABLE_S
    assert rig.backoff.next_s() > MIN_S / 2
    assert rig.backoff.failures == 2
