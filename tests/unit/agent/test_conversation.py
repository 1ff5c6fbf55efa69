"""What a device says and when, without a broker: the clock and the connection are the test's."""

import threading
import time
from contextlib import ExitStack

import pytest

from conversing import BOOT, Device
from fleetmark_agent import hush
from fleetmark_agent.conversation import TELEMETRY_DELAY_S
from fleetmark_agent.inventory import hardware, make_inventory
from fleetmark_agent.resend import ACK_TIMEOUT_S
from fleetmark_agent.wishes import MAX_WAITING, MAX_WAITING_BYTES, RETRY_S
from fleetmark_protocol import codec
from fleetmark_protocol.messages import Inventory, Status


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


def test_it_greets_with_its_birth_then_its_inventory_and_both_are_retained(device):
    inventory = make_inventory(
        settings=device.settings,
        boot_id=BOOT,
        time_ns=1,
        hardware=hardware(),
        backends=(),
        models=(),
        sensors=(),
        jobs=(),
    )
    device.talk.announce(inventory)
    device.talk.greet()
    assert [(channel, retain) for channel, _, retain in device.said] == [
        ("status", True),
        ("inventory", True),
    ]
    assert codec.decode(Status, device.said[0][1]).online
    # The centre compares each inventory with its own books once.
    assert codec.decode(Inventory, device.said[1][1]).time_ns == 7
    topic, will = device.talk.will()
    assert (topic, codec.decode(Status, will).online) == ("fleetmark/v1/f/d1/status", False)


def test_without_a_connection_nothing_is_urgent_and_nothing_is_sent(device):
    device.event()
    assert not device.talk.urgent
    device.talk.turn()
    assert device.batches() == []
    device.talk.greet()
    assert device.talk.urgent
    device.talk.turn()
    assert device.batches() == [[1]]
    device.talk.lost()
    device.event()
    device.talk.turn()
    assert device.batches() == []


def test_results_are_urgent_and_telemetry_waits_for_its_turn(device):
    device.talk.greet()
    device.talk.turn()
    device.sample()
    assert not device.talk.urgent
    assert device.talk.next_s == device.time.now_s + TELEMETRY_DELAY_S
    before = device.wakes
    device.event()
    assert device.talk.urgent
    assert device.wakes == before + 1
    device.talk.turn()
    assert device.batches() == [[2, 1]]
    assert not device.talk.urgent


def test_nothing_is_sent_inside_a_held_window_and_at_once_after_it(device):
    device.talk.greet()
    device.talk.turn()
    with device.talk.hold():
        device.event()
        assert not device.talk.urgent
        device.talk.turn()
        assert device.batches() == []
        before = device.wakes
    assert device.wakes == before + 1
    device.event()
    assert device.talk.urgent
    device.talk.turn()
    assert device.batches() == [[1, 2]]


def test_what_was_about_to_go_as_a_window_began_goes_at_once_after_it(device, monkeypatch):
    device.talk.greet()
    device.event()
    batch, window = device.outbox.batch, ExitStack()

    def late(*args):
        items = batch(*args)
        window.enter_context(device.talk.hold())
        return items

    with monkeypatch.context() as patched:
        patched.setattr(device.outbox, "batch", late)
        device.talk.turn()
    assert device.batches() == []
    assert device.watched == []
    window.close()
    assert device.talk.urgent
    device.talk.turn()
    assert device.batches() == [[1]]


def test_not_one_of_many_windows_has_a_record_sent_inside(device, monkeypatch):
    monkeypatch.setattr(hush, "WAIT_S", 60)
    held, over, inside = threading.Event(), threading.Event(), []

    def watched(topic, payload, *, retain):
        inside.append(held.is_set())
        device.outbox.backlog()
        inside.append(held.is_set())

    monkeypatch.setattr(device.talk, "_publish", watched)

    def send():
        while not over.is_set():
            device.talk.turn()

    device.talk.greet()
    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(60):
        seq = device.event()
        with device.talk.hold():
            held.set()
            device.outbox.batch(1, 1)
            held.clear()
        while ("sent", [seq]) not in device.watched:
            time.sleep(0.001)
        device.ack(seq)
    over.set()
    sender.join()
    assert len(inside) >= 120
    assert not any(inside)


