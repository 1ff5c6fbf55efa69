"""From a campaign file to a schedule that the collector keeps to: load, try out, keep."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fleetmark_collector.campaigns.file import load_campaign
from fleetmark_collector.campaigns.plan import Plan
from fleetmark_collector.campaigns.schedule_keys import ScheduleKeys
from fleetmark_collector.campaigns.schedule_tables import ScheduleRow
from fleetmark_collector.campaigns.schedules import ScheduleStore
from fleetmark_collector.campaigns.selfcontained import whole
from fleetmark_collector.campaigns.submit import permitted
from fleetmark_collector.config import CollectorSettings
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.ids import Name

_NAME = TypeAdapter(Name)


@dataclass(frozen=True)
class Registered:
    """A schedule that was registered.

    Attributes:
        row: as it is kept.
        keys: what it goes by.
        plan: what it would run now.
        replaced: whether there was one of its name.
    """

    row: ScheduleRow
    keys: ScheduleKeys
    plan: Plan
    replaced: bool


def register_schedule(
    settings: CollectorSettings,
    file: Path,
    *,
    name: str | None = None,
    replace: bool = False,
    accept_limits: bool = False,
    clock: Callable[[], int] = time.time_ns,
) -> Registered:
    """Keep a campaign file to be run by the collector at the times that it names.

    Args:
        settings: of the collector that shall carry it out.
        file: the campaign file; what is kept needs it, and files it names, no more.
        name: of the schedule; None for that of the campaign.
        replace: whether it may take the place of another one of its name.
        accept_limits: keep it even if it is expected to go beyond the limits in its file.
        clock: nanoseconds since the epoch.

    Raises:
        ConfigError: the file, its targets or the name are wrong, it would go beyond its limits, or
            there is no time left at which it would run; nothing has been kept.
        StoreError: the state file cannot be used.
    """
    campaign = whole(load_campaign(file))
    keys = campaign.schedule
    if keys is None:
        raise ConfigError(
            f"{file}: it has no schedule",
            hint='add one, such as `schedule: {cron: "0 2 * * mon", time_zone: Europe/Berlin}`',
        )
    wanted = campaign.name if name is None else _checked(name)
    plan = permitted(settings, campaign, accept_limits=accept_limits, done="registered")
    now_ns = clock()
    next_ns = keys.recurrence.next(now_ns)
    if next_ns is None:
        raise ConfigError(f"{file}: schedule: no run is left before its end ({keys.end})")
    row = ScheduleRow(
        name=wanted,
        file_name=str(file),
        file_text=campaign.text,
        keys=keys.model_dump_json(exclude_none=True),
        created_ns=now_ns,
        next_ns=next_ns,
        waiting_ns=None,
    )
    with closing(ScheduleStore(settings.state_file)) as store:
        replaced = store.add(row, replace=replace)
    return Registered(row, keys, plan, replaced)


def _checked(name: str) -> str:
    try:
        return str(_NAME.validate_python(name))
    except ValidationError as error:
        raise ConfigError(
            f"--name {name}: lower-case letters, digits, - and _, at most 63, a letter or digit "
            "first"
        ) from error
