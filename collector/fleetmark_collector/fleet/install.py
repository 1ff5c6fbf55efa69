"""Installs many devices side by side: looks at each, plans, enrolls, copies, installs, waits."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from fleetmark_collector.fleet import scripts
from fleetmark_collector.fleet.hosts import Target
from fleetmark_collector.fleet.kits import Kits
from fleetmark_collector.fleet.plan import Package, Plan, make_plan, name_device
from fleetmark_collector.fleet.probe import PROBE, Facts, read_facts
from fleetmark_collector.fleet.remote import Ssh, last_words
from fleetmark_protocol.errors import FleetmarkError

PROBE_S = 60
PUT_S = 60
START_S = 180
INSTALL_S = 1800
"""A slow card, a slow network, a hundred megabytes."""


@dataclass(frozen=True)
class Outcome:
    """What became of one device."""

    target: Target
    device: str | None
    state: Literal["done", "unchanged", "planned", "failed"]
    steps: tuple[str, ...] = ()
    """What was done, or would be; of a device that failed, what it was to be."""
    problem: str | None = None
    hint: str | None = None


class Watcher(Protocol):
    """Who tells the user."""

    def step(self, target: Target, doing: str) -> None:
        """Something begins on a device."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """A device is done with."""
        ...

    def note(self, text: str) -> None:
        """Something that the user has to know, and that is no device's."""
        ...


class Installer:
    """One run over all devices; one that fails holds up none of the others."""

    def __init__(
        self,
        ssh: Ssh,
        kits: Kits,
        packages: Mapping[str, Package],
        watcher: Watcher,
        *,
        at_once: int,
        wait_s: int,
    ) -> None:
        """Do nothing yet.

        Args:
            ssh: the way to the devices.
            kits: where identities come from.
            packages: what to install, by Debian's name of the architecture.
            watcher: told of everything.
            at_once: with how many devices we speak at a time.
            wait_s: how long a device may take to come online; 0: that is not waited for.
        """
        self._ssh = ssh
        self._kits = kits
        self._packages = packages
        self._watcher = watcher
        self._gate = asyncio.Semaphore(at_once)
        self._wait_s = wait_s
        self._outcomes: dict[Target, Outcome] = {}

    async def install(self, targets: Sequence[Target], *, dry_run: bool) -> tuple[Outcome, ...]:
        """Bring every device to where it is online as itself, as far as it is not there already."""
        looks = await asyncio.gather(*(self._look(target) for target in targets))
        plans = self._plan([one for one in looks if one is not None])
        if dry_run:
            for plan in plans:
                self._end(plan, "planned" if plan.steps else "unchanged")
        else:
            # All of them before the broker is told once; then it knows whoever comes.
            ready = await asyncio.to_thread(self._enroll, plans)
            await asyncio.gather(*(self._carry_out(plan) for plan in ready))
        return tuple(self._outcomes[target] for target in targets)

    async def _look(self, target: Target) -> tuple[Target, str, Facts] | None:
        async with self._gate:
            try:
                self._watcher.step(target, "looking")
                facts = read_facts(await self._ssh.run(target.destination, PROBE, limit_s=PROBE_S))
                return target, name_device(target, facts), facts
            except FleetmarkError as error:
                self._fail(target, target.device, error)
                return None

    def _plan(self, looks: Sequence[tuple[Target, str, Facts]]) -> list[Plan]:
        named = Counter(device for _, device, _ in looks)
        plans = []
        for target, device, facts in looks:
            try:
                if named[device] > 1:
                    raise FleetmarkError(
                        f"{named[device]} of the devices would be {device}",
                        hint="give each an id of its own in a @FILE: destination, id",
                    )
                plans.append(make_plan(target, device, facts, self._kits, self._packages))
            except FleetmarkError as error:
                self._fail(target, device, error)
        return plans

    def _enroll(self, plans: Sequence[Plan]) -> list[Plan]:
        ready, made = [], False
        for plan in plans:
            try:
                if plan.enroll:
                    self._watcher.step(plan.target, "enrolling")
                    kit = self._kits.make(plan.device, plan.target.tags)
                    ready.append(replace(plan, kit=kit))
                    made = True
                else:
                    ready.append(plan)
            except FleetmarkError as error:
                self._fail(plan.target, plan.device, error, plan.steps)
        if made and (todo := self._kits.publish()) is not None:
            self._watcher.note(todo)
        return ready

    async def _carry_out(self, plan: Plan) -> None:
        where = plan.target.destination
        async with self._gate:
            try:
                if plan.put_kit and plan.kit is not None:
                    self._watcher.step(plan.target, "copying its identity")
                    packed = plan.kit.packed(settings=plan.put_settings)
                    await self._ssh.run(where, scripts.PUT_KIT, packed, limit_s=PUT_S)
                if plan.package is not None:
                    self._watcher.step(plan.target, f"installing {plan.package.version}")
                    file = plan.package.file
                    await self._ssh.run(where, scripts.INSTALL, file, limit_s=INSTALL_S)
                if plan.start:
                    self._watcher.step(plan.target, "starting")
                    await self._ssh.run(where, scripts.START, limit_s=START_S)
                if self._wait_s:
                    self._watcher.step(plan.target, "waiting until it is online")
                    await self._wait(plan)
            except FleetmarkError as error:
                self._fail(plan.target, plan.device, error, plan.steps)
            else:
                self._end(plan, "done" if plan.steps else "unchanged")

    async def _wait(self, plan: Plan) -> None:
        said = await self._ssh.run(
            plan.target.destination,
            scripts.WAIT,
            f"{self._wait_s}\n".encode(),
            limit_s=self._wait_s + PROBE_S,
        )
        try:
            status = json.loads(said)
            device, connected = status["device"], status["connected"]
        except (ValueError, TypeError, KeyError) as error:
            raise FleetmarkError(
                f"its agent does not say how it is: {last_words(said)}",
                hint="on it: journalctl -u fleetmark-agent",
            ) from error
        if not connected:
            problem = last_words(str(status.get("last_problem") or "it does not say why"))
            raise FleetmarkError(
                f"not online within {self._wait_s} s: {problem}",
                hint="on it: fleetmark-agent doctor",
            )
        if device != plan.device:
            raise FleetmarkError(f"it is online as {last_words(str(device))}, not as {plan.device}")
        refusal = status.get("collector_refusal")
        if refusal:
            raise FleetmarkError(
                f"it is online, but the collector takes nothing of it: {last_words(str(refusal))}",
                hint="what it measures waits there; --package of a version that goes with this one",
            )

    def _end(self, plan: Plan, state: Literal["done", "unchanged", "planned"]) -> None:
        self._ended(Outcome(plan.target, plan.device, state, plan.steps))

    def _fail(
        self,
        target: Target,
        device: str | None,
        error: FleetmarkError,
        steps: tuple[str, ...] = (),
    ) -> None:
        self._ended(Outcome(target, device, "failed", steps, error.message, error.hint))

    def _ended(self, outcome: Outcome) -> None:
        self._outcomes[outcome.target] = outcome
        self._watcher.ended(outcome)
