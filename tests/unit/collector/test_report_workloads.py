"""A report of all kinds of workload at once: terminal, page, JSON and CSV show each of them."""

import csv
import io
import json
import re

import pytest
from rich.console import Console

from fakes.fake_campaign import CAMPAIGN, FakeJob, store
from fakes.fake_workloads import coldstarts, crowd, done, planned, priced, soak, sweep, workload
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.cells import read_cells
from fleetmark_collector.report.export import write_csv, write_json
from fleetmark_collector.report.html import as_html
from fleetmark_collector.report.tables import render_terminal

HOSTILE = "<script>alert(1)</script>"


def everything(device="pi-1", backend="xllamacpp", number=1):
    job = FakeJob(device=device, backend=backend, number=number)
    sweep(job, 128, 1024)
    for clients, rate in ((1, 20.0), (4, 60.0)):
        crowd(job, clients, rate)
    soak(job)
    coldstarts(job, "start-kept", load_s=0.4, cached=100)
    coldstarts(job, "start-drop", load_s=2.0, cached=0)
    return done(priced(job, 0.1))


def shapes(job):
    return planned(
        job,
        workload("start-kept", "coldstart", page_cache="keep"),
        workload("start-drop", "coldstart", page_cache="drop"),
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    job = everything()
    reader = store(tmp_path_factory.mktemp("store"), job, everything("ec2-1", HOSTILE, 2))
    made = build_report(reader, CAMPAIGN, plan=[shapes(job)])
    reader.close()
    return made


def terminal(report, width=100):
    out = io.StringIO()
    render_terminal(report, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_table_fits_and_no_figure_is_cut(report, width):
    text = terminal(report, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_the_terminal_shows_a_series_once_and_each_kind_by_its_name(report):
    text = terminal(report)
    for heading in (
        "sweep: one prompt of each length",
        "crowd: clients that ask at the same time",
        "heat: one prompt again and again without a pause",
        "start-kept: one prompt, every time of an engine started anew, weights left in the page",
        "start-drop: one prompt, every time of an engine started anew, weights dropped from the",
        "Cost and value",
    ):
        assert text.count(heading) == 1, heading
    assert "sweep-1024: one" not in text


def test_the_page_shows_tables_and_plots_of_each_kind(report):
    page = as_html(report)
    figures = {
        one["id"]: one
        for one in json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])
    }
    titles = re.findall(r"<strong>([^<]*)</strong>", page)
    for title in (
        "TTFT over prompt tokens (ms)",
        "Prefill over prompt tokens (tokens/s)",
        "Throughput over clients (tokens/s)",
        "Latency over clients (s)",
        "Decode over the soak (tokens/s)",
    ):
        assert titles.count(title) == 1, title
    for place in re.findall(r'class="plot" id="([^"]+)"', page):
        assert place in figures
    assert len(figures) == len(set(re.findall(r'class="plot" id="([^"]+)"', page)))
    ((ttft, *_),) = [
        [one["data"] for one in figures.values() if one["id"].endswith("series-0")][:1]
    ]
    assert ttft[0]["x"] == [129, 1025]
    assert "Cost and value" in page


def test_the_plot_of_latency_has_its_95th_percentile_dotted(report):
    page = as_html(report)
    (figure,) = [
        one
        for one in json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])
        if one["id"].endswith("series-1") and one["layout"]["xaxis"]["title"]["text"] == "clients"
    ]
    assert [one["line"]["dash"] for one in figure["data"]] == ["solid", "solid", "dot", "dot"]


def test_names_from_devices_are_text_on_the_page(report):
    page = as_html(report)
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_json_has_each_kind_with_its_numbers(report, tmp_path):
    write_json(report, tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert {one["name"] for one in found["series"]} == {"sweep", "crowd"}
    (crowd_,) = [one for one in found["series"] if one["name"] == "crowd"]
    assert [step["at"] for step in crowd_["lines"][0]["steps"]] == [1, 4]
    assert crowd_["lines"][0]["saturated_at"] == 4
    assert {one["workload"] for one in found["soaks"]} == {"heat"}
    assert found["soaks"][0]["time_to_throttle_s"] == 300
    assert found["worth"][0]["cells"][0]["usd_per_hour"] == 0.1
    cells = {(one["device"], one["workload"]): one for one in found["cells"]}
    assert cells["pi-1", "start-drop"]["page_cache"] == "drop"
    assert cells["pi-1", "start-kept"]["page_cache"] == "keep"
    assert cells["pi-1", "single"]["page_cache"] is None
    assert cells["pi-1", "crowd-4"]["repetitions"]["made"] == 8
    assert found["units"]["throughput_tps"] == "tokens/s"


def test_the_rows_of_the_csv_have_the_new_fields(report, tmp_path):
    write_csv(report, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (row,) = [
        one
        for one in rows
        if (one["device"], one["workload"], one["repetition"]) == ("pi-1", "crowd-4", "3")
        and one["client"] == "2"
    ]
    assert (row["clients"], row["counted"]) == ("4", "true")
    assert {"soak_s", "throughput_tps", "model_cached_percent", "usd_per_hour"} < row.keys()


def test_a_page_cache_that_was_kept_and_one_that_was_dropped_never_share_a_cell(report):
    found = {
        one.cell.workload: one.figures["model_cached_percent"]
        for one in report.cells
        if one.cell.config.device == "pi-1" and one.cell.workload.startswith("start")
    }
    assert (found["start-kept"].minimum, found["start-drop"].maximum) == (100, 0)
    assert found["start-kept"].count == found["start-drop"].count == 8


def test_cold_starts_leave_the_cells_of_other_workloads_of_their_job_alone(tmp_path):
    job = FakeJob().trial("single", 0)
    coldstarts(job, "start", load_s=1.0, cached=0)
    reader = store(tmp_path, job)
    cells, _ = read_cells(reader, CAMPAIGN)
    reader.close()
    assert {cell.config.options for cell in cells} == {(("threads", 2),)}
    assert {cell.workload: cell.cold for cell in cells} == {"single": False, "start": True}
