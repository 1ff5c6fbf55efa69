"""The points of cells of the other kinds of workload: where they lie, how often, at what price."""

import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, store
from fakes.fake_workloads import coldstarts, crowd, done, planned, priced, soak, sweep, workload
from fleetmark_collector.campaigns.tables import CampaignRow, CampaignState
from fleetmark_collector.monitoring.summaries import Summaries
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.workloads import Adaptive


def row():
    return CampaignRow(
        CAMPAIGN, "fake", "", "f.yaml", 60.0, 1, CampaignState.RUNNING, None, None, None
    )


@pytest.fixture
def fields(tmp_path):
    opened = []

    def read(*jobs, plan=()):
        opened.append(store(tmp_path, *jobs))
        points = Summaries(opened[-1]).points(row(), plan)
        return {point.tags["workload"]: point.fields for point in points}

    yield read
    for reader in opened:
        reader.close()


def test_a_length_is_the_engines_own_count(fields):
    found = fields(sweep(FakeJob(), 128, 512))
    assert {name: one["prompt_tokens"] for name, one in found.items()} == {
        "sweep-128": 129,
        "sweep-512": 513,
    }
    assert "clients" not in found["sweep-128"]


def test_clients_and_their_throughput_are_told_and_no_prompt_length(fields):
    (found,) = fields(crowd(FakeJob(), 4, 60.0)).values()
    assert (found["clients"], found["repetitions"]) == (4, 8)
    assert found["throughput_tps_low"] < found["throughput_tps"] < found["throughput_tps_high"]
    assert found["latency_p95_s"] > found["latency_s"]
    assert "prompt_tokens" not in found


def test_a_soak_tells_burst_sustained_and_when_heat_set_in_once_it_is_complete(tmp_path):
    job = soak(FakeJob())
    reader = store(tmp_path, job)
    summaries = Summaries(reader)
    asked = workload("heat", "soak", duration_s=905.0)
    (point,) = summaries.points(row(), [planned(job, asked, state=JobState.IN_PROGRESS)])
    assert "burst_tps" not in point.fields
    # Nothing came but the word that it is over.
    (point,) = summaries.points(row(), [planned(job, asked, state=JobState.SUCCEEDED)])
    reader.close()
    assert 19 < point.fields["burst_tps"] < 21
    assert 15 < point.fields["sustained_tps"] < 17
    assert point.fields["time_to_throttle_s"] == 300


def test_a_cold_start_tells_how_much_was_cached(fields):
    (found,) = fields(coldstarts(FakeJob(), "start", load_s=2.0, cached=7.5)).values()
    assert found["model_cached_percent"] == 7.5
    assert found["latency_cold_s"] > found["load_s"] > 1.9


def test_a_price_comes_with_cost_and_eq_and_where_there_is_none_nothing_is_told(fields):
    found = fields(priced(FakeJob(), 0.25), FakeJob(number=2).trial("free"))
    assert found["single"]["usd_per_hour"] == 0.25
    assert {"cost_usd", "eq", "eq_low", "eq_per_token"} < found["single"].keys()
    assert not {"usd_per_hour", "cost_usd", "eq"} & found["free"].keys()


def test_adaptive_repetitions_tell_what_they_reached_beside_what_was_asked(fields):
    job = done(FakeJob().usual(repetitions=9))
    asked = workload("single", "single", adaptive=Adaptive(half_width_percent=5))
    found = fields(job, plan=[planned(job, asked, workload("multi", "multi"))])
    assert (found["single"]["repetitions"], found["single"]["target_percent"]) == (9, 5)
    assert 0 < found["single"]["half_width_percent"] < 5
    assert not {"target_percent", "half_width_percent"} & found["multi"].keys()


def test_processes_of_a_cell_are_counted(fields):
    jobs = [FakeJob(number=number).trial("single", number) for number in range(1, 4)]
    (found,) = fields(*jobs).values()
    assert (found["repetitions"], found["processes"]) == (3, 3)
