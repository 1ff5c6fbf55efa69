"""The demo as a newcomer runs it: to its end, again in the same place, and broken off."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engines import backends_here, cache_dir
from servers import wait_for

pytestmark = pytest.mark.integration

TRIALS_A_JOB = 1 + 8 + 6 * 3
DEVICES, QUANTIZATIONS = 2, 2


def start(directory: Path) -> subprocess.Popen[str]:
    environ = {
        **os.environ,
        "COLUMNS": "160",
        "XDG_CACHE_HOME": str(cache_dir().parent.parent),
        "FLEETMARK_RUNNER__LOCK_FILE": str(directory.with_suffix(".lock")),
    }
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fleetmark_collector",
            "demo",
            "--dir",
            str(directory),
            "--backends",
            ",".join(backends_here()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environ,
    )


def processes_of(directory: Path) -> list[list[str]]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(str(directory) in word for word in words):
            found.append(words)
    return found


# It takes a minute and a half where nothing else runs; it must end, not hurry.
@pytest.mark.timeout(900)
def test_it_ends_with_a_report_and_nothing_left_running(tmp_path):
    demo = start(tmp_path / "demo")
    output, _ = demo.communicate(timeout=880)
    assert demo.returncode == 0, output
    assert processes_of(tmp_path) == []
    planned = DEVICES * QUANTIZATIONS * len(backends_here()) * TRIALS_A_JOB
    assert f"{planned} of {planned} trials in the store" in output
    for end in ("html", "csv", "json"):
        (report,) = (tmp_path / "demo" / "reports").glob(f"*.{end}")
        assert report.stat().st_size > 1000
        assert str(report) in output.replace("\n", "")
    assert "same machine" in output


def test_ctrl_c_leaves_nothing_running_says_where_the_data_is_and_it_can_run_again(tmp_path):
    for _ in range(2):
        demo = start(tmp_path / "demo")
        wait_for(lambda: len(processes_of(tmp_path)) >= 5, 60, "the whole fleet")
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
        # Both are 130 to a shell. Python itself ends by the signal where it met a Ctrl-C that came
        # while a module made a dataclass, although that was handled.
        assert demo.returncode in (130, -signal.SIGINT), output
        assert str(tmp_path / "demo") in output
        assert processes_of(tmp_path) == []


def test_killed_it_takes_the_fleet_with_it(tmp_path):
    demo = start(tmp_path / "demo")
    wait_for(lambda: len(processes_of(tmp_path)) >= 5, 60, "the whole fleet")
    demo.kill()
    demo.communicate()
    wait_for(lambda: processes_of(tmp_path) == [], 30, "the end of the fleet")
