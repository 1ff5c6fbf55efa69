"""Some thousand hostile messages, at the centre and at an agent; `chaos` has a hundred thousand."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from besieged import Agent, Centre
from fleetmark_collector import plain
from fleetmark_protocol import codec
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.messages import Ack, Assignment, Batch, Inventory, Status
from mutation import Mutator
from siege import AgentSiege, CentreSiege
from strategies import instances

KINDS = (Status, Inventory, Batch, Ack, Assignment)


@pytest.fixture(params=[1])
def seed(request):
    return request.param


def test_a_centre_under_fire_loses_nothing_of_an_honest_device(tmp_path, seed):
    centre = Centre(tmp_path)
    try:
        siege = CentreSiege(centre, seed)
        siege.run(4000)
        siege.check()
    finally:
        centre.close()


def test_an_agent_under_fire_goes_on(tmp_path, seed):
    agent = Agent(tmp_path)
    try:
        siege = AgentSiege(agent, seed)
        siege.run(2000)
        siege.check()
    finally:
        agent.close()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.one_of(*map(instances, KINDS)), st.integers(0, 2**32))
def test_whatever_becomes_of_a_lawful_message_it_is_read_or_refused(message, seed):
    mutator = Mutator([codec.encode(message)], seed)
    for _ in range(30):
        payload = mutator.next()
        for kind in KINDS:
            read_or_refused(lambda payload, kind=kind: codec.decode(kind, payload), payload)
        # Two parsers, one meaning: of a key that comes twice as of everything else.
        slow = read_or_refused(codec.decode_batch, payload)
        quick = read_or_refused(plain.decode_batch, payload)
        assert (slow is None) == (quick is None), payload
        if slow is not None and quick is not None:
            assert quick.seqs == [one.seq for one in slow.records], payload
            assert [as_json(one) for one in quick.records] == [
                as_json(one.record) for one in slow.records
            ], payload


def as_json(record) -> object:
    if isinstance(record, plain.PlainTelemetry):
        record = record.record()
    return json.loads(codec.encode(record))


def read_or_refused(read, payload):
    try:
        return read(payload)
    except ContractError as error:
        reason = error.message
    assert len(reason) < 1000
    assert reason.isprintable()
    return None


def test_the_same_seed_makes_the_same_messages():
    def some(seed):
        mutator = Mutator([b'{"a":[1,{"b":"c"}],"d":null}'], seed)
        return [mutator.next() for _ in range(300)]

    assert some(7) == some(7)
    assert some(7) != some(8)
    assert len(set(some(7))) > 200
