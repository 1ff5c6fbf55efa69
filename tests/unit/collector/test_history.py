"""How fast cells ran before, taken from real records in a real store."""

from contextlib import closing

import pytest

from collected import stored, trial
from fakes.fake_fleet import CAMPAIGN, START_NS, FakeDevice, make_campaign
from fleetmark_collector.campaigns.history import MAX_CAMPAIGNS, read_history
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure, JobRecord, LoadRecord

ONE_CELL = CAMPAIGN.replace("[Q8_0, Q4_0]", "Q8_0").replace("[1, 2]", "1")
CELL = "xllamacpp tiny Q8_0 threads=1"
SHA = "ab" * 32


class Past:
    """Campaigns that have run, with records of a job that went as a test says."""

    def __init__(self, directory):
        self.directory = directory
        self.now_ns = START_NS
        self.seq = 0
        self.store = CampaignStore(directory / "state.db", lambda: self.now_ns)
        self.sink = SqliteSink(directory / "store.db")
        self.reader = SqliteReader(directory / "store.db")

    def ran(self, campaign_id, records, device="pi"):
        campaign = make_campaign(self.directory, ONE_CELL)
        plan = make_plan(campaign, campaign_id, [FakeDevice(device)])
        self.now_ns += 10**9
        self.store.create(campaign, plan)
        job_id = plan.jobs[0].spec.job_id
        self.store.set_job_state(job_id, JobState.SUCCEEDED)
        named = [
            one.model_copy(update={"campaign_id": campaign_id, "job_id": job_id}) for one in records
        ]
        self.sink.write(
            [stored(one, self.seq + number, device) for number, one in enumerate(named, 1)]
        )
        self.seq += len(named)

    def history(self, sha256=None):
        return read_history(self.store, self.reader, {CELL: sha256})

    def close(self):
        self.store.close()
        self.reader.close()
        self.sink.close()


@pytest.fixture
def past(tmp_path):
    with closing(Past(tmp_path)) as made:
        yield made


def state(time_s, state, attempt=1):
    return JobRecord(
        time_ns=int(time_s * 1e9), campaign_id="c", job_id="c.pi.1", attempt=attempt, state=state
    )


def load(time_s, load_s):
    return LoadRecord(
        time_ns=int(time_s * 1e9),
        campaign_id="c",
        job_id="c.pi.1",
        attempt=1,
        backend="xllamacpp",
        model="tiny",
        load_s=load_s,
    )


def request(time_s, number, **more):
    """Ten prompt tokens in 0.5 s, then twenty tokens in 2 s."""
    usual = {
        "prompt_tokens": 10,
        "output_tokens": 20,
        "ttft_s": 0.5,
        "latency_s": 2.5,
        "model_sha256": SHA,
    }
    return trial(time_s, f"c.pi.1.one.{number}.0", model="tiny", **{**usual, **more})


# Begins at 100 s, waits 5 s for quiet and a worker, loads 3 s, five trials of 2.5 s with 0.5 s
# between them, ends with the last.
USUAL = [
    state(100, JobState.IN_PROGRESS),
    load(108, 3.0),
    *(request(108 + 3 * number, number) for number in range(5)),
    state(122.5, JobState.SUCCEEDED),
]


def test_a_jobs_time_is_taken_apart(past):
    past.ran("c1", USUAL)
    (pace,) = past.history().paces.values()
    assert (pace.load_s, pace.gap_s) == pytest.approx((3.0, 0.5))
    assert pace.start_s == pytest.approx(5.0)
    assert (pace.prefill_s, pace.decode_s) == pytest.approx((0.05, 0.1))
    assert (pace.jobs, pace.trials) == (1, 5)
    assert (pace.low, pace.high) == pytest.approx((1.0, 1.0))


def test_prompts_are_known_by_their_tokens(past):
    past.ran("c1", USUAL)
    assert past.history().prompt_tokens == {("tiny", "ab" * 32): 10}


def test_slow_and_fast_trials_make_the_estimate_wide(past):
    records = [request(10 * n, n, latency_s=2.0 + n / 5, ttft_s=0.5) for n in range(20)]
    past.ran("c1", records)
    (pace,) = past.history().paces.values()
    assert pace.low < 0.8
    assert pace.high > 1.2


def test_each_device_has_a_pace_of_its_own(past):
    past.ran("c1", USUAL)
    past.ran("c2", [request(n, n, latency_s=5.0) for n in range(5)], device="pi-2")
    paces = past.history().paces
    assert set(paces) == {("lab", "pi", CELL), ("lab", "pi-2", CELL)}
    assert paces["lab", "pi-2", CELL].decode_s > paces["lab", "pi", CELL].decode_s


def test_a_cold_trials_engine_start_is_no_gap(past):
    records = [state(0, JobState.IN_PROGRESS)]
    for number in range(3):
        at = 10 * number
        records += [load(at + 5, 3.0), request(at + 5, number, cold=True, load_s=3.0)]
    records.append(state(30, JobState.SUCCEEDED))
    past.ran("c1", records)
    (pace,) = past.history().paces.values()
    assert pace.gap_s == 0.0
    assert pace.start_s == pytest.approx(10 - 3.0 - 2.5)


def test_a_job_that_was_interrupted_says_nothing_about_starting(past):
    records = [*USUAL, state(105, JobState.IN_PROGRESS, attempt=2)]
    past.ran("c1", records)
    (pace,) = past.history().paces.values()
    assert pace.start_s == 0.0
    assert pace.trials == 5


