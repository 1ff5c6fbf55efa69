"""`fleetmark campaign pause|resume|cancel`: what an operator changes while a campaign runs."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.campaign_common import NeededIdArgument, existing_store, look
from fleetmark_collector.cli.campaign_output import say, status_json
from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_json,
    settings_from,
)
from fleetmark_collector.cli.completion import complete_device
from fleetmark_protocol.errors import ConfigError

if TYPE_CHECKING:
    from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
    from fleetmark_collector.config import CollectorSettings


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group."""
    for command in (pause, resume, cancel):
        app.command()(command)


def pause(
    campaign_id: NeededIdArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Send no more jobs for now; those under way end, and the campaign's time stands still."""
    _switch(settings_from(config, data_dir), campaign_id, on=True, as_json=as_json)


def resume(
    campaign_id: NeededIdArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Send jobs of a paused campaign again."""
    _switch(settings_from(config, data_dir), campaign_id, on=False, as_json=as_json)


def _switch(settings: "CollectorSettings", campaign_id: str, *, on: bool, as_json: bool) -> None:
    from fleetmark_collector.campaigns.steering import pause_campaign, resume_campaign
    from fleetmark_collector.campaigns.wording import NO_COLLECTOR

    store = existing_store(settings)
    try:
        row = store.campaign(campaign_id)
        switch = pause_campaign if on else resume_campaign
        switched = switch(store.file, campaign_id, time.time_ns())
        row = store.campaign(campaign_id)
    finally:
        store.close()
    word = "paused" if on else "running"
    if not switched:
        _check_switchable(row, word)
    view, alive = look(settings, campaign_id)
    if as_json:
        print_json(status_json(view, alive))
        return
    out = console()
    if not switched:
        say(out, f"Campaign {campaign_id} is {word} already.")
    elif on:
        under_way = sum(one.job is not None for one in view.devices)
        say(out, f"Campaign {campaign_id}: paused; {under_way} job(s) under way will end.")
    else:
        say(out, f"Campaign {campaign_id}: goes on.")
    if not alive:
        say(out, f"note: {NO_COLLECTOR}")


def _check_switchable(row: "CampaignRow", word: str) -> None:
    if row.state.terminal:
        raise ConfigError(f"campaign {row.campaign_id} has ended: {row.state}")
    if row.stop_reason is not None:
        raise ConfigError(f"campaign {row.campaign_id} is being stopped; it cannot be {word}")


def cancel(
    campaign_id: NeededIdArgument,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Do not wait for devices: their jobs are CANCELED at once, here."
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="Cancel the jobs of this device alone; the others go on.",
            autocompletion=complete_device,
        ),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Cancel a campaign: devices stop their jobs, what is measured stays.

    With --force the campaign has ended when the command returns; devices are told to stop as soon
    as they can hear, and what they still report is kept as late reports.
    """
    from fleetmark_collector.campaigns.steering import cancel_campaign, cancel_device
    from fleetmark_collector.campaigns.wording import NO_COLLECTOR

    settings = settings_from(config, data_dir)
    store = existing_store(settings)
    try:
        before = store.campaign(campaign_id)
        if device is None:
            cancel_campaign(store.file, campaign_id, time.time_ns(), force=force)
        else:
            _check_device(device, store.jobs(campaign_id))
            cancel_device(store.file, campaign_id, device, time.time_ns(), force=force)
        after = store.campaign(campaign_id)
    finally:
        store.close()
    view, alive = look(settings, campaign_id)
    if as_json:
        print_json(status_json(view, alive))
        return
    out = console()
    if before.state.terminal:
        say(out, f"Campaign {campaign_id} has ended already: {before.state}.")
        return
    mine = [job for job in view.jobs if device is None or job.device == device]
    running = sum(not job.state.terminal for job in mine)
    whose = f" of {device}" if device is not None else ""
    if running:
        jobs = f"{running} job(s){whose}"
        say(out, f"Campaign {campaign_id}: asked devices to stop {jobs} under way.")
    elif after.state.terminal:
        how = "the devices were not waited for" if force else "no job was under way"
        say(out, f"Campaign {campaign_id}: {after.state}; {how}.")
    else:
        say(out, f"Campaign {campaign_id}: the jobs{whose} have ended; the others go on.")
    if not alive and (running or force):
        say(out, f"note: {NO_COLLECTOR}")


def _check_device(device: str, jobs: "list[JobRow]") -> None:
    from fleetmark_protocol.settings import suggestion

    there = sorted({job.device for job in jobs})
    if device not in there:
        raise ConfigError(f"--device {device}: not in this campaign{suggestion(device, there)}")
