"""Runs a command by a clock that is wrong: `python atclock.py SECONDS MODULE ARGUMENTS...`.

For tests alone: wall clocks of this process are that much ahead (or behind, if negative), its
monotonic ones are as they are. Processes that it starts go by the right clock.
"""

import runpy
import sys
import time


def put_forward(seconds: int) -> None:
    """Have this process's wall clock show another time; before anything else has read it."""
    true_s, true_ns = time.time, time.time_ns
    time.time = lambda: true_s() + seconds
    time.time_ns = lambda: true_ns() + seconds * 10**9


if __name__ == "__main__":
    put_forward(int(sys.argv.pop(1)))
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
