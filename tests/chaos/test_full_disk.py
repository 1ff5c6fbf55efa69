"""A full disk under the outbox: results wait for room, and none is lost."""

import contextlib
import os
import shutil
import subprocess

import pytest

from servers import wait_for

pytestmark = pytest.mark.chaos


def can_mount() -> bool:
    """Whether this user may mount a small file system of its own."""
    return os.geteuid() == 0


def fill(ballast):
    """Write a file until the disk is full."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB, unmounted at the end."""
    point = tmp_path / "small"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(point)]
    subprocess.run(mount, check=True, capture_output=True)
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


@pytest.mark.skipif(not can_mount(), reason="mounting a small file system takes root")
def test_results_wait_until_there_is_room_again(fleet, small_disk):
    fleet.state_dir = lambda device: small_disk / device
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    campaign_id = fleet.submit(fleet.write_campaign(repetitions=40))
    wait_for(lambda: fleet.stored_trials(campaign_id) >= 3, 60, "three trials in the store")
    # Without a collector nothing is freed; then somebody else takes the rest of the disk.
    fleet.kill("collector")
    ballast = small_disk / "ballast"
    fill(ballast)
    assert shutil.disk_usage(small_disk).free < 4096
    wait_for(lambda: "result_waits_for_disk" in fleet.log("pi-sim"), 60, "the agent says so")
    ballast.unlink()
    fleet.start_collector()
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    fleet.assert_each_trial_once(campaign_id, 41)


@pytest.mark.skipif(not can_mount(), reason="mounting a small file system takes root")
def test_an_agent_that_starts_on_a_full_disk_says_what_to_do(fleet, small_disk):
    fill(small_disk / "ballast")
    fleet.state_dir = lambda device: small_disk / device
    fleet.start_agent("pi-sim")
    wait_for(lambda: "make room" in fleet.log("pi-sim"), 20, "a message")
    assert "Traceback" not in fleet.log("pi-sim")
