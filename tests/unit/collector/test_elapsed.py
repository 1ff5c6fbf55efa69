"""How long a campaign takes from start to end, with windows and a roll-out that hold it back."""

from datetime import UTC, datetime

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, make_campaign, make_inventory
from fleetmark_collector.campaigns.duration import Span
from fleetmark_collector.campaigns.elapsed import Busy, beyond_windows, from_start_to_end

NOON_NS = int(datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()) * 10**9  # a Monday
HOUR_S = 3600.0
NIGHTS = "windows: {times: 22:00-02:00, time_zone: UTC}\n"


def busy(*hours, name="pi", zone=None, machine=None):
    inventory = make_inventory(time_zone=zone)
    if machine is not None:
        hardware = inventory.hardware.model_copy(update={"machine_id": machine})
        inventory = inventory.model_copy(update={"hardware": hardware})
    seconds = (one * HOUR_S for one in hours)
    jobs = tuple((f"cell {n}", Span(s / 2, s, 2 * s)) for n, s in enumerate(seconds, 1))
    return Busy(FakeDevice(name, inventory=inventory), jobs)


def hours(tmp_path, more, *devices):
    span = from_start_to_end(make_campaign(tmp_path, CAMPAIGN + more), devices, NOON_NS)
    return [one / HOUR_S for one in (span.low, span.likely, span.high)]


def test_devices_work_side_by_side_and_agents_of_one_machine_in_turn(tmp_path):
    assert hours(tmp_path, "", busy(1, 1), busy(3, name="pi-2")) == [1.5, 3, 6]
    same = busy(1, machine="a"), busy(3, machine="a", name="pi-2")
    assert hours(tmp_path, "", *same) == [2, 4, 8]


def test_without_devices_it_takes_no_time(tmp_path):
    assert hours(tmp_path, NIGHTS) == [0, 0, 0]


def test_hours_in_which_windows_are_closed_count(tmp_path):
    # From noon the window opens after ten hours; each is four hours long.
    assert hours(tmp_path, NIGHTS, busy(2)) == [11, 12, 14]
    assert hours(tmp_path, NIGHTS, busy(1, 2))[1] == 13


def test_a_job_waits_for_a_window_into_which_it_fits(tmp_path):
    # The second job would need three of the two hours that are left of the first night.
    assert hours(tmp_path, NIGHTS, busy(2, 3))[1] == 24 + 10 + 3


def test_a_job_that_fits_into_no_window_is_begun_all_the_same(tmp_path):
    assert hours(tmp_path, NIGHTS, busy(5))[1] == 15


def test_windows_go_by_the_time_zone_of_each_device(tmp_path):
    own = "windows: {times: 22:00-02:00}\n"
    assert hours(tmp_path, own, busy(1, zone="UTC"))[1] == 11
    assert hours(tmp_path, own, busy(1, zone="Europe/Berlin"))[1] == 9


def test_a_roll_out_holds_devices_and_jobs_back(tmp_path):
    devices = [busy(1, name=f"pi-{number}") for number in range(6)]
    assert hours(tmp_path, "rollout: {devices_at_once: 2}\n", *devices)[1] == pytest.approx(3)
    slow = "rollout: {jobs_per_minute: 0.025}\n"
    assert hours(tmp_path, slow, *devices)[1] == pytest.approx(5 * 40 / 60)
    growth = "growth: {after_successes: 1, jobs_per_minute_max: 60}"
    growing = slow.replace("0.025}", f"0.025, {growth}}}")
    assert hours(tmp_path, growing, *devices)[1] == 1


def beyond(tmp_path, more, *devices):
    campaign = make_campaign(tmp_path, CAMPAIGN + more)
    span = from_start_to_end(campaign, devices, NOON_NS)
    problems = beyond_windows(campaign, devices, span, NOON_NS)
    return [line.split(": ", 1)[1] for line in campaign.source.lines(list(problems))]


def test_a_job_longer_than_any_window_is_told_with_what_becomes_of_it(tmp_path):
    assert beyond(tmp_path, NIGHTS, busy(3)) == []
    assert beyond(tmp_path, NIGHTS, busy(1, 5)) == [
        "windows.times: cell 2 on pi would take about 18000 s (9000 to 36000 s) and go on past its "
        "window: no window is longer than 14400 s"
    ]
    (cancel,) = beyond(tmp_path, NIGHTS.replace("UTC}", "UTC, at_end: cancel}"), busy(5))
    assert "and never end: no window" in cancel


def test_a_campaign_that_its_windows_make_too_long_is_told(tmp_path):
    tight = NIGHTS + "timeouts: {campaign_s: 90000}\n"
    assert beyond(tmp_path, tight, busy(2, 2)) == []
    (said,) = beyond(tmp_path, tight, busy(3, 3))
    assert said == (
        "windows: within its windows the campaign would take about 133200 s (46800 to 144000 s) "
        "from start to end, more than timeouts.campaign_s (90000 s)"
    )


def test_without_windows_nothing_is_beyond_them(tmp_path):
    assert beyond(tmp_path, "timeouts: {campaign_s: 60}\n", busy(5)) == []
