import io

import pytest
from rich.console import Console

from fakes.fake_campaign import CAMPAIGN, FakeJob, failure, store, usual_jobs
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.tables import render_terminal
from fleetmark_protocol.jobs import JobState


def render(tmp_path, *jobs, width=100, **how):
    reader = store(tmp_path, *jobs)
    report = build_report(reader, CAMPAIGN, **how)
    reader.close()
    out = io.StringIO()
    render_terminal(report, Console(file=out, width=width))
    return out.getvalue()


def test_the_tables_fit_100_columns_with_figures_and_names_whole(tmp_path):
    text = render(tmp_path, *usual_jobs())
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    row = next(line for line in text.splitlines() if line.startswith("pi-1/Q4_0"))
    assert " ".join(row.split()) == (
        "pi-1/Q4_0 1.086 ±0.8% 0.46x [0.46-0.47] ▼ 150.9 ±0.8% 30.2 ±0.8% 8/0/0"
    )


@pytest.mark.parametrize("width", [60, 80, 100])
def test_tables_are_split_rather_than_figures_cut(tmp_path, width):
    job = FakeJob(backend="b" * 40, tpot_s=123.0).usual()
    job.trial("single", 20, energy_j=1e9, energy_source="rapl")
    text = render(tmp_path, job, FakeJob(number=2).usual(), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for figure in ("1,000,000,000.00", "9/0/0", "4,4"):
        assert figure in text


def test_long_names_are_folded_and_no_figure_is_lost(tmp_path):
    job = FakeJob(backend="b" * 60, model="m" * 60).usual()
    text = render(tmp_path, job)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "8/0/0" in text


def test_the_legend_explains_signs_and_names_the_baseline(tmp_path):
    text = render(tmp_path, *usual_jobs(), confidence=0.9)
    assert "half of the 90% interval" in text
    assert "against ec2-1/xllamacpp/tiny/Q8_0/threads=2" in text
    assert "≈ no difference shown" in text


def test_what_was_left_out_is_told_below_the_table(tmp_path):
    job = FakeJob().usual()
    job.trial("single", 20, verdict="INVALID", verdict_reasons=("THROTTLED",))
    job.trial("single", 21, verdict="SUSPECT", verdict_reasons=("CPU_BUSY",))
    text = render(tmp_path, job)
    assert "left out 1: THROTTLED (1)" in text
    assert "suspect 1: CPU_BUSY (1)" in text


def test_a_cell_that_is_not_comparable_says_so_in_the_table_and_why_below(tmp_path):
    odd = FakeJob(number=2, quantization="Q8_0").trial("single", output_tokens=7)
    text = render(tmp_path, FakeJob().usual(), odd, baseline="Q4_0")
    assert "not comparable" in text
    assert "generated 7 tokens against 32" in text


def test_an_empty_cell_keeps_its_row_and_tells_its_reason(tmp_path):
    bad = FakeJob(number=2, quantization="Q8_0").trial("single", verdict="INVALID")
    text = render(tmp_path, FakeJob().usual(), bad)
    assert any(line.startswith("Q8_0 ") for line in text.splitlines())
    assert "all 1 trials left out: no reason given (1)" in text


@pytest.mark.parametrize("complete", [True, False])
def test_a_running_campaign_says_how_far_it_is(tmp_path, complete):
    job = FakeJob().trial()
    job.job(JobState.SUCCEEDED if complete else JobState.IN_PROGRESS, trials_planned=1)
    text = render(tmp_path, job)
    words = "complete: 1 of 1 trials, 1 of 1" if complete else "so far: 1 of 1 trials, 0 of 1"
    assert f"{words} jobs done" in text


def test_labels_from_devices_are_neither_markup_nor_escape_sequences(tmp_path):
    job = FakeJob(backend="[red]x[/red]\x1b[31m\u202e").usual()
    job.job(JobState.FAILED, failure=failure("BAD\x07", "[bold]no[/bold]\x1b]0;title\x07"))
    text = render(tmp_path, job, FakeJob(number=2).usual())
    assert "[red]x[/red]" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_failures_are_listed_with_their_code(tmp_path):
    job = FakeJob().job(JobState.REJECTED, failure=failure("MODEL_TOO_LARGE", "needs 9 GiB"))
    text = render(tmp_path, job)
    assert "job REJECTED: MODEL_TOO_LARGE: needs 9 GiB" in " ".join(text.split())
