"""Waits for the lease, keeps it while this process leads, and gives it up at the end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fleetmark_collector.lease import LEASE_S, RENEW_S, WAIT_S, Leader, Lease
from fleetmark_protocol import logs
from fleetmark_protocol.errors import FleetmarkError, StoreUnavailable


def wait_to_lead(
    lease: Lease,
    stop: threading.Event,
    standby: Callable[[Leader], None],
    alive: Callable[[Leader | None], None] = lambda _: None,
) -> bool:
    """Return True once this process leads, False when it is told to stop before.

    Args:
        lease: claimed again and again.
        stop: ends the waiting at once.
        standby: told who leads, each time it is not us.
        alive: told who led when that was last known, about once a second while waiting.

    Raises:
        StoreError: the state file is damaged, or cannot be used at the first try.
    """
    log = logs.get("lease")
    leader: Leader | None = None
    trouble = ""
    while not stop.is_set():
        try:
            there = lease.claim()
        except StoreUnavailable as error:
            if leader is None:
                raise
            # A process that is frozen in the middle of a write keeps the file locked: then nobody
            # can take over from it, however long its lease has run out.
            if error.message != trouble:
                trouble = error.message
                hint = (
                    f"if it stays so and collector {leader.pid} hangs, end it: kill -9 {leader.pid}"
                )
                log.warning("lease_not_read", reason=error.message, hint=hint)
        else:
            if there is None:
                log.info("leading", term=lease.term)
                return True
            if leader is None or there.holder != leader.holder:
                log.info(
                    "standby",
                    leader_pid=there.pid,
                    hint=f"it takes over when that one ends, or {LEASE_S:g} s after its last sign",
                )
            leader, trouble = there, ""
            standby(there)
        alive(leader)
        stop.wait(WAIT_S)
    return False


@contextmanager
def kept(lease: Lease) -> Iterator[None]:
    """Renew the lease in a thread of its own, so that no work can hold it up; then give it up."""
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(lease, ended), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        try:
            lease.release()
        except FleetmarkError as error:
            logs.get("lease").warning("lease_not_released", reason=error.message)


def _renew(lease: Lease, ended: threading.Event) -> None:
    log = logs.get("lease")
    trouble = ""
    while not ended.wait(RENEW_S):
        try:
            if not lease.renew():
                return
            trouble = ""
        except FleetmarkError as error:
            # Once for each trouble; who leads is told by the lease, whatever this thread can do.
            if error.message != trouble:
                trouble = error.message
                log.warning("lease_not_renewed", reason=error.message)
