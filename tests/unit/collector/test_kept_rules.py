"""What an older version has kept goes on as it did, although a new file may not say it any more."""

from contextlib import closing

import pytest

from fakes.fake_fleet import CAMPAIGN, START_NS, FakeDevice, make_campaign, make_inventory
from fleetmark_collector.campaigns.bounds import MAX_COUNT, MAX_S, MAX_USD
from fleetmark_collector.campaigns.due import next_step
from fleetmark_collector.campaigns.recurrence import moment
from fleetmark_collector.campaigns.schedule_keys import read_keys
from fleetmark_collector.campaigns.selfcontained import load_text
from fleetmark_collector.sqlitefile import connect
from fleetmark_protocol.errors import ConfigError, StoreError
from schedules import UTC, Centre

LONG = (
    "timeouts: {campaign_s: 1.0e+9, load_s: 1.0e+9, trial_s: 4000000000, job_s: 1.0e+300}\n"
    "quiet_gate: {timeout_s: 1.0e+9}\n"
    "cool_down: {temperature_c: 50, timeout_s: 1.0e+9}\n"
    "retries: {max: 1, backoff_s: 1.0e+9, backoff_max_s: 1.0e+10, on: [CANCELED, FAILED]}\n"
    "limits: {duration_s: 1.0e+9, cost_usd: 1.0e+13}\n"
    "cost: {usd_per_hour: {pi: 1.0e+13}}\n"
    "rollout: {devices_at_once: 10000000000, jobs_per_minute: 1.0e-9}\n"
    "abort: {of: failed, share_percent: 50, after_devices: 10000000000}\n"
)
OLDER = [
    pytest.param(CAMPAIGN + one, id=one.split("{")[-1].strip()[:30])
    for one in (
        *LONG.splitlines(keepends=True)[:4],
        "limits: {duration_s: 1.0e+9}\n",
        "cost: {usd_per_hour: {pi: 1.0e+13}}\n",
        "rollout: {devices_at_once: 10000000000}\n",
        'schedule: {cron: "*/90 * * * *"}\n',
        'schedule: {cron: "0 2 * * *", end: 1969-12-31}\n',
        'schedule: {cron: "0 2 * * *", start: 2300-01-01, end: 2400-01-01}\n',
    )
] + [
    pytest.param(CAMPAIGN.replace("version: 1", "version: 1.0"), id="version-1.0"),
    pytest.param(CAMPAIGN.replace("version: 1", "version: true"), id="version-true"),
    pytest.param(
        CAMPAIGN.replace("repetitions: 2", "repetitions: 2, output_tokens: 4096"),
        id="a-long-answer",
    ),
    pytest.param(
        CAMPAIGN.replace(
            "repetitions: 2", "repetitions: {half_width_percent: 5, budget_s: 1.0e+9}"
        ),
        id="budget",
    ),
]


@pytest.fixture
def centre(tmp_path):
    made = Centre(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("text", OLDER)
def test_what_is_refused_in_a_new_file_still_runs_where_it_was_kept(centre, tmp_path, text):
    with pytest.raises(ConfigError):
        make_campaign(tmp_path, text)
    centre.add(text=text)
    centre.at("2026-12-02T02:00:00")
    ((run, _),) = centre.schedules.runs("nightly", 9)
    assert (run.outcome, run.reason) == ("started", "")
    assert len(centre.campaigns.jobs(run.campaign_id)) == 4


def test_its_numbers_are_brought_within_the_bounds(tmp_path):
    file = tmp_path / "kept.yaml"
    kept = load_text(CAMPAIGN + LONG, file, kept=True)
    times = kept.timeouts
    assert {kept.campaign_s, times.load_s, times.trial_s, times.job_s} == {MAX_S}
    assert {kept.quiet_gate.timeout_s, kept.cool_down.timeout_s} == {MAX_S}
    assert (kept.limits.duration_s, kept.limits.cost_usd) == (MAX_S, MAX_USD)
    assert kept.cost.usd_per_hour == {"pi": MAX_USD}
    assert kept.policy.retries.on == ("CANCELED", "FAILED")
    assert kept.policy.retries.backoff_max_s == MAX_S
    assert kept.policy.rollout.devices_at_once == MAX_COUNT
    assert kept.policy.abort[0].after_devices == MAX_COUNT
    with pytest.raises(ConfigError):
        load_text(CAMPAIGN + LONG, file)


@pytest.mark.parametrize(
    "text",
    [
        CAMPAIGN + "timeouts: {campaign_s: -1}\n",
        CAMPAIGN + "retries: {max: 1, on: [NONE]}\n",
        CAMPAIGN.replace("version: 1", "version: 2"),
        CAMPAIGN + 'schedule: {cron: "0 2 30 2 *"}\n',
    ],
)
def test_what_no_version_has_taken_is_refused_all_the_same(tmp_path, text):
    with pytest.raises(ConfigError):
        load_text(text, tmp_path / "kept.yaml", kept=True)


@pytest.mark.parametrize("text", OLDER)
def test_a_campaign_that_takes_newcomers_goes_on_taking_them(make_world, text):
    world = make_world(FakeDevice("pi-1", inventory=make_inventory(tags=("bench",))))
    wide = "{tags: [bench], selection: continuous}"
    world.submit(text=CAMPAIGN.replace("{all: true}", wide))
    with closing(connect(world.state_file, "rwc")) as db:
        text = text.replace("{all: true", f"{wide[:-1]}")
        db.execute("UPDATE campaigns SET inlined = ?", (text,))
    world.devices.append(FakeDevice("pi-2", inventory=make_inventory(tags=("bench",))))
    world.step()
    assert {job.device for job in world.jobs().values()} == {"pi-1", "pi-2"}


# --- rows of schedules -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        '{"cron":"0 2 * * *","end":"1969-12-31"}',
        '{"cron":"0 2 * * *","start":"1950-01-01","end":"1969-12-31"}',
        '{"cron":"0 2 * * *","start":"2300-01-01"}',
        '{"cron":"0 2 * * *","start":"2300-01-01","end":"2400-01-01"}',
        '{"cron":"0 2 * * *","start":"0001-01-01","end":"9999-12-31"}',
    ],
)
def test_a_kept_schedule_without_a_lawful_time_is_read_and_has_none_or_a_lawful_one(keys):
    kept = read_keys("s", keys)
    following = kept.recurrence.next(START_NS)
    assert following is None or START_NS < following < 2**63
    step = next_step(kept, START_NS, None, [], START_NS)
    assert step is not None


def test_a_step_larger_than_its_field_goes_on_as_it_did(centre):
    centre.add(cron="*/90 * * * *")
    assert centre.schedules.get("nightly").next_ns == moment("2026-12-01T13:00", UTC)
    for hour in (13, 14):
        centre.at(f"2026-12-01T{hour}:00:00")
    assert centre.outcomes() == ["started", "skipped"]


def test_a_row_that_no_version_wrote_is_still_told():
    with pytest.raises(StoreError, match="schedule s: this version cannot read"):
        read_keys("s", '{"cron":"*/0 * * * *"}')
