"""The sampler's end, whatever its sensors do."""

import threading

from fakes.fake_sensor import FakeSensor
from fleetmark_agent.telemetry.sampler import Sampler
from servers import wait_for


def test_a_sensor_that_hangs_does_not_hold_it_up(monkeypatch):
    monkeypatch.setattr("fleetmark_agent.telemetry.sampler.STOP_S", 0.05)
    answers = threading.Event()

    def hangs():
        answers.wait()
        return {}

    sensor = FakeSensor(hangs)
    sampler = Sampler([sensor], lambda *_: None, 1.0, 0.2)
    sampler.start()
    assert sensor.was_read.acquire(timeout=20)
    sampler.stop()
    assert sampler.alive, "it is still in the sensor"
    answers.set()
    wait_for(lambda: not sampler.alive, what="the end of the thread")
