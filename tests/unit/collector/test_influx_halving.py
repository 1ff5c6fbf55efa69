"""Bad lines are found among good ones, in few requests, and never at the cost of a good one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmark_collector.sinks.influxdb.answers import Verdict
from fleetmark_collector.sinks.influxdb.halving import MAX_REQUESTS, Halving
from fleetmark_protocol.errors import StoreUnavailable


class Server:
    """Takes lines but those in `bad`; as InfluxDB 1 it writes the good ones all the same.

    `counts`: whether it says how many it dropped, as 1.x does for all but what it cannot read.
    """

    def __init__(self, bad=(), *, counts=False, limit=(), max_bytes=10**9):
        self.bad, self.counts, self.limit, self.max_bytes = set(bad), counts, set(limit), max_bytes
        self.requests = 0
        self.sizes = []
        self.written = set()

    def send(self, body):
        self.requests += 1
        self.sizes.append(len(body))
        if len(body) > self.max_bytes:
            return Verdict("too_large", "Request Entity Too Large")
        lines = body.split(b"\n")
        bad = [line for line in lines if line in self.bad | self.limit]
        self.written |= {*lines} - {*bad}
        if not bad:
            return Verdict("accepted")
        dropped = len(bad) if self.counts else None
        return Verdict("refused", "no good", dropped, is_limit=bad[0] in self.limit)


def lines(count):
    return [b"m x=%d" % number for number in range(count)]


def test_what_is_taken_whole_costs_one_request():
    server = Server()
    outcome = Halving(server.send).write(lines(5000))
    assert outcome.accepted == list(range(5000))
    assert not outcome.rejected
    assert server.requests == 1


def test_nothing_to_write_costs_none():
    server = Server()
    assert Halving(server.send).write([]).accepted == []
    assert server.requests == 0


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2499, 2500, 4999])
def test_one_bad_line_among_5000_is_found_in_two_requests_a_halving(at, counts):
    server = Server(lines(5000)[at : at + 1], counts=counts)
    outcome = Halving(server.send).write(lines(5000))
    assert outcome.rejected == {at: "no good"}
    assert sorted(outcome.accepted) == [n for n in range(5000) if n != at]
    assert server.requests <= 1 + 2 * 13


def test_a_run_of_bad_lines_is_one_find_where_the_server_counts():
    server = Server(lines(5000)[1000:2000], counts=True)
    outcome = Halving(server.send).write(lines(5000))
    assert sorted(outcome.rejected) == list(range(1000, 2000))
    assert server.requests < 60


@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)), st.booleans())
    )
)
def test_every_line_is_accepted_or_rejected_as_it_deserves(case):
    count, bad, counts = case
    server = Server((lines(count)[at] for at in bad), counts=counts)
    outcome = Halving(server.send).write(lines(count))
    assert sorted(outcome.accepted) == [at for at in range(count) if at not in bad]
    assert sorted(outcome.rejected) == sorted(bad)
    assert not outcome.deferred


def test_the_work_for_one_write_is_bounded_and_what_is_not_reached_is_left_for_later():
    server = Server(lines(5000)[::2])
    outcome = Halving(server.send).write(lines(5000))
    assert server.requests == MAX_REQUESTS
    assert outcome.rejected
    assert outcome.accepted
    found = [*outcome.accepted, *outcome.rejected, *outcome.deferred]
    assert sorted(found) == list(range(5000)), "each line once"


def test_what_a_limit_of_the_servers_keeps_out_is_deferred_and_the_rest_is_written():
    server = Server(lines(9)[4:5], limit=lines(9)[7:9])
    outcome = Halving(server.send).write(lines(9))
    assert sorted(outcome.deferred) == [7, 8]
    assert sorted(outcome.rejected) == [4]
    assert sorted(outcome.accepted) == [0, 1, 2, 3, 5, 6]


def test_lines_that_a_limit_refuses_together_are_taken_one_by_one():
    def send(body):
        count = len(body.split(b"\n"))
        if count > 2:
            return Verdict("refused", "limit exceeded", dropped=count, is_limit=True)
        return Verdict("accepted")

    outcome = Halving(send).write(lines(20))
    assert sorted(outcome.accepted) == list(range(20))


def test_too_large_a_request_is_divided_and_the_next_ones_are_smaller_from_the_start():
    server = Server(max_bytes=1000)
    halving = Halving(server.send)
    assert halving.write(lines(1000)).accepted == list(range(1000))
    server.sizes.clear()
    assert sorted(halving.write(lines(1000)).accepted) == list(range(1000))
    assert max(server.sizes) <= 1000


def test_a_line_that_is_too_large_by_itself_is_rejected_and_alone():
    server = Server(max_bytes=100)
    huge = b"m s=" + b"x" * 200
    outcome = Halving(server.send).write([b"m x=1", huge, b"m x=2"])
    assert sorted(outcome.accepted) == [0, 2]
    assert outcome.rejected == {1: "Request Entity Too Large"}


def test_requests_stay_below_a_size_from_the_start_however_large_a_batch_is():
    server = Server()
    Halving(server.send, max_body_bytes=500).write(lines(1000))
    assert max(server.sizes) <= 500
    assert server.written == {*lines(1000)}


def test_an_outage_in_the_middle_promises_nothing():
    def send(body):
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        Halving(send).write(lines(10))
