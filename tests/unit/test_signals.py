"""A signal ends a service whatever its main thread is doing: no handler waits for a lock of it."""

import subprocess
import sys

import pytest

SERVICES = {
    "agent": """
from fleetmark_agent.service import _Signals

def begin():
    signals = _Signals()
    return (lambda: signals.wait(0.05)), (lambda: signals.end)
""",
    "collector": """
import threading
from fleetmark_collector.service import _stop_on_signals

def begin():
    stop = threading.Event()
    _stop_on_signals(stop)
    return (lambda: stop.wait(0.05)), (lambda: stop.wait(10))
""",
}
SWEEP = """
import os, signal, sys

def interrupt(at):
    '''Wait with a SIGTERM before the line of that number; return how many lines there were.'''
    wait, ended = begin()
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == at:
                signal.raise_signal(signal.SIGTERM)
        return trace

    sys.settrace(trace)
    wait()
    sys.settrace(None)
    return seen if at == 0 or ended() else 0

def in_a_process_of_its_own(at):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # nobody handles it: it ends what is locked up, too
        os._exit(interrupt(at))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

lines = in_a_process_of_its_own(0)
unheard = next((at for at in range(1, lines + 1) if in_a_process_of_its_own(at) < at), None)
print(lines, unheard)
"""


@pytest.mark.parametrize("service", SERVICES)
def test_a_signal_before_any_line_of_the_main_threads_wait_is_heard(service):
    command = [sys.executable, "-c", SERVICES[service] + SWEEP]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines, _, unheard = done.stdout.strip().partition(" ")
    assert int(lines) > 2, done.stderr
    assert unheard == "None", done.stderr
