"""What the broker dropped while the collector was overfull is had again, and not too often."""

import pytest

from fakes.fake_time import FakeTime
from fleetmark_collector.culprits import Culprits
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.reception import ASK_AGAIN_S, Reception


@pytest.fixture
def registry(tmp_path):
    registry = DeviceRegistry(tmp_path / "state.db")
    yield registry
    registry.close()


def test_all_is_asked_for_again_once_it_has_caught_up_and_once_a_minute_at_most(registry, tmp_path):
    time, relieved, asked = FakeTime(), [], []
    reception = Reception(
        registry,
        DeadLetters(tmp_path / "dead.jsonl"),
        Culprits(time),
        lambda: asked.append(time.now_s),
        lambda: bool(relieved) and relieved.pop(),
        time,
    )
    began_s = time.now_s
    reception.look_after()
    assert asked == []
    relieved.append(True)
    reception.look_after()
    reception.look_after()
    assert asked == [began_s]
    time.now_s += 1
    relieved.append(True)
    reception.look_after()
    assert asked == [began_s], "too soon"
    time.now_s = began_s + ASK_AGAIN_S
    reception.look_after()
    reception.look_after()
    assert asked == [began_s, began_s + ASK_AGAIN_S], "nothing is forgotten"
