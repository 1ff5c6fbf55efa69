"""Schedules by the centre's clock, on real processes: missed runs, wrong devices, DST changes."""

import json
import time
from contextlib import closing

import pytest

from behaviour import Records, jobs
from fleetmark_collector.campaigns.recurrence import NS, moment, zone_named
from fleetmark_collector.campaigns.schedules import ScheduleStore
from servers import wait_for

pytestmark = pytest.mark.chaos

BERLIN = zone_named("Europe/Berlin")
TOKYO = zone_named("Asia/Tokyo")
UTC = zone_named("UTC")
LEAD_NS = 2 * NS
"""A collector is started this long before what it is to see; a later start is no miss yet."""
SEVERAL_JOBS_S = 300
"""Jobs run one after another, each with an engine of its own that loads: slow cores take long."""


class Centre:
    """A fleet whose collector and commands believe that it is another time."""

    def __init__(self, fleet):
        self.fleet = fleet

    def at(self, time_ns):
        """Start the collector by a clock that shows this; the one that was there was killed."""
        if "collector" in self.fleet.names():
            self.fleet.kill("collector")
        self.fleet.centre_ahead_s = (time_ns - time.time_ns()) // NS
        self.fleet.start_collector()

    def device(self, device, ahead_s=0, toml=""):
        """Start one whose clock is that much ahead of what the centre's is now."""
        self.fleet.start_agent(device, toml, ahead_s=self.fleet.centre_ahead_s + ahead_s)

    def add(self, name, cron, *, zone="UTC", **changes):
        keys = {"cron": cron, "time_zone": zone, **changes.pop("schedule", {})}
        file = self.fleet.write_campaign(repetitions=1, name=name, schedule=keys, **changes)
        done = self.fleet.cli("campaign", "schedule", str(file))
        assert done.returncode == 0, done.stderr

    def runs(self, name):
        """Return the runs of a schedule, oldest first; a command for each look took too long."""
        with closing(ScheduleStore(self.fleet.data_dir / "state.db")) as store:
            return [run for run, _ in reversed(store.runs(name, 100))]

    def wait_for_runs(self, name, number, timeout_s=60):
        wait_for(lambda: len(self.runs(name)) >= number, timeout_s, f"{number} runs of {name}")
        return self.runs(name)[-1]

    def wait_for_end(self, run, devices=1):
        assert self.fleet.wait_for_end(run.campaign_id, SEVERAL_JOBS_S) == "SUCCEEDED"
        self.fleet.assert_each_trial_once(run.campaign_id, 2 * devices)

    def show(self, name):
        """Return when and what became of it, and why, as an operator sees it, oldest first."""
        done = self.fleet.cli("schedule", "show", name, "--json")
        assert done.returncode == 0, done.stderr
        runs = json.loads(done.stdout)["runs"][::-1]
        return [(run["due_ns"], run["outcome"], run["reason"]) for run in runs]

    def next(self, name, number=2):
        """Return the next times as the zone's clocks show them."""
        done = self.fleet.cli("schedule", "next", name, "-n", str(number), "--json")
        assert done.returncode == 0, done.stderr
        return [one["in_time_zone"] for one in json.loads(done.stdout)]

    def campaigns(self, name):
        """Return the campaigns that are there, whatever the schedule says of them."""
        listed = json.loads(self.fleet.cli("campaign", "list", "--json").stdout)
        return sorted(one["campaign_id"] for one in listed if one["schedule"] == name)


@pytest.fixture
def centre(fleet):
    yield Centre(fleet)
    for name in fleet.names():
        fleet.kill(name)


