"""One simulated device: its own outbox, conversation and connection, and figures made up."""

import random
import time
from dataclasses import dataclass

from fleetmark_agent.config import AgentSettings
from fleetmark_agent.conversation import Conversation
from fleetmark_agent.inventory import make_inventory
from fleetmark_agent.recorder import Recorder
from fleetmark_agent.simulation.box import Box
from fleetmark_agent.simulation.connection import Connection, Network
from fleetmark_agent.simulation.figures import Figures, backend_infos, hardware, sensor_infos
from fleetmark_agent.simulation.jobs import Offer, SimulatedRunner
from fleetmark_agent.simulation.ledger import Tally
from fleetmark_agent.simulation.plan import Plan
from fleetmark_agent.timezones import device_time_zone
from fleetmark_protocol.ids import new_uuid
from fleetmark_protocol.messages import Inventory, Status
from fleetmark_protocol.records import EventRecord
from fleetmark_protocol.version import __version__


@dataclass(frozen=True)
class Shared:
    """What the devices of one process share."""

    plan: Plan
    settings: AgentSettings
    network: Network
    tally: Tally
    known_backends: list[str]


class Device:
    """Used by the loop's thread alone."""

    def __init__(self, shared: Shared, number: int) -> None:
        """Open the outbox, or go on with the one that is there.

        Args:
            shared: see `Shared`.
            number: the device's, in the whole simulation.

        Raises:
            ConfigError: a certificate or password file cannot be read.
            StoreError: the outbox cannot be used.
        """
        self._shared = shared
        self._plan = shared.plan
        self._loop = shared.network.loop
        self._tally = shared.tally
        self._settings = shared.plan.device_settings(shared.settings, number)
        self._number = number
        self._boot_id = new_uuid()
        # Spreads the fleet, reproducibly; nothing secret hangs on it.
        self._rng = random.Random(f"{self._plan.seed}/{number}/ways")  # noqa: S311 - ways
        self._figures = Figures(self._plan.seed, self._settings.device_id)
        self.box = Box(self._settings, shared.tally, self._rng, self._loop.clock_s)
        self._connection = Connection(self._settings, shared.network, self._rng)
        status = Status(
            online=True,
            boot_id=self._boot_id,
            agent_version=__version__,
            started_ns=time.time_ns(),
        )
        self._runner = SimulatedRunner(
            Recorder(self.box.database, self.box.outbox, self.box.joblog, stopped=lambda: True),
            self._figures,
            self._loop,
            Offer(frozenset(self._plan.offered(number)), self._plan.trial_s),
            on_event=self.box.put,
            on_record=self.box.recorded,
            on_change=self._announce,
        )
        self._turn_asked = False
        self._talk = Conversation(
            self._settings,
            self.box.outbox,
            status,
            publish=self._connection.publish,
            wake=self._wake,
            on_assignment=self._runner.assign,
            on_refused=self._runner.refuse,
            on_withdrawn=self._runner.withdraw,
            rng=self._rng,
            watcher=self.box.ledger,
            clock_s=self._loop.clock_s,
        )
        self._connection.bind(self._talk)
        self._samples_left = self._plan.samples
        self._sampling = True
        self._booted = False
        self._coming_and_going = self._plan.is_flaky(number)

    # --- its life ------------------------------------------------------------------------------

    def start(self, begin_s: float) -> None:
        """Arrange for everything this device does.

        Args:
            begin_s: of the simulation, on the loop's clock.
        """
        self._loop.at(begin_s + self._plan.start_s(self._number), self._boot)
        self._sample_s = begin_s + self._plan.first_sample_s(self._number)
        self._loop.at(self._sample_s, self._sample)

    @property
    def sampling(self) -> bool:
        """Whether samples are still to come."""
        return self._sampling

    @property
    def connected(self) -> bool:
        """Whether the broker has it."""
        return self._talk.connected

    def drain(self) -> None:
        """Sample no more, stay connected, and let nothing wait."""
        self._sampling = False
        self._coming_and_going = False
        self._runner.stop()
        if self._booted:
            self._connection.open()
            self._talk.hurry()

    def say_goodbye(self) -> None:
        """Say that it is offline, or have the centre forget it."""
        if not self._talk.connected:
            return
        if self._plan.forget:
            self._talk.forget()
        else:
            self._talk.goodbye()

    def disconnect(self) -> None:
        """End the connection; the loop must go round until `closed`."""
        self._connection.close()

    @property
    def quiet(self) -> bool:
        """Whether the broker has confirmed all that was said, or cannot any more."""
        return not self._talk.connected or self._connection.confirmed

    @property
    def closed(self) -> bool:
        """Whether there is no connection left."""
        return self._connection.closed

    # --- what it does --------------------------------------------------------------------------

    def _boot(self) -> None:
        if not self._sampling:
            return
        self._booted = True
        self.box.put(
            EventRecord(
                time_ns=time.time_ns(),
                severity="info",
                code="agent_started",
                message=f"simulated agent {__version__} started",
                data={"boot_id": self._boot_id, "simulated": True},
            )
        )
        self._talk.announce(self._inventory())
        self._runner.start()
        self._connection.open()
        if self._coming_and_going:
            self._loop.after(self._spell_s(), self._go)
        self._turn_when_due()

    def _sample(self) -> None:
        if not self._sampling:
            return
        backlog = self.box.outbox.backlog()
        record = self._figures.telemetry(
            time.time_ns(),
            self._boot_id,
            (backlog.records, backlog.used_percent),
            self._runner.now,
        )
        self.box.put(record)
        # A real sampler that is late leaves samples out, too, rather than hurry through them.
        missed = int(max(0.0, self._loop.clock_s() - self._sample_s) * self._plan.rate_hz)
        if self._samples_left is not None:
            missed = min(missed, self._samples_left - 1)
            self._samples_left -= 1 + missed
        self._tally.skipped += missed
        self._sample_s += (1 + missed) / self._plan.rate_hz
        if self._samples_left == 0:
            self._sampling = False
        else:
            self._loop.at(self._sample_s, self._sample)

    def _wake(self) -> None:
        if not self._turn_asked and self._talk.urgent:
            self._turn_asked = True
            self._loop.soon(self._turn)

    def _turn(self) -> None:
        self._turn_asked = False
        self._talk.turn()

    def _turn_when_due(self) -> None:
        if self._loop.clock_s() >= self._talk.next_s:
            self._connection.tend()
            self._talk.turn()
        self._loop.at(self._talk.next_s, self._turn_when_due)

    def _go(self) -> None:
        if self._coming_and_going:
            self._connection.cut()
            self._loop.after(self._spell_s(), self._come)

    def _come(self) -> None:
        if self._coming_and_going:
            self._connection.open()
            self._loop.after(self._spell_s(), self._go)

    def _spell_s(self) -> float:
        return self._rng.expovariate(1 / self._plan.offline_s)

    def _announce(self) -> None:
        self._talk.announce(self._inventory())

    def _inventory(self) -> Inventory:
        return make_inventory(
            settings=self._settings,
            boot_id=self._boot_id,
            time_ns=time.time_ns(),
            hardware=hardware(self._settings.device_id),
            backends=backend_infos(self._shared.known_backends, self._plan.offered(self._number)),
            models=(),
            sensors=sensor_infos(),
            jobs=self.box.joblog.known(),
            time_zone=device_time_zone(),
        )
