"""The sensors of a device: a new one is a file of its own and a line here."""

from collections.abc import Callable
from pathlib import Path

from fleetmark_agent.telemetry.agent_process import AgentProcess
from fleetmark_agent.telemetry.backlog import Backlog, Waiting
from fleetmark_agent.telemetry.base import Sensor
from fleetmark_agent.telemetry.cpu import Cpu
from fleetmark_agent.telemetry.disk import Disk
from fleetmark_agent.telemetry.frequency import Frequency
from fleetmark_agent.telemetry.memory import Memory
from fleetmark_agent.telemetry.network import Network
from fleetmark_agent.telemetry.power import Power
from fleetmark_agent.telemetry.thermal import Thermal
from fleetmark_agent.telemetry.throttle import Throttle


def all_sensors(
    root: Path, state_dir: Path, waiting: Callable[[], Waiting] | None = None
) -> tuple[Sensor, ...]:
    """Return every sensor, whether this device has what it observes or not.

    Args:
        root: where `sys` and `proc` are looked for; `/` but in tests.
        state_dir: where the agent keeps its state.
        waiting: see `Backlog`; None where nothing is delivered, and there is no such sensor.
    """
    sensors: tuple[Sensor, ...] = (
        Cpu(),
        Frequency(root),
        Memory(root),
        Disk(root, state_dir),
        Network(),
        Thermal(root),
        Throttle(root),
        Power(root),
        AgentProcess(),
    )
    return sensors if waiting is None else (*sensors, Backlog(waiting))
