"""The send window: how much is under way, and when it is sent again."""

import random

from fleetmark_agent.resend import (
    ACK_TIMEOUT_MAX_S,
    ACK_TIMEOUT_S,
    REFUSED_WAIT_MAX_S,
    REFUSED_WAIT_S,
    WINDOW_BATCHES,
    SendWindow,
)


def test_a_full_window_waits_and_an_ack_opens_it():
    window = SendWindow(random.Random(1))
    for number in range(WINDOW_BATCHES):
        assert window.may_send(0)
        window.sent([number * 2 + 1, number * 2 + 2], now_s=0)
    assert not window.may_send(0)
    window.acked([(1, 1)])
    assert not window.may_send(0), "half a batch is still under way"
    window.acked([(2, 2)])
    assert window.may_send(0)
    assert window.under_way() == {3, 4, 5, 6, 7, 8}


def test_without_acks_waits_double_up_to_a_bound_and_one_batch_at_a_time_goes():
    window = SendWindow(random.Random(1))
    now_s, waits = 0.0, []
    for _ in range(8):
        window.sent([1], now_s)
        if window.missed:
            assert not window.may_send(0)
        start_s = now_s
        while window.expire(now_s) == 0:
            now_s += 0.1
        waits.append(now_s - start_s)
        assert window.under_way() == set()
    assert ACK_TIMEOUT_S * 0.75 <= waits[0] <= ACK_TIMEOUT_S * 1.25 + 0.1
    assert waits[1] > waits[0]
    assert max(waits) <= ACK_TIMEOUT_MAX_S * 1.25 + 0.1
    window.acked([])
    assert window.missed == 0


def test_two_agents_do_not_wait_equally_long():
    waits = set()
    for seed in range(20):
        window = SendWindow(random.Random(seed))
        window.sent([1], 0)
        now_s = 0.0
        while window.expire(now_s) == 0:
            now_s += 0.01
        waits.add(round(now_s, 1))
    assert len(waits) > 5


def test_a_lost_connection_forgets_what_was_under_way():
    window = SendWindow(random.Random(1))
    window.sent([1, 2], 0)
    window.reset()
    assert window.under_way() == set()
    assert window.expire(10**6) == 0


def test_a_refused_window_is_taken_back_and_tried_again_ever_more_rarely():
    window = SendWindow(random.Random(1))
    now_s, waits = 0.0, []
    for _ in range(8):
        window.sent([1], now_s)
        window.sent([2], now_s)
        # One answer for each batch: the second says nothing new.
        window.refused(now_s)
        window.refused(now_s)
        assert window.under_way() == set()
        start_s = now_s
        while not window.may_send(now_s):
            now_s += 0.1
        waits.append(now_s - start_s)
    assert REFUSED_WAIT_S * 0.75 <= waits[0] <= REFUSED_WAIT_S * 1.25 + 0.1
    assert waits[2] > 2 * waits[0]
    assert REFUSED_WAIT_MAX_S * 0.75 <= waits[-1] <= REFUSED_WAIT_MAX_S * 1.25 + 0.1
    window.sent([1], now_s)
    assert not window.may_send(now_s), "one at a time while nobody knows"
    window.acked([(1, 1)])
    assert window.refusals == 0
    for number in range(WINDOW_BATCHES):
        assert window.may_send(now_s)
        window.sent([number], now_s)


def test_a_new_connection_asks_again_whoever_refused_before():
    window = SendWindow(random.Random(1))
    window.sent([1], 0)
    window.refused(0)
    assert not window.may_send(0)
    window.reset()
    assert window.may_send(0)
    assert window.refusals == 0
