"""What a batch without records says of the store, and who is answered while that is away."""

import random
import threading

import pytest

from collected import EPOCH, data
from fakes.fake_writer import FakeWriter
from fleetmark_collector.batch import Batch
from fleetmark_collector.commit import Committer
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.inbox import Arrival
from fleetmark_collector.tally import Tally
from fleetmark_protocol import codec
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.version import __version__

BAD = codec.encode_batch(EPOCH, [(7, b'{"kind":"nonsense"}')], __version__)


class Rig:
    def __init__(self, directory):
        self.writer = FakeWriter()
        self.tally = Tally()
        self.acks = []
        self.committer = Committer(
            self.writer,
            DeadLetters(directory / "dead.jsonl"),
            lambda topic, payload, retain: self.acks.append(codec.decode(Ack, payload).ranges),
            lambda _: None,
            self.tally,
            threading.Event(),
            random.Random(1),
        )

    def commit(self, payload):
        batch = Batch()
        assert batch.add(Arrival("fleetmark/v1/lab/pi/data", payload, 0.0)) is None
        assert self.committer.commit(batch)
        assert self.writer.calls == []


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_who_asks_if_anybody_takes_records_is_answered_only_while_the_store_does(rig):
    rig.tally.store(available=False)
    rig.commit(data())
    assert rig.acks == []
    assert not rig.tally.store_available
    rig.tally.store(available=True)
    rig.commit(data())
    assert rig.acks == [()]


def test_records_that_nobody_understands_tell_nothing_of_the_store(rig):
    rig.tally.store(available=False)
    rig.commit(BAD)
    assert rig.acks == [((7, 7),)]
    assert not rig.tally.store_available
