"""A program under a worker: started, waited for, explained, stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fleetmark_agent.backends.serverprocess import ServerProcess
from fleetmark_agent.oomkills import kernel_oom_kills
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendTimeout,
    BackendUnavailable,
    OutOfMemory,
)
from servers import wait_for


def shell(text, **more):
    return ServerProcess.start(
        ["/bin/sh", "-c", text], **{"ready": lambda: True, "timeout_s": 10, **more}
    )


@pytest.fixture
def sleeper():
    process = shell("sleep 100")
    yield process
    process.stop()


def test_it_stays_in_our_process_group_and_reads_nothing_of_ours(sleeper):
    assert os.getpgid(sleeper.pid) == os.getpgid(0)
    assert Path(f"/proc/{sleeper.pid}/fd/0").samefile(os.devnull)


def test_it_is_ready_when_it_says_so_and_not_before(tmp_path):
    made = tmp_path / "made"
    process = shell(f"sleep 0.2; touch {made}; sleep 100", ready=made.exists)
    assert made.exists()
    process.check()
    process.stop()


def test_stopping_leaves_no_child_and_no_zombie(new_children):
    process = shell("sleep 100 & sleep 100 & wait")
    tree = psutil.Process(process.pid)
    wait_for(lambda: len(tree.children()) == 2)
    children = tree.children()
    process.stop()
    process.stop()
    assert not psutil.pid_exists(process.pid)
    assert not any(_alive(child.pid) for child in children)
    assert new_children() == []


def test_one_that_ignores_the_request_to_end_is_killed(monkeypatch):
    monkeypatch.setattr("fleetmark_agent.backends.serverprocess.STOP_GRACE_S", 0.2)
    process = shell("trap '' TERM; while true; do sleep 0.05; done")
    time.sleep(0.1)
    process.stop()
    assert not psutil.pid_exists(process.pid)


def test_a_death_while_it_is_waited_for_is_told_with_its_last_words():
    with pytest.raises(BackendCrashed, match=r"exit code 3.*so sorry"):
        shell("echo so sorry >&2; exit 3", ready=lambda: False)


def test_a_stranger_on_its_port_does_not_stand_for_one_that_died():
    def ready():
        time.sleep(0.2)
        return True

    with pytest.raises(BackendCrashed):
        shell("exit 1", ready=ready)


def test_one_that_is_never_ready_is_ended(new_children):
    with pytest.raises(BackendTimeout, match=r"0\.3 s: still at it"):
        shell("echo still at it; sleep 100", ready=lambda: False, timeout_s=0.3)
    assert new_children() == []


def test_a_signal_has_its_name(sleeper):
    os.kill(sleeper.pid, signal.SIGILL)
    with pytest.raises(BackendCrashed, match="SIGILL"):
        raise sleeper.explain(BackendCrashed("the connection broke"))


def test_a_broken_connection_to_one_that_lives_is_explained_by_itself(sleeper, monkeypatch):
    monkeypatch.setattr("fleetmark_agent.backends.serverprocess.EXPLAIN_WAIT_S", 0.1)
    broken = BackendCrashed("the connection broke")
    assert sleeper.explain(broken) is broken


def test_memory_that_it_said_it_could_not_get_is_out_of_memory():
    with pytest.raises(OutOfMemory, match="buffer of size 9"):
        shell("echo 'failed to allocate buffer of size 9'; echo bye; exit 1", ready=lambda: False)


def test_a_kill_is_out_of_memory_only_if_the_kernel_counted_one(monkeypatch):
    counts = iter([7, 8])
    monkeypatch.setattr(
        "fleetmark_agent.backends.serverprocess.kernel_oom_kills", lambda: next(counts)
    )
    with pytest.raises(OutOfMemory, match="kernel"):
        shell("kill -9 $$", ready=lambda: False)
    monkeypatch.undo()
    with pytest.raises(BackendCrashed, match="SIGKILL"):
        shell("kill -9 $$", ready=lambda: False)


def test_the_kernels_count_is_read_and_unknown_is_none(tmp_path):
    (tmp_path / "vmstat").write_text("nr_free 5\noom_kill 12\n")
    assert kernel_oom_kills(tmp_path) == 12
    assert kernel_oom_kills(tmp_path / "nothing") == 0


def test_a_program_that_is_not_there_is_unavailable():
    with pytest.raises(BackendUnavailable, match="/no/such"):
        ServerProcess(["/no/such/program"])


def test_only_the_end_of_much_output_is_kept():
    process = shell("yes word | head -n 100000; echo the end", timeout_s=20)
    assert process.wait(20) == 0
    said = process.said()
    process.stop()
    assert said.endswith("the end\n")
    assert len(said) < 10_000


def test_standard_output_can_be_read_apart_from_errors():
    process = ServerProcess(["/bin/sh", "-c", "echo out; echo err >&2"], pipe_stdout=True)
    assert process.stdout.read() == b"out\n"
    process.wait(10)
    assert process.said() == "err\n"
    process.stop()


def test_it_dies_with_us_even_if_we_are_killed(tmp_path):
    code = (
        "import time\nfrom fleetmark_agent.backends.serverprocess import ServerProcess\n"
        "print(ServerProcess(['sleep', '100']).pid, flush=True)\ntime.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert psutil.Process(pid).is_running()
        parent.kill()
        wait_for(lambda: not _alive(pid), what="the child's death")


def _alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_descriptor_is_left_after_starts_and_stops():
    for _ in range(2):
        shell("sleep 100").stop()
    before = psutil.Process().num_fds()
    for _ in range(5):
        shell("sleep 100").stop()
    assert psutil.Process().num_fds() == before
