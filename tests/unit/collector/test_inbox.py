"""The bounded queue between network and writer."""

from fleetmark_collector.inbox import RELIEVED_S, Inbox


def test_messages_come_out_in_the_order_they_came_in():
    inbox = Inbox(10)
    for number in range(5):
        assert inbox.put(f"t{number}", b"", 0)
    assert [inbox.get(0).topic for _ in range(5)] == ["t0", "t1", "t2", "t3", "t4"]
    assert inbox.get(0) is None


def test_it_is_bounded_by_messages():
    inbox = Inbox(2)
    assert inbox.put("t", b"a", 0)
    assert inbox.put("t", b"b", 0)
    assert not inbox.put("t", b"c", 0)
    inbox.get(0)
    assert inbox.put("t", b"d", 0)


def test_it_is_bounded_by_bytes():
    inbox = Inbox(100, max_bytes=1000)
    assert inbox.put("t", b"x" * 600, 0)
    assert not inbox.put("t", b"x" * 600, 0)
    assert inbox.put("t", b"x" * 400, 0)
    inbox.get(0)
    assert inbox.put("t", b"x" * 600, 0)


def test_a_message_larger_than_all_of_it_still_passes_when_it_is_empty():
    assert Inbox(10, max_bytes=10).put("t", b"x" * 50, 0)


def test_closed_it_takes_nothing_and_gives_what_it_has():
    inbox = Inbox(10)
    inbox.put("t", b"a", 0)
    inbox.close()
    assert not inbox.put("t", b"b", 0)
    assert inbox.get(None).payload == b"a"
    assert inbox.get(None) is None


def test_relieved_it_has_long_not_been_full_and_is_below_half_and_says_so_once():
    now_s = 0.0
    inbox = Inbox(4, clock_s=lambda: now_s)
    for _ in range(4):
        inbox.put("t", b"", 0)
    now_s = 100.0
    inbox.get(0), inbox.get(0), inbox.get(0)
    assert not inbox.relieved(), "nothing had to wait for room"
    for _ in range(4):
        inbox.put("t", b"", 0)
    inbox.get(0), inbox.get(0)
    now_s += RELIEVED_S - 1
    assert not inbox.relieved(), "the broker may have more"
    now_s += 1
    inbox.put("t", b"", 0)
    assert not inbox.relieved(), "it has not caught up"
    inbox.get(0)
    assert inbox.relieved()
    assert not inbox.relieved()


def test_as_long_as_it_is_more_than_half_full_it_is_not_relieved():
    now_s = 0.0
    inbox = Inbox(100, max_bytes=1000, clock_s=lambda: now_s)
    for size in (300, 600, 200):
        inbox.put("t", b"x" * size, 0)
    now_s = RELIEVED_S
    assert not inbox.relieved()
    inbox.get(0)
    assert not inbox.relieved()
    inbox.get(0)
    assert inbox.relieved()
