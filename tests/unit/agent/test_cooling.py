"""Waiting for a machine to cool down, on a clock that waiting moves on."""

import pytest

from fleetmark_agent import cooling
from fleetmark_agent.cooling import Cooler, wait_until_cool
from fleetmark_agent.telemetry.sampler import Sample
from fleetmark_protocol.errors import Canceled
from fleetmark_protocol.messages import CoolDown


class Machine:
    """Its temperature falls by one degree a second; None where it tells none."""

    def __init__(self, celsius, first_sample_s=0.0):
        self.now_s = 0.0
        self.celsius = celsius
        self.first_sample_s = first_sample_s

    def latest(self):
        if self.now_s < self.first_sample_s:
            return None
        second = int(self.now_s)
        values = {} if self.celsius is None else {"temperature_c": self.celsius - second}
        return Sample(second, second, values)

    def sleep(self, seconds):
        self.now_s += seconds

    def wait(self, at_most_s=float("inf"), stopped=lambda: False, **rule):
        return wait_until_cool(
            CoolDown.model_validate(rule),
            self.latest,
            stopped,
            at_most_s=at_most_s,
            clock_s=lambda: self.now_s,
            sleep=self.sleep,
        )


def test_a_cool_machine_is_not_waited_for():
    machine = Machine(60.0)
    assert machine.wait(temperature_c=60) is True
    assert machine.now_s == 0


def test_a_hot_machine_is_waited_for_until_it_is_cool():
    machine = Machine(80.0)
    assert machine.wait(temperature_c=60) is True
    assert 20 <= machine.now_s <= 21


def test_past_the_time_it_is_said_that_it_did_not_cool_down():
    machine = Machine(80.0)
    assert machine.wait(temperature_c=60, timeout_s=5) is False
    assert 5 <= machine.now_s <= 6


def test_no_longer_is_waited_than_the_job_has_left():
    machine = Machine(80.0)
    assert machine.wait(at_most_s=3, temperature_c=60) is False
    assert 3 <= machine.now_s <= 4


def test_a_machine_without_a_temperature_is_not_waited_for():
    machine = Machine(None)
    assert machine.wait(temperature_c=60) is None
    assert machine.now_s == 0


def test_a_first_sample_is_waited_for_but_not_for_ever():
    assert Machine(50.0, first_sample_s=2).wait(temperature_c=60) is True
    silent = Machine(50.0, first_sample_s=1000)
    assert silent.wait(temperature_c=60) is None
    assert silent.now_s <= cooling.FIRST_SAMPLE_S + 1


def test_a_cancel_ends_the_wait():
    machine = Machine(80.0)
    with pytest.raises(Canceled):
        machine.wait(temperature_c=60, stopped=lambda: machine.now_s > 2)
    assert machine.now_s < 4


def cooler(machine, told, **rule):
    rule = CoolDown.model_validate(rule) if rule else None
    return Cooler(rule, machine.latest, lambda: False, lambda: told.append(1))


def test_a_job_waits_where_its_campaign_says():
    hot = Machine(80.0)
    rule = {"temperature_c": 60, "timeout_s": 0}
    for place in ("job", "repetition"):
        one = cooler(hot, [], before=place, **rule)
        one.before("repetition" if place == "job" else "job")
        assert one.cooled is None
        one.before(place)
        assert one.cooled is False
    without = cooler(hot, [])
    without.before("job")
    assert without.cooled is None


def test_that_there_is_no_temperature_is_told_once():
    told = []
    one = cooler(Machine(None), told, temperature_c=60, before="repetition")
    for _ in range(3):
        one.before("repetition")
    assert told == [1]


def test_warm_ups_have_no_part_in_it():
    one = cooler(Machine(80.0), [], temperature_c=60, before="repetition", timeout_s=0)
    one.before("repetition")
    one.skip()
    assert one.cooled is None
    whole = cooler(Machine(80.0), [], temperature_c=60, before="job", timeout_s=0)
    whole.before("job")
    whole.skip()
    assert whole.cooled is False, "the whole job began hot, warm-ups too"
