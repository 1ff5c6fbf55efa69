"""Cells for dashboards say what the report says, and are computed again only where they changed."""

import pytest

from fakes.fake_campaign import CAMPAIGN, START_NS, FakeJob, failure, store, usual_jobs
from fleetmark_collector.campaigns.tables import CampaignRow, CampaignState
from fleetmark_collector.monitoring import summaries
from fleetmark_collector.monitoring.summaries import Summaries
from fleetmark_collector.report.build import build_report
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.metrics import METRICS

CREATED_NS = START_NS - 7


def row(campaign_id=CAMPAIGN):
    return CampaignRow(
        campaign_id, "fake", "", "f.yaml", 60.0, CREATED_NS, CampaignState.RUNNING, None, None, None
    )


@pytest.fixture
def made(tmp_path):
    opened = []

    def make(*jobs):
        opened.append(store(tmp_path, *jobs))
        return opened[-1]

    yield make
    for reader in opened:
        reader.close()


def key(tags):
    names = ("device", "quantization", "workload", "options")
    return tuple(tags.get(name, "") for name in names)


def test_medians_and_intervals_are_the_reports(made):
    reader = made(*usual_jobs())
    points = {key(point.tags): point for point in Summaries(reader).points(row(), ())}
    report = build_report(reader, CAMPAIGN)
    assert len(points) == len(report.cells) == 8
    for shown in report.cells:
        config = shown.cell.config
        point = points[config.device, config.quantization, shown.cell.workload, "threads=2"]
        assert point.measurement == "cell"
        assert point.time_ns == CREATED_NS
        assert point.tags["campaign_id"] == CAMPAIGN
        assert point.tags["fleet"] == "lab"
        assert point.tags["backend"] == "xllamacpp"
        assert point.fields["workload_kind"] == shown.cell.workload_kind
        assert point.fields["confidence"] == report.confidence
        told = {name for name in METRICS if name in point.fields}
        assert told == set(shown.figures)
        for name, figure in shown.figures.items():
            assert point.fields[name] == figure.median
            if figure.low is None:
                assert f"{name}_low" not in point.fields
            else:
                assert point.fields[f"{name}_low"] == figure.low
                assert point.fields[f"{name}_high"] == figure.high
    multi = points["pi-1", "Q4_0", "multi", "threads=2"].fields
    assert "session_latency_s" in multi
    assert "latency_s_low" in multi


def test_trials_are_counted_as_they_came_out_and_warm_ups_are_not(made):
    job = FakeJob().usual(repetitions=4)
    job.trial("single", 4, verdict="SUSPECT").trial("single", 5, verdict="INVALID")
    job.trial("single", 6, verdict="VALID", failure=failure())
    points = {p.tags["workload"]: p for p in Summaries(made(job)).points(row(), ())}
    fields = points["single"].fields
    assert (fields["trials"], fields["trials_suspect"], fields["trials_invalid"]) == (7, 1, 2)


def test_a_cell_whose_trials_are_all_invalid_is_there_without_a_figure(made):
    job = FakeJob(quantization=None, options={}).job(JobState.IN_PROGRESS)
    job.trial(verdict="INVALID").job(JobState.SUCCEEDED)
    (point,) = Summaries(made(job)).points(row(), ())
    assert (point.fields["trials"], point.fields["trials_invalid"]) == (1, 1)
    assert {"quantization", "options"}.isdisjoint(point.tags)
    assert METRICS.keys().isdisjoint(point.fields)


def test_a_cell_before_its_first_trial_is_not_told_of(made):
    job = FakeJob(quantization=None).job(JobState.IN_PROGRESS)
    job.load(load_s=None, failure=failure()).job(JobState.FAILED)
    assert list(Summaries(made(job)).points(row(), ())) == []


def test_only_cells_that_got_another_record_are_computed_again(made, monkeypatch):
    computed = []
    real = summaries.cell_point

    def counting(campaign, cell):
        computed.append((cell.config.device, cell.workload))
        return real(campaign, cell)

    monkeypatch.setattr(summaries, "cell_point", counting)
    pi, ec2 = FakeJob(device="pi-1").usual(), FakeJob(device="ec2-1").usual()
    reader = made(pi, ec2)
    summed_up = Summaries(reader)
    first = list(summed_up.points(row(), ()))
    assert len(computed) == 4
    computed.clear()
    assert list(summed_up.points(row(), ())) == first
    assert computed == []
    pi.trial("single", 8)
    made(pi, ec2)
    again = list(summed_up.points(row(), ()))
    assert computed == [("pi-1", "single")]
    assert [one.fields["trials"] for one in again] != [one.fields["trials"] for one in first]
    summed_up.forget(CAMPAIGN)
    computed.clear()
    list(summed_up.points(row(), ()))
    assert len(computed) == 4


def test_what_the_records_carry_of_energy_and_cost_is_told(made):
    job = FakeJob()
    for repetition in range(8):
        worth = {"energy_j": 3.0, "energy_source": "rapl", "co2_g": 2e-4}
        job.trial(repetition=repetition, **worth, cost_usd=1e-5, eq=5e4, eq_per_token=5e7)
    (point,) = Summaries(made(job)).points(row(), ())
    for name, value in (("energy_j", 3.0), ("co2_g", 2e-4), ("cost_usd", 1e-5), ("eq", 5e4)):
        assert point.fields[name] == value
        assert point.fields[f"{name}_low"] == value