def test_runs_that_were_missed_while_no_collector_was_there_follow_the_policy(centre, fleet):
    centre.at(moment("2027-01-10T01:50", UTC))
    centre.device("pi-sim")
    fleet.wait_for_devices("pi-sim")
    for policy in ("skip", "once"):
        centre.add(policy, "0 2 * * *", schedule={"missed": policy})
    fleet.kill("collector")
    # Three runs fell due meanwhile; the last of them seven hours ago.
    _, second, third, fourth = (moment(f"2027-01-{day}T02:00", UTC) for day in range(10, 14))
    centre.at(third + 7 * 3600 * NS)
    late = centre.wait_for_runs("once", 2)
    centre.wait_for_end(late)
    since = "no collector was at work; so were all since 2027-01-10 02:00:00 UTC"
    missed_at_last = [(third, "missed", since)]
    run_late = [
        (second, "missed", since),
        (third, "started", "late: no collector was at work when it came due"),
    ]
    assert centre.show("skip") == missed_at_last
    assert centre.show("once") == run_late
    assert late.noted_ns >= third + 7 * 3600 * NS
    assert (centre.campaigns("skip"), centre.campaigns("once")) == ([], [late.campaign_id])
    # What comes next is not missed, whatever the policy.
    centre.at(fourth - LEAD_NS)
    for name, number in (("skip", 2), ("once", 3)):
        centre.wait_for_runs(name, number)
    assert centre.show("skip") == [*missed_at_last, (fourth, "started", "")]
    assert centre.show("once") == [*run_late, (fourth, "started", "")]


def test_a_run_that_comes_due_before_the_last_has_ended_follows_the_policy(centre, fleet):
    """The device is away, so nothing ends; when it is back, everything does."""
    dues = [moment(f"2027-01-10T02:{minute}", UTC) for minute in (10, 20, 30)]
    centre.at(moment("2027-01-10T02:00", UTC))
    centre.device("pi-sim")
    fleet.wait_for_devices("pi-sim")
    policies = ("skip", "queue", "replace")
    for policy in policies:
        centre.add(policy, "10,20,30 2 * * *", schedule={"overlap": policy})
    fleet.kill("pi-sim")
    for number, due_ns in enumerate(dues, start=1):
        centre.at(due_ns - LEAD_NS)
        for policy in policies:
            centre.wait_for_runs(policy, number)
    (first,), replacing = centre.campaigns("queue"), centre.campaigns("replace")
    (skipping,) = centre.campaigns("skip")
    told = {policy: [run[1:] for run in centre.show(policy)] for policy in policies}
    started = ("started", "")
    assert told == {
        "skip": [started, *[("skipped", f"{skipping} had not ended")] * 2],
        "queue": [
            started,
            ("queued", f"{first} had not ended"),
            (
                "skipped",
                f"{first} had not ended, and the run of 2027-01-10 02:20:00 UTC waits",
            ),
        ],
        "replace": [started, *[("started", f"in place of {one}") for one in replacing[:2]]],
    }
    assert len(replacing) == 3
    centre.device("pi-sim")
    # What the others have sent may come before the one that it waits for.
    waited = centre.wait_for_runs("queue", 4, SEVERAL_JOBS_S)
    assert (waited.due_ns, waited.outcome) == (dues[1], "started")
    assert waited.reason == "waited for the run before it to end"
    assert centre.campaigns("queue") == [first, waited.campaign_id]
    for campaign_id in (skipping, first, replacing[-1], waited.campaign_id):
        assert fleet.wait_for_end(campaign_id, SEVERAL_JOBS_S) == "SUCCEEDED"
        fleet.assert_each_trial_once(campaign_id, 2)
    ends = [fleet.wait_for_end(one, SEVERAL_JOBS_S) for one in replacing[:2]]
    assert ends == ["CANCELED"] * 2


