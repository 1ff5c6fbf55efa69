"""Results that are written while the next request runs."""

import threading

import pytest

from fleetmark_agent.behind import MAX_WAITING, Behind


@pytest.fixture
def behind():
    made = Behind()
    yield made
    made.close()


def test_whoever_hands_a_result_over_does_not_wait_for_the_disk_and_order_is_kept(behind):
    disk, written = threading.Event(), []
    behind.do(lambda: disk.wait(10) and written.append(0))
    for number in (1, 2, 3):
        behind.do(lambda number=number: written.append(number))
    assert written == []
    disk.set()
    behind.catch_up()
    assert written == [0, 1, 2, 3]


def test_what_went_wrong_is_raised_at_the_next_chance(behind):
    def full():
        raise OSError("no room")

    def twice():
        behind.do(full)
        behind.catch_up()

    with pytest.raises(OSError, match="no room"):
        twice()
    behind.catch_up()


def test_only_so_much_may_wait(behind):
    disk, began = threading.Event(), threading.Event()
    written = []

    def slowly():
        began.set()
        disk.wait(10)
        written.append(1)

    behind.do(slowly)
    assert began.wait(10)
    for _ in range(MAX_WAITING - 1):
        behind.do(lambda: written.append(1))
    threading.Timer(0.05, disk.set).start()
    behind.do(lambda: written.append(1))
    assert written, "the last one had to wait for the first"


def test_the_end_waits_for_all(behind):
    written = []
    for _ in range(5):
        behind.do(lambda: written.append(1))
    behind.close()
    assert len(written) == 5
