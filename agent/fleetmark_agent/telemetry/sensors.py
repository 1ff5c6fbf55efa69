"""The sensors of a device: a new one is a file of its own and a line here."""

from pathlib import Path

from fleetmark_agent.telemetry.agent_process import AgentProcess
from fleetmark_agent.telemetry.base import Sensor
from fleetmark_agent.telemetry.cpu import Cpu
from fleetmark_agent.telemetry.disk import Disk
from fleetmark_agent.telemetry.frequency import Frequency
from fleetmark_agent.telemetry.memory import Memory
from fleetmark_agent.telemetry.network import Network
from fleetmark_agent.telemetry.thermal import Thermal


def all_sensors(root: Path, state_dir: Path) -> tuple[Sensor, ...]:
    """Return every sensor, whether this device has what it observes or not.

    Args:
        root: where `sys` and `proc` are looked for; `/` but in tests.
        state_dir: where the agent keeps its state.
    """
    return (
        Cpu(),
        Frequency(root),
        Memory(root),
        Disk(root, state_dir),
        Network(),
        Thermal(root),
        AgentProcess(),
    )
