"""Prompt lengths and clients: figures over a series, rounds resampled whole, where it saturates."""

import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, store
from fakes.fake_workloads import crowd, planned, sweep, workload
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.sheets import sheets_of
from fleetmark_protocol.records import Verdict


def build(tmp_path, *jobs, **how):
    reader = store(tmp_path, *jobs)
    try:
        return build_report(reader, CAMPAIGN, **how)
    finally:
        reader.close()


def cell(report, name):
    (found,) = [one for one in report.cells if one.cell.workload == name]
    return found


def told(report, name):
    return [one.text for one in report.findings if one.workload == name]


def column(sheet, title):
    place = [name for name, _ in sheet.columns].index(title)
    return [entries[place].value for _, entries in sheet.rows]


# --- prompt lengths ---------------------------------------------------------------------------


def test_a_sweep_is_one_series_with_a_line_for_each_cell_by_the_engines_own_count(tmp_path):
    jobs = [FakeJob(number=1), FakeJob(number=2, quantization="Q8_0", tpot_s=0.014)]
    # The file names them in another order than that of their lengths.
    report = build(tmp_path, *(sweep(job, 1024, 128, 512) for job in jobs))
    (series,) = report.series
    assert (series.name, series.kind) == ("sweep", "context_sweep")
    assert [line.short for line in series.lines] == ["Q8_0", "Q4_0"]
    for line in series.lines:
        assert [step.at for step in line.steps] == [129, 513, 1025]
        assert [step.cell.cell.workload for step in line.steps] == [
            *("sweep-128", "sweep-512", "sweep-1024")
        ]


def test_two_sweeps_of_one_campaign_are_two_series(tmp_path):
    job = sweep(sweep(FakeJob(), 128, 256), 128, 256, name="other")
    assert [one.name for one in build(tmp_path, job).series] == ["sweep", "other"]


def test_a_length_that_nobody_counted_keeps_its_place_and_has_no_number(tmp_path):
    job = sweep(FakeJob(), 512)
    for repetition in range(2):
        job.trial("sweep-64", repetition, workload_kind="context_sweep", prompt_tokens=None)
    (line,) = build(tmp_path, job).series[0].lines
    assert [(step.cell.cell.workload, step.at) for step in line.steps] == [
        ("sweep-64", None),
        ("sweep-512", 513),
    ]


def test_the_headline_of_a_sweep_is_the_time_to_the_first_token(tmp_path):
    report = build(tmp_path, sweep(FakeJob(), 128))
    assert cell(report, "sweep-128").headline == "ttft_s"


def test_a_sweep_says_how_much_longer_the_longest_prompt_takes_with_an_interval(tmp_path):
    report = build(tmp_path, sweep(FakeJob(), 128, 512, 1024))
    (text,) = told(report, "sweep")
    assert "160.1 ms [157.8-161.7] at 129 prompt tokens" in text
    assert "at 1,025 prompt tokens: 7.9x the prompt takes 7.96x [7.84-8.09] the time" in text


def test_the_table_of_a_sweep_shows_what_depends_on_the_length(tmp_path):
    report = build(tmp_path, sweep(FakeJob(), 128, 512))
    (sheet,) = sheets_of(report, "sweep-128")
    assert column(sheet, "Prompt") == ["129", "513"]
    assert column(sheet, "TTFT") == ["160.1", "644.0"]
    assert column(sheet, "Prefill") == ["805.9", "796.6"]
    assert {"Decode", "RSS", "Speed-up", "V/S/I"} < {name for name, _ in sheet.columns}
    assert list(sheets_of(report, "sweep-512")) == []


# --- clients ----------------------------------------------------------------------------------


def test_a_round_has_one_throughput_however_many_clients_it_has(tmp_path):
    report = build(tmp_path, crowd(FakeJob(), 4, 60.0, rounds=5))
    figure = cell(report, "crowd-4").figures["throughput_tps"]
    assert (figure.count, figure.sessions) == (5, 5)
    # 20 requests, but no more than 5 independent ones.
    latency = cell(report, "crowd-4").figures["latency_s"]
    assert (latency.count, latency.sessions, latency.low) == (20, 5, None)


def test_clients_that_ask_the_same_prompt_are_told_apart(tmp_path):
    report = build(tmp_path, crowd(FakeJob(), 3, 60.0, prompt=0))
    assert cell(report, "crowd-3").figures["latency_s"].count == 24


def test_a_round_without_an_answer_for_every_client_has_no_throughput(tmp_path):
    job = crowd(FakeJob(), 2, 60.0, rounds=6)
    broken = crowd(FakeJob(), 2, 999.0, rounds=1, first=6).records
    job.records += [
        broken[0],
        broken[1].model_copy(
            update={"verdict": Verdict.INVALID, "verdict_reasons": ("incomplete_round",)}
        ),
    ]
    found = cell(build(tmp_path, job), "crowd-2")
    assert found.figures["throughput_tps"].count == 6
    assert found.figures["throughput_tps"].maximum < 999
    assert found.figures["latency_s"].count == 13


