"""Soaks: burst against sustained, when heat set in, and that only a complete one counts."""

import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, stored
from fakes.fake_workloads import done, heat, planned, soak, workload
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.sheets import sheets_of
from fleetmark_collector.report.tables import cell_notes
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol.jobs import JobState

OTHER_EPOCH = "00000000-0000-4000-8000-000000000003"


def build(tmp_path, *jobs, samples=(), duration_s=None):
    plan = []
    if duration_s is not None:
        asked = workload("heat", "soak", duration_s=duration_s, repetitions=1)
        plan = [planned(job, asked) for job in jobs]
    sink = SqliteSink(tmp_path / "store.db")
    sink.write(stored(*jobs))
    sink.write(
        [Stored("lab", "pi-1", OTHER_EPOCH, seq, one) for seq, one in enumerate(samples, start=1)]
    )
    sink.close()
    reader = SqliteReader(tmp_path / "store.db")
    try:
        return build_report(reader, CAMPAIGN, plan=plan)
    finally:
        reader.close()


def told(report):
    (text,) = [one.text for one in report.findings if "burst" in one.text]
    return text


def entries(report):
    (sheet,) = sheets_of(report, "heat")
    ((_, found),) = sheet.rows
    return {title: one.value for (title, _), one in zip(sheet.columns, found, strict=True)}


def test_burst_is_the_first_minute_and_sustained_the_last_third(tmp_path):
    # 90 requests: 6 begin before 60 s, 30 from 600 s on.
    report = build(tmp_path, done(soak(FakeJob(), hot_from_s=50.0)))
    (cell,) = report.cells
    burst, sustained = (cell.figures[name] for name in ("burst_tps", "sustained_tps"))
    assert (burst.count, sustained.count) == (6, 30)
    assert 19.7 < burst.median <= burst.high <= burst.maximum < 20.3
    assert burst.minimum < 16.5  # the sixth was hot already
    assert 15.8 < sustained.low < sustained.high < 16.2
    assert cell.headline == "sustained_tps"


def test_the_loss_is_told_with_its_interval_and_when_heat_set_in(tmp_path):
    report = build(tmp_path, done(soak(FakeJob())), samples=heat())
    (one,) = report.soaks
    assert one.kept.low < 0.8 < one.kept.high
    assert one.time_to_throttle_s == 300
    assert (one.temperature_start_c, one.temperature_max_c) == (45.0, 89.75)
    text = told(report)
    assert "of the speed is lost (0.80x [0.79-0.81])" in text
    assert "[19." in text
    assert "slowed down by heat from 300 s on, 45.0 to 89.8 °C" in text
    assert entries(report) == {
        "Burst": "20.0",
        "Sustained": "16.0",
        "Kept": "0.80x",
        "Throttled from": "300",
        "At start": "45.0",
        "Highest": "89.8",
        "Requests": "90",
    }


def test_telemetry_tells_of_throttling_that_no_trial_gives_as_a_reason(tmp_path):
    job = done(soak(FakeJob(), reasons=()))
    report = build(tmp_path, job, samples=heat(throttled_from_s=437.0))
    # The sample of 440 s lies in the request that began at 440 s.
    assert report.soaks[0].time_to_throttle_s == 440


def test_a_frequency_that_dropped_is_heat_as_well(tmp_path):
    report = build(tmp_path, done(soak(FakeJob(), reasons=("frequency_drop",))))
    assert report.soaks[0].time_to_throttle_s == 300


def test_other_doubts_are_not_heat(tmp_path):
    report = build(tmp_path, done(soak(FakeJob(), reasons=("competing_load",))))
    assert report.soaks[0].time_to_throttle_s is None


@pytest.mark.parametrize(
    ("throttled_from_s", "words", "shown"),
    [(None, "the device does not tell of throttling", "-"), (5000.0, "no throttling", "not seen")],
)
def test_no_throttling_and_nothing_that_could_tell_are_not_the_same(
    tmp_path, throttled_from_s, words, shown
):
    job = done(soak(FakeJob(), reasons=()))
    report = build(tmp_path, job, samples=heat(throttled_from_s=throttled_from_s))
    assert words in told(report)
    assert entries(report)["Throttled from"] == shown