def test_a_program_that_answers_once_has_only_a_time_in_all(past):
    records = [
        request(10 * n, n, latency_s=None, ttft_s=None, latency_cold_s=4.0) for n in range(5)
    ]
    past.ran("c1", records)
    (pace,) = past.history().paces.values()
    assert (pace.prefill_s, pace.decode_s) == (0.0, 0.2)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [request(1, 1, latency_s=None, failure=Failure(code="BACKEND", message="no"))],
    ],
)
def test_jobs_without_a_good_trial_tell_nothing(past, records):
    past.ran("c1", records)
    assert past.history().paces == {}


def test_a_model_of_the_same_name_that_is_another_file_is_not_taken_for_it(past):
    past.ran("c1", USUAL)
    assert past.history(sha256="cd" * 32).paces == {}
    assert len(past.history(sha256=SHA).paces) == 1


def test_only_the_newest_campaigns_are_looked_at(past):
    past.ran("old", [request(n, n, latency_s=50.0) for n in range(5)], device="slow")
    for number in range(MAX_CAMPAIGNS):
        past.ran(f"c{number}", [request(n, n) for n in range(2)])
    assert set(past.history().paces) == {("lab", "pi", CELL)}


def test_cells_that_nobody_asks_for_are_not_read(past):
    past.ran("c1", USUAL)
    assert read_history(past.store, past.reader, {"another cell": None}).paces == {}


def crowd(time_s, number, client, latency_s=5.0):
    """One request of a round of four; alone it would take half of its 5 s."""
    asked = {"workload": "crowd-4", "workload_kind": "concurrency", "repetition": number}
    answered = {"latency_s": latency_s, "ttft_s": 2.0}
    made = request(time_s, 0, clients=4, client=client, **asked, **answered)
    return made.model_copy(update={"trial_id": f"c.pi.1.crowd-4.{number}.{client}"})


def test_requests_made_at_the_same_time_do_not_count_as_the_pace_of_one(past):
    rounds = [crowd(130 + 6 * number, number, client) for number in range(3) for client in range(4)]
    past.ran("c1", [*USUAL[:-1], *rounds, state(147, JobState.SUCCEEDED)])
    (pace,) = past.history().paces.values()
    assert (pace.prefill_s, pace.decode_s) == pytest.approx((0.05, 0.1))
    assert pace.crowds == {4: pytest.approx(2.0)}
    assert pace.round_s(10, 20, 4) == pytest.approx(5.0)
    assert pace.start_s < 20  # what was asked at the same time passed once


def test_a_round_is_over_when_its_last_request_is(past):
    rounds = [
        crowd(108 + 8 * number, number, client, latency_s=5.0 + client / 2)
        for number in range(3)
        for client in range(4)
    ]
    ended = state(108 + 2 * 8 + 6.5, JobState.SUCCEEDED)
    past.ran("c1", [state(100, JobState.IN_PROGRESS), load(108, 3.0), *rounds, ended])
    (pace,) = past.history().paces.values()
    assert pace.gap_s == pytest.approx(8 - 6.5)
    assert pace.start_s == pytest.approx(5.0)


def test_where_only_crowds_were_seen_one_request_is_told_from_them(past):
    past.ran("c1", [crowd(100, 0, client) for client in range(4)])
    (pace,) = past.history().paces.values()
    assert pace.prefill_s < 2.0 / 10
    assert pace.round_s(10, 20, 4) == pytest.approx(5.0)
    assert pace.trial_s(10, 20) < pace.round_s(10, 20, 2) < pace.round_s(10, 20, 8)


def test_a_soak_on_a_hot_machine_does_not_slow_the_pace_of_the_others(past):
    hot = [
        request(200 + 6 * n, n, workload="heat", workload_kind="soak", soak_s=6.0 * n, latency_s=6)
        for n in range(50)
    ]
    past.ran("c1", [*USUAL, *hot])
    (pace,) = past.history().paces.values()
    assert pace.decode_s == pytest.approx(0.1)
    assert (pace.low, pace.high) == pytest.approx((1.0, 1.0))


def test_a_request_that_was_made_before_is_not_reckoned_from_those_of_other_sizes(past):
    # A prompt of two tokens takes as long as one of its output; of 256 tokens each is cheap.
    short = {"prompt_tokens": 2, "ttft_s": 0.2, "latency_s": 2.2}
    long = {"prompt_tokens": 256, "ttft_s": 1.0, "latency_s": 3.0}
    few = [request(10 * number, number, **short) for number in range(5)]
    past.ran("c1", [*few, request(100, 6, **long), request(110, 7, **long)])
    (pace,) = past.history().paces.values()
    assert pace.trial_s(2, 20) == pytest.approx(2.2)
    assert pace.trial_s(256, 20) == pytest.approx(3.0)
    assert (pace.low, pace.high) == pytest.approx((1.0, 1.0))
    # What nobody asked goes by the rates.
    assert pace.trial_s(128, 20) == pytest.approx(128 * 0.1 + 2.0)


def test_loads_of_cold_starts_are_kept_apart_from_the_one_that_a_warm_engine_needs(past):
    records = [load(1, 2.0), *(request(3 * n, n) for n in range(1, 4))]
    for number in range(4, 7):
        records += [load(10 * number, 8.0), request(10 * number + 8, number, cold=True)]
    past.ran("c1", records)
    (pace,) = past.history().paces.values()
    assert (pace.load_s, pace.cold_load_s) == (2.0, 8.0)