def test_a_window_begins_when_what_is_being_sent_is_out(device, monkeypatch):
    monkeypatch.setattr(hush, "WAIT_S", 60)
    stuck, go, order = threading.Event(), threading.Event(), []

    def publish(*_, **__):
        stuck.set()
        go.wait(60)
        order.append("sent")

    def measure():
        with device.talk.hold():
            order.append("window")

    device.talk.greet()
    device.event()
    monkeypatch.setattr(device.talk, "_publish", publish)
    threads = [threading.Thread(target=one) for one in (device.talk.turn, measure)]
    threads[0].start()
    stuck.wait(60)
    threads[1].start()
    threads[1].join(0.05)
    go.set()
    for thread in threads:
        thread.join()
    assert order == ["sent", "window"]


def test_a_window_does_not_wait_for_ever_for_what_is_being_sent(device, monkeypatch):
    monkeypatch.setattr(hush, "WAIT_S", 0.01)
    stuck, go = threading.Event(), threading.Event()
    device.talk.greet()
    device.event()
    monkeypatch.setattr(device.talk, "_publish", lambda *_, **__: stuck.set() or go.wait(60))
    sender = threading.Thread(target=device.talk.turn)
    sender.start()
    stuck.wait(60)
    with device.talk.hold():
        assert sender.is_alive()
        go.set()
        sender.join()


def test_an_ack_that_comes_inside_a_window_is_taken_after_it(device):
    device.talk.greet()
    device.event()
    device.talk.turn()
    with device.talk.hold():
        device.ack(1)
        device.talk.turn()
        assert device.outbox.backlog().records == 1
    device.time.now_s += 2 * ACK_TIMEOUT_S
    assert device.talk.urgent
    device.talk.turn()
    assert device.outbox.backlog().records == 0
    assert device.batches() == [[1]], "what was confirmed in time is not sent again"


def test_what_is_not_acknowledged_goes_again_when_it_is_late_and_not_before(device):
    device.talk.greet()
    device.event()
    device.talk.turn()
    device.talk.turn()
    assert device.batches() == [[1]]
    device.time.now_s += 2 * ACK_TIMEOUT_S
    device.talk.turn()
    assert device.batches() == [[1]]
    device.ack(1)
    device.time.now_s += 100
    device.talk.turn()
    assert device.batches() == []
    assert device.watched == [("sent", [1]), ("sent", [1]), ("acked", 1)]


def test_an_ack_makes_room_for_what_waits(device):
    device.talk.greet()
    for _ in range(900):
        device.sample()
    device.talk.turn()
    first = device.batches()
    assert [len(batch) for batch in first] == [200, 200, 200, 200]
    assert not device.talk.urgent
    device.ack(*first[0])
    assert device.talk.urgent
    device.talk.turn()
    assert [len(batch) for batch in device.batches()] == [100]


def test_a_new_connection_sends_all_again_that_is_not_acknowledged(device):
    device.talk.greet()
    device.event()
    device.talk.turn()
    device.talk.lost()
    device.talk.greet()
    device.talk.turn()
    assert device.batches() == [[1], [1]]


def test_a_late_will_is_contradicted_unless_it_is_true(device):
    device.talk.greet()
    offline = Status(online=False, boot_id=BOOT, agent_version="1", started_ns=1)
    device.said.clear()
    device.hear("status", offline)
    assert [codec.decode(Status, payload).online for _, payload, _ in device.said] == [True]
    device.talk.goodbye()
    device.said.clear()
    device.hear("status", offline)
    assert device.said == []


def test_a_device_that_is_to_be_forgotten_clears_what_is_retained(device):
    device.talk.greet()
    device.said.clear()
    device.talk.forget()
    # The status last: with it the centre lets go of the device.
    assert device.said == [("inventory", b"", True), ("status", b"", True)]


def test_what_is_due_goes_out_before_a_window_although_nobody_else_has_a_turn(device):
    # Trials follow each other so fast that the sender's thread never finds a gap.
    device.talk.greet()
    for _ in range(3):
        device.event()
        with device.talk.hold():
            pass
    sent = [seq for seqs in device.batches() for seq in seqs]
    assert sorted(sent) == [1, 2, 3]


