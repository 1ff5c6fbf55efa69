"""CPU and memory of real processes, of their children, and of those that are gone."""

import mmap
import os
import subprocess
import sys

import psutil
import pytest

from fakes.fake_sensor import FakeClock
from fakes.fake_sysfs import FakeSysfs
from fleetmark_agent.telemetry import procfs
from fleetmark_agent.telemetry.process import PSS_SHARE, ProcessTree

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MIB = 2**20

BURN = """
def burn(seconds):
    import time
    while time.process_time() < seconds:
        pass
"""


@pytest.fixture
def script():
    """Start Python code that says a line when it is ready and ends when its input does."""
    started = []

    def start(code, *args):
        process = subprocess.Popen(
            [sys.executable, "-c", BURN + code, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        # Closing its input ends the script and, as each waits for its own, all below it.
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


QUIET = "\ntry: input()\nexcept EOFError: pass"


def test_cpu_of_the_process_itself_is_counted(script):
    process, _ = script("burn(0.3); print('ready', flush=True)" + QUIET)
    assert ProcessTree(process.pid).cpu_s() >= 0.29


def test_cpu_of_a_living_child_is_counted(script):
    child = "burn(0.3); print('ready', flush=True)" + QUIET
    process, _ = script(
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])", BURN + child
    )
    tree = ProcessTree(process.pid)
    assert tree.cpu_s() >= 0.29
    reading = tree.read()
    assert reading.rss_bytes > psutil.Process(process.pid).memory_info().rss


def test_cpu_of_a_child_that_ended_is_still_counted(script):
    process, _ = script(
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])\n"
        "print('ready', flush=True)" + QUIET,
        BURN + "burn(0.3)",
    )
    tree = ProcessTree(process.pid)
    assert psutil.Process(process.pid).children() == []
    assert tree.cpu_s() >= 0.29


def test_a_service_outside_of_the_tree_is_counted_with_its_children_and_may_end_first(script):
    worker, _ = script("print('ready', flush=True)" + QUIET)
    child = "burn(0.2); print('ready', flush=True)" + QUIET
    service, _ = script(
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE);"
        "print(p.stdout.readline(), flush=True)" + QUIET + "\np.stdin.close(); p.wait()",
        BURN + child,
    )
    alone = ProcessTree(worker.pid).read()
    tree = ProcessTree(worker.pid, also=(service.pid,))
    both = tree.read()
    assert both.rss_bytes > alone.rss_bytes + 8 * MIB
    assert tree.cpu_s() >= 0.19
    service.stdin.close()
    service.wait(30)
    assert tree.read().rss_bytes == pytest.approx(alone.rss_bytes, abs=MIB)
    assert tree.alive


def test_a_process_that_is_gone_gives_nothing(script):
    process, _ = script("print('ready', flush=True)" + QUIET)
    tree = ProcessTree(process.pid)
    assert tree.read().rss_bytes is not None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    # A zombie still has a pid and times, but observes nothing any more.
    assert tree.read().as_fields() == {}
    assert tree.cpu_s() is None
    process.wait()
    assert tree.read().as_fields() == {}
    assert not tree.alive
    assert ProcessTree(process.pid).read().as_fields() == {}


def test_mapped_files_are_told_apart_and_shared_pages_divided(script, on_disk):
    weights = on_disk / "weights"
    weights.write_bytes(os.urandom(16 * MIB))
    process, _ = script(
        "import mmap, sys\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "total = sum(mapped[::4096])\n"
        "print('ready', flush=True)" + QUIET,
        str(weights),
    )
    tree = ProcessTree(process.pid)
    alone = tree.read(pss=True)
    assert alone.rss_file_bytes >= 16 * MIB
    assert alone.rss_bytes > alone.rss_file_bytes
    assert alone.pss_bytes >= 16 * MIB
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as ours:
        sum(ours[::4096])
        shared = tree.read(pss=True)
    assert shared.pss_bytes == pytest.approx(alone.pss_bytes - 8 * MIB, abs=2 * MIB)
    assert shared.rss_file_bytes >= 16 * MIB


