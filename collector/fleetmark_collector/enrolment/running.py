"""Has a running broker read its users, rules and revocations again, whoever runs it."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from fleetmark_collector.enrolment.directories import CENTRE, set_up_by_script
from fleetmark_collector.enrolment.keep import Keep

PID_FILE = "broker/pid"
UNIT = "fleetmark-broker.service"
LOCK_TRIES, LOCK_WAIT_S = 20, 0.05


@dataclass(frozen=True)
class Told:
    """Whether the broker knows.

    Attributes:
        done: False: the operator must have it reload.
        text: for the operator.
    """

    done: bool
    text: str


def hold_pid_file(file: Path) -> None:
    """Note this process's number in a file, locked for as long as the process lives.

    The lock outlives `exec`, so that `fleetmark broker` may become Mosquitto, and nobody can take a
    number that was left behind for a process that lives. Nor does the number bring harm before
    there is a Mosquitto to understand the signal: what is ignored stays so through `exec`, and
    Mosquitto sets its own handler.

    Raises:
        OSError: another broker holds it, or it cannot be written.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(handle, True)
    _lock(handle)
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode("ascii"))


def _lock(handle: int) -> None:
    # Who looks whether a broker runs holds it for a moment.
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_WAIT_S)
        else:
            return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def running_pid(file: Path) -> int | None:
    """Return the number of the process that holds a file; None where none does."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(handle, 32) or b"0") or None
    else:
        return None
    finally:
        os.close(handle)


def tell_broker(keep: Keep) -> Told:
    """Have the broker of a directory reload, if it runs on this machine."""
    try:
        pid = running_pid(keep.path(PID_FILE))
        if pid is not None:
            os.kill(pid, signal.SIGHUP)
            return Told(True, f"the broker (pid {pid}) has been told")
    except OSError as error:
        return Told(False, f"the broker could not be told ({error.strerror}): send it a SIGHUP")
    if keep.directory == CENTRE and _systemctl("is-active", "--quiet", UNIT):
        if _systemctl("reload", UNIT):
            return Told(True, f"{UNIT} has been told")
        return Told(False, f"systemctl reload {UNIT} failed: journalctl -u {UNIT}")
    if set_up_by_script(keep.directory):
        return Told(
            False,
            f"the broker must be told: `systemctl reload {UNIT}`, or for containers "
            "`docker compose kill -s HUP mosquitto`",
        )
    return Told(True, "no broker runs on it; `fleetmark broker` reads it when it starts")


def _systemctl(*words: str) -> bool:
    program = shutil.which("systemctl")
    if program is None:
        return False
    return subprocess.run([program, *words], check=False).returncode == 0