def test_a_window_waits_for_a_turn_that_has_taken_up_what_is_due_and_not_sent_it_yet(
    device, monkeypatch
):
    """Else what is due would wait for the window's end, and an engine may never answer."""
    monkeypatch.setattr(hush, "WAIT_S", 60)
    device.talk.greet()
    device.event()
    reading, go_on = threading.Event(), threading.Event()
    batch = device.outbox.batch

    def slow_batch(*args):
        reading.set()
        assert go_on.wait(5)
        return batch(*args)

    monkeypatch.setattr(device.outbox, "batch", slow_batch)
    sender = threading.Thread(target=device.talk.turn)
    sender.start()
    assert reading.wait(5)
    sent = []

    def measure():
        with device.talk.hold():
            sent.extend(seq for seqs in device.batches() for seq in seqs)

    measuring = threading.Thread(target=measure)
    measuring.start()
    measuring.join(0.1)
    go_on.set()
    for thread in (sender, measuring):
        thread.join(5)
    assert sent == [1]


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("fleetmark/v1/f/d2/ack", b"{}"),
        ("fleetmark/v1/f/d1/ack", b"\xff"),
        ("fleetmark/v1/f/d1/jobs/c.d1.000", b"[1"),
        ("elsewhere", b""),
    ],
)
def test_what_cannot_be_understood_breaks_nothing_and_frees_nothing(device, topic, payload, capsys):
    device.talk.greet()
    device.event()
    device.talk.received(topic, payload)
    assert device.outbox.backlog().records == 1
    assert device.watched == []
    assert "message_refused" in capsys.readouterr().err


def test_what_the_disk_cannot_take_of_the_centres_wishes_is_tried_again(device, capsys):
    device.room = False
    device.wish(1, "run")
    device.wish(2, "run")
    device.wish(2, "cancel")
    device.wish(3, "run")
    device.wish(3)
    device.talk.turn()
    device.time.now_s += RETRY_S
    device.talk.turn()
    assert device.taken == []
    assert capsys.readouterr().err.count("message_waits_for_disk") == 3
    device.room = True
    device.talk.turn()
    assert device.taken == [], "not more often than every few seconds"
    device.time.now_s += RETRY_S
    device.talk.turn()
    newest = [("c.d1.001", "run"), ("c.d1.002", "cancel"), ("c.d1.003", "withdrawn")]
    assert device.taken == newest
    device.time.now_s += RETRY_S
    device.talk.turn()
    assert device.taken == newest


def test_what_was_taken_meanwhile_is_not_followed_by_something_older(device):
    device.room = False
    device.wish(1, "run")
    device.room = True
    device.wish(1, "cancel")
    device.time.now_s += RETRY_S
    device.talk.turn()
    assert device.taken == [("c.d1.001", "cancel")]


def test_only_so_many_wishes_wait_and_of_the_others_the_log_tells(device, capsys):
    device.room = False
    for number in range(MAX_WAITING + 1):
        device.wish(number)
    assert capsys.readouterr().err.count("message_refused") == 1
    device.room = True
    device.time.now_s += RETRY_S
    device.talk.turn()
    assert len(device.taken) == MAX_WAITING


def test_wishes_that_wait_are_bounded_by_what_they_come_to_not_only_by_their_number(device, capsys):
    device.room = False
    work = {"name": "w", "kind": "single", "prompts": ["x" * 90_000] * 10}
    large, over = {"workloads": [work]}, MAX_WAITING_BYTES // 900_000
    for number in range(over + 3):
        device.wish(number, "run", **large)
    assert capsys.readouterr().err.count("message_refused") == 3
    device.wish(0, "cancel", **large)
    device.wish(1)
    device.room = True
    device.time.now_s += RETRY_S
    device.talk.turn()
    assert len(device.taken) == over
    assert device.taken[:2] == [("c.d1.000", "cancel"), ("c.d1.001", "withdrawn")]


def test_of_a_wish_too_large_to_wait_no_older_one_has_the_last_word(device, monkeypatch):
    monkeypatch.setattr("fleetmark_agent.wishes.MAX_WAITING_BYTES", 1000)
    device.room = False
    device.wish(1, "run")
    work = {"name": "w", "kind": "single", "prompts": ["x" * 1000]}
    device.wish(1, "cancel", workloads=[work])
    device.room = True
    device.time.now_s += RETRY_S
    device.talk.turn()
    assert device.taken == []