def test_a_soak_that_kept_its_speed_is_not_said_to_have_lost_any(tmp_path):
    report = build(tmp_path, done(soak(FakeJob(), slow=20.0, reasons=())))
    assert "no loss of speed shown" in told(report)
    assert "is lost" not in told(report)


def test_a_slow_board_with_few_requests_makes_no_claim(tmp_path):
    report = build(tmp_path, done(soak(FakeJob(), every_s=30.0)))  # 2 in the first minute
    assert report.soaks[0].kept.low is None
    assert "too few requests to tell whether speed was lost" in told(report)


def test_a_soak_that_was_cut_short_is_in_no_figure_and_says_so(tmp_path):
    job = done(soak(FakeJob(), until_s=420.0), JobState.IN_PROGRESS)
    report = build(tmp_path, job, duration_s=900.0)
    (cell,) = report.cells
    assert cell.figures == {}
    assert cell.problem == "no soak is complete"
    assert (report.soaks[0].complete, report.soaks[0].cut_short_s) == (0, (420.0,))
    (sheet,) = sheets_of(report, "heat")
    (remark,) = sheet.remarks
    assert remark.endswith(": a soak that ended after 420 s of 900 s is in no figure")


@pytest.mark.parametrize("planned_s", [900.0, None])
def test_a_soak_is_complete_by_its_length_or_by_its_jobs_word(tmp_path, planned_s):
    job = soak(FakeJob())
    job.job(JobState.FAILED if planned_s else JobState.SUCCEEDED)
    report = build(tmp_path, job, duration_s=planned_s)
    assert report.soaks[0].complete == 1


def test_of_several_soaks_only_the_complete_are_resampled_soak_by_soak(tmp_path):
    job = FakeJob()
    for repetition in range(3):
        soak(job, repetition=repetition)
    soak(job, repetition=3, until_s=100.0)
    report = build(tmp_path, job, duration_s=900.0)
    (cell,) = report.cells
    assert (report.soaks[0].complete, len(report.soaks[0].cut_short_s)) == (3, 1)
    assert cell.figures["sustained_tps"].processes == 3
    assert cell.figures["sustained_tps"].count == 90
    assert cell.figures["decode_tps"].count == 270


def test_a_soak_that_nobody_finished_has_no_finding(tmp_path):
    report = build(tmp_path, soak(FakeJob(), until_s=100.0))
    assert [one.text for one in report.findings if "burst" in one.text] == []


def test_requests_of_a_soak_are_each_a_value_though_they_ask_the_same(tmp_path):
    report = build(tmp_path, done(soak(FakeJob())))
    figure = report.cells[0].figures["decode_tps"]
    assert (figure.count, figure.sessions, figure.low) == (90, 1, None)


@pytest.mark.parametrize(("soaks", "doubtful"), [(2, True), (6, False)])
def test_few_soaks_say_how_sure_their_intervals_are(tmp_path, soaks, doubtful):
    job = FakeJob()
    for repetition in range(soaks):
        soak(job, repetition=repetition)
    report = build(tmp_path, done(job))
    (note,) = [one for one in cell_notes(report.cells[0], 0.95) if "soaks" in one]
    words = "more than their requests do, the interval is sure to 50% only, not to 95%"
    assert note.startswith(f"{soaks} soaks")
    assert (words in note, words in told(report)) == (doubtful, doubtful)


def test_what_a_soak_kept_is_drawn_of_the_same_soaks(tmp_path):
    # One is twice as fast as the other; both lose a fifth.
    job = soak(FakeJob())
    soak(job, repetition=1, fast=40.0, slow=32.0)
    (one,) = build(tmp_path, done(job)).soaks
    assert 0.78 < one.kept.low <= 0.8 <= one.kept.high < 0.82
