"""One process of a simulation: checks, signals, and progress as JSON lines."""

import ctypes
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import asdict

from fleetmark_agent.brokerclient import try_broker
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.simulation import limits
from fleetmark_agent.simulation.fleet import Fleet, Progress
from fleetmark_agent.simulation.plan import Plan
from fleetmark_protocol.errors import StoreUnavailable

PR_SET_PDEATHSIG = 1


def simulate(plan: Plan, settings: AgentSettings, parent_pid: int | None = None) -> int:
    """Simulate, printing a JSON object a line; return 1 where something is unaccounted for.

    Args:
        plan: what to simulate.
        settings: of all devices: fleet, broker, outbox.
        parent_pid: of the process whose end is ours; None for none.

    Raises:
        ConfigError: names, limits or the broker's files will not do.
        StoreUnavailable: the broker cannot be reached, or an outbox not be used.
    """
    plan.check()
    limits.allow_files(plan.count)
    with limits.held(plan.state_dir, plan.first, plan.count):
        _check_broker(plan, settings)
        fleet = Fleet(plan, settings, _say)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: fleet.stop())
        if parent_pid is not None:
            _end_with(parent_pid)
        try:
            last = fleet.run()
        finally:
            if plan.discard:
                _discard(plan)
    return 1 if last.unaccounted else 0


def _check_broker(plan: Plan, settings: AgentSettings) -> None:
    """See that the broker takes us: a mistake in its settings must not look like an outage.

    Raises:
        StoreUnavailable: it does not.
    """
    try:
        try_broker(plan.device_settings(settings, plan.first))
    except StoreUnavailable as error:
        broker = settings.broker
        raise StoreUnavailable(
            f"broker {broker.host} port {broker.port}: {error.message}", hint=error.hint
        ) from error


def _discard(plan: Plan) -> None:
    """Remove what is ours: whoever made the directory may be gone, however it went."""
    for number in plan.numbers:
        shutil.rmtree(plan.state_dir / plan.name(number), ignore_errors=True)
    with suppress(OSError):
        (plan.state_dir / limits.LOCK_NAME).unlink()
    with suppress(OSError):
        # Another process of this simulation may still have something in it, and comes after us.
        plan.state_dir.rmdir()


def _say(progress: Progress) -> None:
    try:
        sys.stdout.write(json.dumps(asdict(progress)) + "\n")
        sys.stdout.flush()
    except OSError:
        # Who listened is gone; the devices' records are still to be delivered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_with(parent_pid: int) -> None:
    """Have the kernel tell us when the parent dies, however it dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGTERM)
