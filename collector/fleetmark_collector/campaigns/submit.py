"""From a campaign file to a campaign that the collector carries out: load, plan, keep."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from fleetmark_collector.campaigns.estimate import Estimate, estimate_plan
from fleetmark_collector.campaigns.file import Campaign, load_campaign
from fleetmark_collector.campaigns.history import History, read_history
from fleetmark_collector.campaigns.keeping import Kept
from fleetmark_collector.campaigns.plan import Plan, PlannedJob, make_plan, new_campaign_id
from fleetmark_collector.campaigns.selfcontained import whole
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.statefile import has_campaigns
from fleetmark_collector.campaigns.takenids import keep_anew
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.devices import Device, DeviceRegistry
from fleetmark_collector.sinks.stores import open_reader
from fleetmark_protocol.errors import ConfigError, StoreError


@dataclass(frozen=True)
class Outlook:
    """What a campaign would do, and how long that would take."""

    plan: Plan
    estimate: Estimate

    def check(self, *, accept_limits: bool) -> None:
        """Let it pass only if it can be run, and keeps within its limits or need not.

        Raises:
            ConfigError: all that stands against it, a line each.
        """
        self.plan.check()
        beyond = (*self.estimate.over, *self.estimate.unsure)
        if beyond and not accept_limits:
            less = "; or ask for less" if self.estimate.over else ""
            raise ConfigError("\n".join(beyond), hint=f"--yes starts it all the same{less}")


def plan_campaign(settings: CollectorSettings, campaign: Campaign, time_ns: int) -> Plan:
    """Return the plan that a campaign begun at a time would have; writes nothing.

    Raises:
        StoreError: the state file cannot be read.
    """
    return make_plan(campaign, new_campaign_id(campaign.name, time_ns), _devices(settings))


def look_ahead(settings: CollectorSettings, campaign: Campaign, time_ns: int) -> Outlook:
    """Return the plan with an estimate; writes nothing.

    Without a store to read, estimates go by the size of the models, and a note says why.

    Raises:
        StoreError: the state file cannot be read.
    """
    devices = _devices(settings)
    plan = make_plan(campaign, new_campaign_id(campaign.name, time_ns), devices)
    history, notes = _history(settings, plan)
    estimate = estimate_plan(campaign, plan, devices, history, time_ns)
    # What the plan says already, of time zones for one, is said once.
    more = (note for note in estimate.notes if note not in plan.notes)
    return Outlook(plan, replace(estimate, notes=(*notes, *more)))


def submit_campaign(
    settings: CollectorSettings,
    file: Path,
    sleep: Callable[[float], None] = time.sleep,
    *,
    accept_limits: bool = False,
) -> tuple[str, Plan]:
    """Start a campaign on the devices that the collector knows; return its id and its plan.

    Args:
        settings: of the collector that shall carry it out.
        file: the campaign file.
        sleep: waits so many seconds, where the name was used within the same second.
        accept_limits: start it even if it is expected to go beyond the limits in its file.

    Raises:
        ConfigError: the file or its targets are wrong, or it would go beyond its limits; nothing
            has been started.
        StoreError: the state file cannot be used.
    """
    campaign = load_campaign(file)
    plan = permitted(settings, campaign, accept_limits=accept_limits)
    if campaign.schedule is not None:
        once = f"runs once, now; `fleetmark campaign schedule {file}` has it run as scheduled"
        plan = replace(plan, notes=(*plan.notes, once))
    kept, first = kept_of(campaign), plan

    def plan_again() -> Plan:
        again = plan_campaign(settings, campaign, time.time_ns())
        return replace(again, notes=first.notes, jobs=_timed(again.jobs, first.jobs))

    with closing(CampaignStore(settings.state_file)) as store:
        plan = keep_anew(
            store, plan, lambda made: store.create(campaign, made, kept=kept), plan_again, sleep
        )
    return plan.campaign_id, plan


def kept_of(campaign: Campaign) -> Kept:
    """Return what the dispatcher needs of a campaign beside its jobs.

    Raises:
        ConfigError: a file with prompts cannot be read any more, or has changed meanwhile.
    """
    selection = campaign.targets.selection
    if selection == "snapshot":
        return Kept()
    return Kept(selection, whole(campaign).text)


def permitted(
    settings: CollectorSettings,
    campaign: Campaign,
    *,
    accept_limits: bool,
    done: str = "started",
) -> Plan:
    """Return the plan of a campaign that may be run now; a note says what was `done` all the same.

    Raises:
        ConfigError: it may not.
        StoreError: the state file cannot be used.
    """
    limits = campaign.limits
    if (limits.duration_s, limits.cost_usd, campaign.policy.windows) == (None, None, None):
        plan = plan_campaign(settings, campaign, time.time_ns())
        plan.check()
        return plan
    outlook = look_ahead(settings, campaign, time.time_ns())
    outlook.check(accept_limits=accept_limits)
    beyond = [f"{done} beyond its limits: {line}" for line in outlook.estimate.over]
    beyond += [f"{done} all the same: {line}" for line in outlook.estimate.unsure]
    expected = [one for device in outlook.estimate.devices for one in device.jobs]
    # Of a job without an estimate its soaks are known, and they must fit into a window, too.
    sure = [one for one in expected if one.seconds is not None or one.known.likely > 0]
    seconds = {one.job.spec.job_id: one.known.likely for one in sure}
    jobs = [replace(one, estimate_s=seconds.get(one.spec.job_id)) for one in outlook.plan.jobs]
    return replace(outlook.plan, jobs=tuple(jobs), notes=(*outlook.plan.notes, *beyond))


def _timed(jobs: Sequence[PlannedJob], before: Sequence[PlannedJob]) -> tuple[PlannedJob, ...]:
    """Return jobs that were planned again, with the estimates of those planned before."""
    # By the end of their ids: the start of them is the campaign's.
    known = {one.spec.job_id.partition(".")[2]: one.estimate_s for one in before}
    return tuple(
        replace(one, estimate_s=known.get(one.spec.job_id.partition(".")[2])) for one in jobs
    )


def _devices(settings: CollectorSettings) -> list[Device]:
    with closing(DeviceRegistry(settings.state_file)) as registry:
        return registry.list()


def _history(settings: CollectorSettings, plan: Plan) -> tuple[History, Sequence[str]]:
    if not has_campaigns(settings.state_file):
        return History(), ()
    wanted = {str(job.cell): job.spec.model.sha256 for job in plan.jobs}
    with closing(CampaignStore(settings.state_file)) as store, closing(open_reader(settings)) as r:
        try:
            return read_history(store, r, wanted), ()
        except StoreError as error:
            return History(), (f"earlier runs are not counted in: {error.message}",)
