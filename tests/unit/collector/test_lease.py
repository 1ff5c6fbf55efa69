"""Who leads: one at a time, whatever happens to it, on a clock that nobody can set."""

import subprocess
import sys
from contextlib import closing

import pytest

from fleetmark_collector.bootclock import BootTime, boot_time
from fleetmark_collector.lease import LEASE_S, Lease
from fleetmark_collector.sqlitefile import connect, transaction
from fleetmark_protocol.errors import LeadershipLost, StoreUnavailable

S = 10**9


class SharedClock:
    """The same for all who share a machine."""

    def __init__(self):
        self.boot_id, self.ns = "boot-1", 1000 * S

    def __call__(self):
        return BootTime(self.boot_id, self.ns)

    def pass_s(self, seconds):
        self.ns += int(seconds * S)


@pytest.fixture
def clock():
    return SharedClock()


@pytest.fixture
def claimant(tmp_path, clock):
    made = []

    def make():
        made.append(Lease(tmp_path / "state.db", clock))
        return made[-1]

    yield make
    for lease in made:
        lease.release()
        lease.close()


@pytest.fixture
def state(tmp_path):
    with closing(connect(tmp_path / "state.db", "rwc")) as db:
        yield db


def change(lease, db):
    with transaction(db):
        lease.fence(db)


def test_the_first_leads_and_the_second_learns_who_does(claimant, state):
    first, second = claimant(), claimant()
    assert first.claim() is None
    leader = second.claim()
    assert (leader.term, leader.pid) == (1, first._held.pid)
    assert (first.holds(), second.holds()) == (True, False)
    change(first, state)
    with pytest.raises(LeadershipLost):
        change(second, state)


def test_one_that_renews_leads_on_for_as_long_as_it_likes(claimant, clock):
    first, second = claimant(), claimant()
    first.claim()
    for _ in range(5):
        clock.pass_s(LEASE_S - 0.1)
        assert first.renew()
        assert second.claim() is not None


def test_one_that_has_stopped_is_replaced_once_its_lease_has_run_out_and_not_before(
    claimant, clock, state
):
    first, second = claimant(), claimant()
    first.claim()
    clock.pass_s(LEASE_S - 0.001)
    assert second.claim() is not None
    clock.pass_s(0.001)
    assert second.claim() is None
    assert second.term == 2
    # It wakes up, and changes nothing, whichever it tries first.
    with pytest.raises(LeadershipLost, match=r"another collector \(pid \d+\) has taken over"):
        change(first, state)
    assert first.lost
    assert not first.holds()
    assert not first.renew()
    change(second, state)


@pytest.mark.parametrize("notices", ["holds", "renew"])
def test_one_that_was_replaced_notices_by_itself(claimant, clock, notices):
    first, second = claimant(), claimant()
    first.claim()
    clock.pass_s(LEASE_S)
    second.claim()
    assert getattr(first, notices)() is False
    assert first.lost


def test_a_lease_that_has_run_out_is_still_ours_as_long_as_nobody_took_it(claimant, clock, state):
    first = claimant()
    first.claim()
    clock.pass_s(100 * LEASE_S)
    change(first, state)
    assert first.holds()
    assert not first.lost
    assert first.renew()


def test_one_that_gives_it_up_is_replaced_at_once(claimant):
    first, second = claimant(), claimant()
    first.claim()
    first.release()
    assert not first.holds()
    assert second.claim() is None


def test_one_that_was_replaced_takes_nothing_from_its_follower_when_it_gives_up(
    claimant, clock, state
):
    first, second = claimant(), claimant()
    first.claim()
    clock.pass_s(LEASE_S)
    second.claim()
    first.release()
    change(second, state)
    assert claimant().claim().term == 2


def test_a_machine_that_started_again_waits_for_nobody(claimant, clock):
    first, second = claimant(), claimant()
    first.claim()
    clock.boot_id = "boot-2"
    assert second.claim() is None


def test_without_a_name_for_the_boot_an_older_one_is_seen_by_its_clock(claimant, clock):
    first, second = claimant(), claimant()
    first.claim()
    clock.ns = 5 * S
    assert second.claim() is None


def test_the_one_that_was_replaced_may_lead_again(claimant, clock, state):
    first, second = claimant(), claimant()
    first.claim()
    clock.pass_s(LEASE_S)
    second.claim()
    first.release()
    second.release()
    assert first.claim() is None
    assert (first.term, first.lost) == (3, False)
    change(first, state)


def test_where_the_file_is_locked_nobody_leads_by_mistake(claimant, state, tmp_path, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.sqlitefile.BUSY_TIMEOUT_S", 0.05)
    lease = claimant()
    with transaction(state), pytest.raises(StoreUnavailable):
        lease.claim()
    assert not lease.holds()
    assert [file.name for file in tmp_path.glob("collector.alive-*")] == []
    assert lease.claim() is None


def test_the_lock_files_of_former_leaders_do_not_pile_up(claimant, clock, tmp_path):
    leases = [claimant() for _ in range(3)]
    for lease in leases:
        lease.claim()
        clock.pass_s(LEASE_S)
    assert len(list(tmp_path.glob("collector.alive-*"))) == 1
    leases[-1].release()
    assert list(tmp_path.glob("collector.alive-*")) == []


HOLDS = """
import sys
from pathlib import Path
from fleetmark_collector.lease import Lease
lease = Lease(Path(sys.argv[1]))
print(lease.claim(), flush=True)
sys.stdin.read()
"""


def test_one_that_was_killed_is_replaced_at_once_and_one_that_lives_is_not(tmp_path):
    file = tmp_path / "state.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout.readline() == b"None\n"
            with closing(Lease(file)) as lease:
                assert lease.claim().pid == process.pid
                process.kill()
                process.wait(10)
                assert lease.claim() is None
                lease.release()
        finally:
            process.kill()


def test_the_clock_goes_on_and_names_this_boot():
    first, second = boot_time(), boot_time()
    assert first.boot_id == second.boot_id
    assert len(first.boot_id) == 36
    assert second.ns >= first.ns > 0
