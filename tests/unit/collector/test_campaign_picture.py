"""What a terminal of few rows shows of a campaign on many devices: what counts is never cut off."""

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from fakes.fake_fleet import CAMPAIGN, FakeDevice, FakeWorld
from fleetmark_collector.campaigns.picture import Picture, by_interest, draw
from fleetmark_collector.campaigns.view import View, gather
from fleetmark_collector.campaigns.watch import watch_campaign
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_protocol.jobs import JobState

DEVICES = 120
ONE_CELL = CAMPAIGN.replace("[Q8_0, Q4_0]", "Q8_0").replace("[1, 2]", "1")
ROLLOUT = "rollout: {devices_at_once: 4}\n"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A campaign on many devices: some have failed, one is away, four at a time are at work."""
    devices = [FakeDevice(f"pi-{number:03d}") for number in range(DEVICES)]
    for device in devices[:8]:
        device.ends = {"001": JobState.FAILED}
    devices[-1].online = False
    world = FakeWorld(tmp_path_factory.mktemp("fleet"), *devices)
    world.submit(text=ONE_CELL + ROLLOUT)
    for _ in range(18):
        world.step()
    yield world
    world.close()


@pytest.fixture(scope="module")
def view(fleet) -> View:
    store = fleet.store()
    try:
        return gather(store, fleet.reader, fleet, "c1", fleet.now_ns)
    finally:
        store.close()


def lines_of(view, height, width=80, alive=True) -> list[str]:
    console = Console(file=io.StringIO(), height=height, width=width, force_terminal=False)
    console.print(Picture(view, alive))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("height", [12, 24, 40])
def test_counts_progress_and_failures_stand_above_as_many_devices_as_fit(view, height):
    lines = lines_of(view, height)
    assert len(lines) < height
    assert height - len(lines) <= 2
    text = "\n".join(lines)
    table = text.index("device ")
    assert text.index("8 FAILED") < table
    assert text.index("%, ") < table
    assert text.index("roll-out: 4 of at most 4 devices at work") < table
    assert text.index("pi-00") < table
    assert "BACKEND: as told" in text[:table]
    shown = [line.split()[0] for line in text[table:].splitlines()[1:-1]]
    away = "" if f"pi-{DEVICES - 1}" in shown else " (1 offline)"
    assert lines[-1] == f"and {DEVICES - len(shown)} more{away}"


def test_devices_at_work_come_first_then_those_in_trouble(view):
    order = by_interest(view)
    at_work = [one.device for one in order[:4]]
    assert all(one.job is not None for one in order[:4])
    assert at_work != [f"pi-{number:03d}" for number in range(4)]
    assert {one.device for one in order[4:12]} == {f"pi-{number:03d}" for number in range(8)}
    assert order[12].device == f"pi-{DEVICES - 1}"  # away, with a job to do
    assert len(order) == DEVICES
    lines = "\n".join(lines_of(view, 24))
    assert all(device in lines for device in at_work)


def test_a_device_that_went_away_with_a_job_stands_first(view):
    gone = by_interest(view)[3]
    devices = [replace(one, online=one.online and one != gone) for one in view.devices]
    assert by_interest(replace(view, devices=tuple(devices)))[0].device == gone.device


@pytest.mark.parametrize(("height", "width"), [(10, 80), (10, 40), (5, 80), (3, 20), (1, 10)])
def test_the_smallest_terminals_show_what_counts_and_break_nothing(view, height, width):
    lines = lines_of(view, height, width)
    assert lines[0].startswith("c1")
    if width == 80:
        assert any("8 FAILED" in line for line in lines[:3])
        assert any("trials" in line for line in lines[:4])
    if height == 10 and width == 80:
        assert len(lines) < height


def test_where_all_devices_fit_nothing_is_left_out(view):
    lines = lines_of(view, 200)
    assert sum(line.startswith("pi-") and "line" in line for line in lines) == DEVICES
    assert " more" not in lines[-1]
    few = replace(view, devices=view.devices[:3])
    assert [line for line in lines_of(few, 24) if " more (" in line] == []


def test_many_notes_leave_room_for_devices(view):
    notes = tuple(f"pi-{number} does not say its time zone" for number in range(100))
    noted = replace(view, situation=replace(view.situation, notes=notes))
    lines = lines_of(noted, 24)
    assert "and 98 more notes" in lines
    assert any(line.startswith("and ") and "offline" in line for line in lines)


def test_show_has_every_device(view):
    console = Console(file=io.StringIO(), height=24, width=80, force_terminal=False)
    console.print(draw(view, True))
    text = console.file.getvalue()
    assert all(f"pi-{number:03d}" in text for number in range(DEVICES))


def test_a_long_cell_does_not_hide_how_far_its_job_is(view):
    long = [
        replace(one, job=replace(one.job, cell="c" * 100)) if one.job else one
        for one in view.devices
    ]
    lines = lines_of(replace(view, devices=tuple(long)), 24)
    assert sum("/3 trials: cccc" in line for line in lines) >= 1
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert len(lines) < 24


def test_watching_on_a_small_terminal_never_crops_what_counts(fleet):
    settings = CollectorSettings(data_dir=fleet.directory)
    DeviceRegistry(settings.state_file).beat(time.time_ns(), {})
    console = Console(file=io.StringIO(), height=24, width=80, force_terminal=True)
    drawn: list[str] = []

    def look(_seconds: float) -> None:
        drawn.append(console.file.getvalue())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch_campaign(settings, "c1", console, sleep=look)
    (text,) = drawn
    assert "8 FAILED" in text
    assert "trials" in text
    assert "as told" in text
    assert "\n..." not in text
