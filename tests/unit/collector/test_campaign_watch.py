"""What an operator sees of a campaign, and what is told where there is no terminal."""

import io
import time

import pytest
from rich.console import Console

from fakes.fake_fleet import EPOCH, FakeDevice, FakeWorld
from fleetmark_collector.campaigns.picture import draw
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.campaigns.view import gather
from fleetmark_collector.campaigns.watch import changes, command_line, watch_campaign
from fleetmark_collector.campaigns.wording import NO_COLLECTOR, duration_text
from fleetmark_collector.config import CollectorSettings, default_data_dir
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure, TelemetryRecord


@pytest.fixture
def world(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi-1", ends={"002": JobState.FAILED}))
    world.submit()
    yield world
    world.close()


def look(world, campaign_id="c1"):
    store = world.store()
    try:
        return gather(store, world.reader, world, campaign_id, world.now_ns)
    finally:
        store.close()


def shown(view, alive=True) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(draw(view, alive))
    return console.file.getvalue()


def test_the_view_counts_trials_and_names_the_job_under_way(world):
    for _ in range(4):
        world.step()
    sample = TelemetryRecord(time_ns=1, boot_id=EPOCH, cpu_percent=42.4, mem_used_percent=71.6)
    world.sink.write([Stored("lab", "pi-1", EPOCH, 900, sample)])
    view = look(world)
    (device,) = view.devices
    assert device.job.job_id == "c1.pi-1.001"
    assert (device.cpu_percent, device.temperature_c) == (42.4, None)
    assert (view.trials_stored, view.trials_planned) == (2, 12)
    picture = shown(view)
    for piece in ("pi-1", "online", "42", "72", "2/3 trials", "1 IN_PROGRESS", "3 QUEUED"):
        assert piece in picture


def test_an_offline_devices_old_figures_are_not_shown(world):
    sample = TelemetryRecord(time_ns=1, boot_id=EPOCH, cpu_percent=42.4)
    world.sink.write([Stored("lab", "pi-1", EPOCH, 900, sample)])
    world.devices[0].online = False
    assert look(world).devices[0].cpu_percent is None


def test_the_end_is_foretold_from_the_pace_so_far(world):
    assert look(world).eta_s is None
    for _ in range(9):
        world.step(10)
    view = look(world)
    assert view.eta_s is not None
    assert view.eta_s > 0
    for _ in range(40):
        world.step(10)
    assert look(world).eta_s is None


def test_a_job_that_ends_without_its_trials_does_not_hold_the_bar_back(world):
    for _ in range(40):
        world.step()
    view = look(world)
    assert view.trials_settled == view.trials_planned
    assert view.trials_stored == 8


def test_the_picture_says_that_no_collector_is_running(world):
    assert NO_COLLECTOR in shown(look(world), alive=False).replace("\n", " ")
    assert NO_COLLECTOR not in shown(look(world), alive=True)


def test_what_a_device_says_cannot_draw_on_the_terminal(world):
    store = world.store()
    evil = Failure(code="BACKEND", message="[red]a[/] \x1b[2J\nb\x07")
    store.set_job_state("c1.pi-1.001", JobState.FAILED, failure=evil)
    store.close()
    picture = shown(look(world))
    assert "[red]a[/]" in picture
    assert "\x1b" not in picture
    assert "\x07" not in picture
    assert all("\n" not in line and "\x1b" not in line for line in changes(None, look(world), True))


def test_lines_tell_each_change_once(world):
    lines, old = [], None
    for _ in range(40):
        world.step()
        new = look(world)
        lines += changes(old, new, True)
        old = new
    assert sum("job 001" in line and line.endswith("IN_PROGRESS") for line in lines) == 1
    assert sum("job 001" in line and "SUCCEEDED" in line for line in lines) == 1
    assert sum("job 002" in line and "FAILED: BACKEND: as told" in line for line in lines) == 1
    assert lines[-1].startswith("100%")


def test_lines_tell_when_a_device_goes_and_comes(world):
    before = look(world)
    world.devices[0].online = False
    gone = look(world)
    assert "pi-1 is offline" in changes(before, gone, True)
    world.devices[0].online = True
    assert "pi-1 is online again" in changes(gone, look(world), True)


def test_lines_tell_when_the_collector_goes_and_comes(world):
    view = look(world)
    assert changes(view, view, alive=False, was_alive=True) == [NO_COLLECTOR]
    assert changes(view, view, alive=False, was_alive=False) == []
    assert changes(view, view, alive=True, was_alive=False) == ["a collector is running again"]


def test_watching_ends_with_the_campaign_and_says_how_to_get_the_report(world, tmp_path):
    settings = CollectorSettings(data_dir=tmp_path)
    DeviceRegistry(settings.state_file).beat(time.time_ns(), {})
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    state = watch_campaign(settings, "c1", console, sleep=lambda _: world.step())
    assert state is CampaignState.FAILED
    text = console.file.getvalue()
    assert "Campaign c1 FAILED: 1 FAILED, 3 SUCCEEDED; 8 of 12 trials in the store." in text
    assert f"fleetmark report c1 --data-dir {tmp_path}" in text
    assert NO_COLLECTOR not in text


def test_on_a_terminal_one_picture_is_kept_up_to_date(world, tmp_path):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    settings = CollectorSettings(data_dir=tmp_path)
    state = watch_campaign(settings, "c1", console, sleep=lambda _: world.step())
    assert state is CampaignState.FAILED
    assert "1 FAILED" in console.file.getvalue()


def test_watching_what_is_not_there_is_the_users_mistake(world, tmp_path):
    with pytest.raises(ConfigError, match="no campaign 'c2'"):
        watch_campaign(CollectorSettings(data_dir=tmp_path), "c2", Console(file=io.StringIO()))


def test_a_command_to_copy_names_the_data_directory_only_where_needed(tmp_path):
    assert command_line(CollectorSettings(data_dir=default_data_dir()), "x") == "fleetmark x"
    there = CollectorSettings(data_dir=tmp_path / "a b")
    assert command_line(there, "x") == f"fleetmark x --data-dir '{tmp_path}/a b'"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (59.6, "1:00"), (61, "1:01"), (3725, "1:02:05")]
)
def test_a_time_to_wait_is_written_as_people_read_it(seconds, text):
    assert duration_text(seconds) == text