class TestFakeTree:
    """What real processes do too seldom, or too fast, to be waited for."""

    @pytest.fixture
    def proc(self, tmp_path):
        tree = FakeSysfs(tmp_path)
        tree.process(10, cpu_ticks=100, children=(11,))
        tree.process(11, cpu_ticks=50, children=(12,))
        tree.process(12, cpu_ticks=25)
        return tree

    @pytest.fixture
    def clock(self):
        return FakeClock()

    @pytest.fixture
    def tree(self, proc, clock):
        return ProcessTree(10, clock, proc.root / "proc")

    def gone(self, proc, pid):
        for name in ("stat", "status", "smaps_rollup", f"task/{pid}/children"):
            (proc.root / f"proc/{pid}/{name}").unlink()

    def test_all_generations_add_up(self, tree):
        assert tree.cpu_s() == pytest.approx(175 / TICKS_PER_S)
        reading = tree.read(pss=True)
        assert reading.rss_bytes == 3 * 4 * MIB
        assert reading.rss_file_bytes == 3 * MIB
        assert reading.pss_bytes == 3 * 3 * MIB

    def test_every_branch_is_followed(self, tree, proc):
        proc.process(10, cpu_ticks=100, children=(11, 13))
        proc.process(13, cpu_ticks=7, children=(14,))
        proc.process(14, cpu_ticks=1)
        assert tree.cpu_s() == pytest.approx(183 / TICKS_PER_S)

    def test_percent_is_of_one_core_since_the_reading_before(self, tree, proc, clock):
        assert tree.read().cpu_percent is None
        proc.process(10, cpu_ticks=100 + TICKS_PER_S, children=(11,))
        proc.process(12, cpu_ticks=25 + TICKS_PER_S)
        clock.advance(0.5)
        assert tree.read().cpu_percent == pytest.approx(400)
        clock.advance(0.01)
        assert tree.read().cpu_percent is None

    def test_a_child_that_its_parent_waited_for_is_counted_once(self, tree, proc):
        tree.cpu_s()
        self.gone(proc, 12)
        proc.process(11, cpu_ticks=50 + 30)
        assert tree.cpu_s() == pytest.approx(180 / TICKS_PER_S)

    def test_a_child_that_nobody_waited_for_takes_nothing_back(self, tree, proc):
        before = tree.cpu_s()
        self.gone(proc, 12)
        assert tree.cpu_s() == before
        proc.process(10, cpu_ticks=110, children=(11,))
        assert tree.cpu_s() == pytest.approx(before + 10 / TICKS_PER_S)

    def test_a_child_whose_parent_ended_is_still_followed(self, tree, proc):
        before = tree.cpu_s()
        self.gone(proc, 11)
        proc.process(10, cpu_ticks=150)
        proc.process(12, cpu_ticks=45)
        assert tree.cpu_s() == pytest.approx(before + 20 / TICKS_PER_S)

    def test_another_process_under_an_old_pid_is_not_taken_for_it(self, tree, proc):
        before = tree.cpu_s()
        proc.process(11, cpu_ticks=1)
        proc.process(12, cpu_ticks=99_999, started=777)
        assert tree.cpu_s() == before

    def test_memory_that_may_not_be_looked_at_is_absent_and_not_a_part(self, tree, monkeypatch):
        read = procfs.ProcessFiles.pss_bytes

        def refuse(files):
            if files.pid == 12:
                raise PermissionError
            return read(files)

        monkeypatch.setattr(procfs.ProcessFiles, "pss_bytes", refuse)
        reading = tree.read(pss=True)
        assert reading.pss_bytes is None
        assert reading.rss_bytes is not None

    def test_pss_costs_no_more_than_its_share_of_time(self, tree, clock, monkeypatch):
        read = procfs.ProcessFiles.pss_bytes

        def slow(files):
            clock.advance(0.01)
            return read(files)

        monkeypatch.setattr(procfs.ProcessFiles, "pss_bytes", slow)
        assert tree.read().pss_bytes is not None
        clock.advance(0.9 * 0.03 / PSS_SHARE)
        assert tree.read().pss_bytes is None
        assert tree.read(pss=True).pss_bytes is not None
        clock.advance(1.01 * 0.03 / PSS_SHARE)
        assert tree.read().pss_bytes is not None

    def test_new_descendants_are_found_a_second_later_or_when_asked(self, tree, proc, clock):
        tree.read()
        proc.process(12, cpu_ticks=25, children=(13,))
        proc.process(13, cpu_ticks=400)
        known_s = 175 / TICKS_PER_S
        clock.advance(0.5)
        assert tree.cpu_s(discover=False) == pytest.approx(known_s)
        clock.advance(0.6)
        assert tree.cpu_s(discover=False) == pytest.approx(known_s + 400 / TICKS_PER_S)
        proc.process(13, cpu_ticks=400, children=(14,))
        proc.process(14, cpu_ticks=1)
        assert tree.cpu_s() == pytest.approx(known_s + 401 / TICKS_PER_S)


def test_a_kernel_that_lists_no_children_is_asked_another_way(script, tmp_path):
    child = "print('ready', flush=True)" + QUIET
    process, _ = script(
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])", child
    )
    expected = [one.pid for one in psutil.Process(process.pid).children()]
    assert len(expected) == 1
    assert procfs.ProcessFiles(process.pid).children() == expected
    (tmp_path / f"{process.pid}/task/{process.pid}").mkdir(parents=True)
    assert procfs.ProcessFiles(process.pid, tmp_path).children() == expected
