"""The quiet gate and the lock that keeps two agents of one machine from measuring at once."""

import subprocess
import sys
import time

import pytest

from fleetmark_agent import gate
from fleetmark_agent.telemetry.sampler import Sample
from fleetmark_protocol.errors import Canceled, StoreUnavailable
from fleetmark_protocol.messages import QuietGate


class Clock:
    """A clock that sleeping moves on, and a machine that samples once a second."""

    def __init__(self, cpu_percent):
        self.now_s = 0.0
        self.cpu_percent = cpu_percent

    def sleep(self, seconds):
        self.now_s += seconds

    def latest(self):
        second = int(self.now_s)
        return Sample(second + 1, second + 1, {"cpu_percent": self.cpu_percent(second)})

    def wait(self, **settings):
        return gate.wait_until_quiet(
            QuietGate(**settings), self.latest, lambda: False, lambda: self.now_s, self.sleep
        )


def test_a_quiet_machine_passes_after_two_samples():
    clock = Clock(lambda _: 3.0)
    assert clock.wait(cpu_percent_max=20)
    assert clock.now_s < 2


def test_a_busy_machine_is_waited_for_and_one_quiet_sample_is_not_enough():
    clock = Clock(lambda second: 90.0 if second < 5 or second == 6 else 1.0)
    assert clock.wait(cpu_percent_max=20)
    assert 8 <= clock.now_s < 9.5


def test_past_the_time_limit_the_gate_says_that_it_was_never_quiet():
    clock = Clock(lambda _: 90.0)
    assert not clock.wait(cpu_percent_max=20, timeout_s=10)
    assert 10 <= clock.now_s < 11


def test_what_the_machine_cannot_observe_does_not_hold_a_job_up():
    assert gate.is_quiet(QuietGate(temperature_c_max=60), Sample(1, 1, {"cpu_percent": 1.0}))
    assert not gate.is_quiet(
        QuietGate(temperature_c_max=60), Sample(1, 1, {"cpu_percent": 1.0, "temperature_c": 61.0})
    )


def test_a_cancel_ends_the_wait():
    clock = Clock(lambda _: 90.0)
    with pytest.raises(Canceled):
        gate.wait_until_quiet(
            QuietGate(), clock.latest, lambda: clock.now_s > 3, lambda: clock.now_s, clock.sleep
        )


HOLDER = """
import sys, time
from pathlib import Path
from fleetmark_agent import gate
with gate.machine_lock(Path(sys.argv[1]), lambda: False, lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_machine_is_held_by_one_process_and_a_kill_lets_go(tmp_path):
    file = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        waited = []
        give_up_s = time.monotonic() + 0.2
        with (
            pytest.raises(Canceled),
            gate.machine_lock(file, lambda: time.monotonic() > give_up_s, lambda: waited.append(1)),
        ):
            pytest.fail("two processes held the machine")
        assert waited == [1]
        holder.kill()
        holder.wait()
        with gate.machine_lock(file, lambda: False, lambda: None):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_lock_file_that_cannot_be_made_says_which(tmp_path):
    with (
        pytest.raises(StoreUnavailable, match=r"runner\.lock_file"),
        gate.machine_lock(tmp_path / "no" / "lock", lambda: False, lambda: None),
    ):
        pytest.fail("held a lock in a directory that is not there")