def test_devices_with_wrong_clocks_run_when_it_is_due_by_the_centres_clock(centre, fleet):
    """In windows of their own zones, too: what counts is what the centre's clock shows there."""
    due_ns = moment("2027-01-10T03:00", BERLIN)
    opens_ns = moment("2027-01-11T02:00", TOKYO)
    centre.at(due_ns - 600 * NS)
    # When it is due it is 09:00 of the next day by the one, 03:00 of the day before by the other:
    # the first would be outside of its window then, and the second, wrongly, inside.
    ahead_h = {"berlin": 30, "tokyo": -32}
    centre.device("berlin", ahead_h["berlin"] * 3600, 'time_zone = "Europe/Berlin"\n')
    centre.device("tokyo", ahead_h["tokyo"] * 3600, 'time_zone = "Asia/Tokyo"\n')
    fleet.wait_for_devices("berlin", "tokyo")
    windows = {"times": ["02:00-04:00"], "time_zone": "device"}
    centre.add("nightly", "0 3 * * *", zone="Europe/Berlin", windows=windows)
    assert centre.runs("nightly") == [], "a device whose clock is past it changes nothing"
    centre.at(due_ns - LEAD_NS)
    run = centre.wait_for_runs("nightly", 1)
    assert (run.due_ns, run.outcome) == (due_ns, "started")
    assert 0 <= run.noted_ns - due_ns < 30 * NS

    def by_device():
        return {job.device: job for job in jobs(fleet, run.campaign_id)}

    wait_for(lambda: by_device()["berlin"].state.terminal, SEVERAL_JOBS_S, "one end")
    assert by_device()["tokyo"].assigned_ns is None
    centre.at(opens_ns - LEAD_NS)
    centre.wait_for_end(run, devices=2)
    sent_ns = {device: job.assigned_ns for device, job in by_device().items()}
    assert 0 <= sent_ns["berlin"] - due_ns < 30 * NS
    assert 0 <= sent_ns["tokyo"] - opens_ns < 30 * NS
    assert centre.campaigns("nightly") == [run.campaign_id]
    # What they have measured they have put where their own clocks were.
    began = {one.job_id: one.time_ns for one in Records(fleet, run.campaign_id).trials}
    off_h = {
        device: (began[job.job_id] - sent_ns[device]) / 3600e9
        for device, job in by_device().items()
    }
    assert off_h["berlin"] == pytest.approx(ahead_h["berlin"], abs=1)
    # The centre's clock was put forward to its window, its own was not.
    put_forward_h = (opens_ns - due_ns) / 3600e9
    assert off_h["tokyo"] == pytest.approx(ahead_h["tokyo"] - put_forward_h, abs=1)


@pytest.mark.parametrize(
    ("before", "due", "again", "hours", "then"),
    [
        pytest.param(
            "2027-03-28T01:50+01:00",
            # There is no 02:30 that day: it runs when the clocks have jumped to 03:00.
            "2027-03-28T03:00+02:00",
            # Had they not jumped, it were 02:30 now.
            "2027-03-28T03:30+02:00",
            ["2027-03-28T03:30+02:00"],
            ["2027-03-29T02:30:00+02:00", "2027-03-30T02:30:00+02:00"],
            id="an_hour_left_out",
        ),
        pytest.param(
            "2027-10-31T02:20+02:00",
            "2027-10-31T02:30+02:00",
            # The clocks show 02:30 for the second time.
            "2027-10-31T02:30+01:00",
            ["2027-10-31T02:30+02:00", "2027-10-31T02:30+01:00"],
            ["2027-11-01T02:30:00+01:00", "2027-11-02T02:30:00+01:00"],
            id="an_hour_that_comes_twice",
        ),
    ],
)
def test_a_night_in_which_clocks_change_has_one_run(centre, fleet, before, due, again, hours, then):
    """Another schedule goes by every hour that the clocks show: it tells that time has passed."""
    due_ns, again_ns = moment(due, BERLIN), moment(again, BERLIN)
    centre.at(moment(before, BERLIN))
    centre.device("pi-sim")
    fleet.wait_for_devices("pi-sim")
    centre.add("nightly", "30 2 * * *", zone="Europe/Berlin")
    centre.add("hourly", "30 * * * *", zone="Europe/Berlin", schedule={"overlap": "replace"})
    assert centre.next("nightly") == [moment_of(due), then[0]]
    centre.at(due_ns - LEAD_NS)
    run = centre.wait_for_runs("nightly", 1)
    assert (run.due_ns, run.outcome) == (due_ns, "started")
    assert 0 <= run.noted_ns - due_ns < 30 * NS
    centre.wait_for_end(run)
    centre.at(again_ns - LEAD_NS)
    centre.wait_for_runs("hourly", len(hours))
    passed = [(one.due_ns, one.outcome) for one in centre.runs("hourly")]
    assert passed == [(moment(one, BERLIN), "started") for one in hours]
    assert centre.runs("nightly") == [run]
    assert centre.campaigns("nightly") == [run.campaign_id]
    assert centre.next("nightly") == then


def moment_of(text):
    """Return a time as `schedule next` writes it."""
    return text[:16] + ":00" + text[16:]
