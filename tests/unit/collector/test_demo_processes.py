"""The demo's children: started whole, and never at the price of a Ctrl-C."""

import os
import signal

import pytest

from fleetmark_collector.demo.processes import Processes


def test_a_ctrl_c_in_the_middle_of_a_start_comes_after_it_and_leaves_nothing_running(tmp_path):
    armed = [True]

    def interrupt() -> None:
        # What Python does itself around a fork; what is raised in here goes nowhere.
        if armed:
            os.kill(os.getpid(), signal.SIGINT)

    os.register_at_fork(after_in_parent=interrupt)
    processes = Processes(tmp_path)
    try:
        with pytest.raises(KeyboardInterrupt):
            processes.start("help", "fleetmark_collector", ["--help"])
        armed.clear()
        assert [name for name, _ in processes._running] == ["help"]
    finally:
        armed.clear()
        processes.stop()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