def test_the_95th_percentile_is_over_all_clients_and_has_an_interval_from_59_rounds_on(tmp_path):
    report = build(tmp_path, crowd(FakeJob(), 4, 60.0, rounds=20))
    found = cell(report, "crowd-4").figures
    assert found["latency_s"].median < found["latency_p95_s"].median <= found["latency_s"].maximum
    assert (found["latency_p95_s"].count, found["latency_p95_s"].low) == (80, None)
    (tmp_path / "many").mkdir()
    report = build(tmp_path / "many", crowd(FakeJob(), 1, 60.0, rounds=59))
    assert cell(report, "crowd-1").figures["latency_p95_s"].low is not None


def test_no_other_workload_has_a_95th_percentile(tmp_path):
    report = build(tmp_path, FakeJob().usual())
    assert all("latency_p95_s" not in one.figures for one in report.cells)


def series_of(tmp_path, *rates, rounds=8, **more):
    job = FakeJob()
    for clients, rate in rates:
        crowd(job, clients, rate, rounds=rounds, **more)
    return build(tmp_path, job)


def test_scaling_is_throughput_against_one_client_round_by_round(tmp_path):
    report = series_of(tmp_path, (1, 20.0), (2, 38.0), (4, 60.0))
    (line,) = report.series[0].lines
    assert [step.at for step in line.steps] == [1, 2, 4]
    one, two, four = (step.scaling for step in line.steps)
    assert one is None
    assert two.low < two.ratio == pytest.approx(1.9, rel=0.03)
    assert four.low < four.ratio == pytest.approx(3.0, rel=0.03)
    assert two.paired
    (sheet,) = sheets_of(report, "crowd-1")
    assert column(sheet, "Clients") == ["1", "2", "4"]
    assert column(sheet, "Scaling") == ["1", "1.87x", "3.01x"]
    assert ("Latency p50", "s") in sheet.columns
    assert ("Latency p95", "s") in sheet.columns


def test_without_one_client_alone_there_is_no_scaling(tmp_path):
    (line,) = series_of(tmp_path, (2, 38.0), (4, 60.0)).series[0].lines
    assert [step.scaling for step in line.steps] == [None, None]


def test_throughput_saturates_where_no_more_clients_get_more(tmp_path):
    report = series_of(tmp_path, (1, 20.0), (2, 38.0), (4, 60.0), (8, 60.0), (16, 59.9))
    (line,) = report.series[0].lines
    assert line.steps[line.saturated].at == 4
    (text,) = told(report, "crowd")
    assert "throughput saturates at 4 clients (60.2 tokens/s [59.6-60.4], 3.01x" in text
    assert "8 clients get no more (0.99x [0.98-1.01])" in text


def test_more_clients_than_fit_may_get_less(tmp_path):
    (text,) = told(series_of(tmp_path, (1, 20.0), (2, 38.0), (4, 30.0)), "crowd")
    assert "saturates at 2 clients" in text
    assert "4 clients get less (0.80x" in text


def test_throughput_that_grows_to_the_end_is_not_said_to_saturate(tmp_path):
    report = series_of(tmp_path, (1, 20.0), (2, 38.0))
    (text,) = told(report, "crowd")
    assert "grows up to the most clients that were tried, 2 clients" in text


def test_too_few_rounds_tell_of_no_saturation(tmp_path):
    report = series_of(tmp_path, (1, 20.0), (2, 38.0), (4, 38.0), rounds=3)
    assert report.series[0].lines[0].saturated is None
    (text,) = told(report, "crowd")
    assert text.endswith("too few rounds to tell where throughput saturates.")


def test_the_cell_with_the_highest_throughput_is_named_and_not_the_lowest(tmp_path):
    fast = crowd(FakeJob(number=1, quantization="Q4_0"), 2, 40.0)
    slow = crowd(FakeJob(number=2, quantization="Q8_0"), 2, 20.0)
    (text,) = [one for one in told(build(tmp_path, fast, slow), "crowd-2") if "PSS" not in one]
    assert text.startswith("Most throughput: Q4_0 (Throughput 39.5 ")
    assert "Behind: Q8_0 by 2.00x" in text


def test_the_number_of_clients_is_the_plans_where_no_trial_came(tmp_path):
    job = FakeJob().load()
    asked = workload("crowd-4", "concurrency", clients=4, repetitions=3, warmup=1)
    report = build(tmp_path, job, plan=[planned(job, asked)])
    (line,) = report.series[0].lines
    assert line.steps[0].at == 4
    assert cell(report, "crowd-4").counts.planned == 16


@pytest.mark.parametrize("kind", ["context_sweep", "concurrency"])
def test_a_series_of_one_has_no_finding_about_itself(tmp_path, kind):
    job = sweep(FakeJob(), 128) if kind == "context_sweep" else crowd(FakeJob(), 2, 30.0)
    assert [
        one for one in build(tmp_path, job).findings if one.workload in ("sweep", "crowd")
    ] == []
