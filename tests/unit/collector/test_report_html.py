import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import plotly.graph_objects
import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, digest, failure, store, usual_jobs
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.html import as_html, write_html
from fleetmark_protocol.jobs import JobState

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.links, self.words = [], [], [], []
        self.policy, self._script = "", None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.links += [values[name] for name in ("src", "href", "srcset") if name in values]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        self._script = values if tag == "script" else None

    def handle_endtag(self, tag):
        self._script = None

    def handle_data(self, data):
        if self._script is None:
            self.words.append(data)
        else:
            self.scripts.append((self._script, data))

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    @property
    def figures(self):
        return next(json.loads(text) for values, text in self.scripts if "type" in values)


@pytest.fixture
def page(tmp_path):
    def make(*jobs, **how):
        reader = store(tmp_path, *jobs)
        report = build_report(reader, CAMPAIGN, **how)
        reader.close()
        return Page(as_html(report))

    return make


def test_the_page_loads_nothing_from_anywhere(page):
    found = page(*usual_jobs())
    assert found.links == []
    assert not [tag for tag, _ in found.tags if tag in ("link", "iframe", "object", "embed")]
    styles = "".join(found.words)
    assert not re.search(r"@import|url\(", styles)


def test_plotly_is_in_the_page_once(page):
    found = page(*usual_jobs())
    big = [text for _, text in found.scripts if "plotly.js v" in text[:300]]
    assert len(big) == 1


def test_the_policy_lets_only_the_pages_own_scripts_run(page):
    found = page(*usual_jobs())
    allowed = set(re.findall(r"'sha256-([^']+)'", found.policy))
    run = [text for values, text in found.scripts if "type" not in values]
    digests = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run}
    assert len(run) == 2
    assert digests == allowed
    assert found.policy.startswith("default-src 'none'; script-src 'sha256-")


def test_nothing_that_a_device_sent_becomes_a_tag_or_a_script(page):
    job = FakeJob(
        backend=EVIL, model=EVIL, quantization=EVIL, options={EVIL[:60]: EVIL, "threads": EVIL}
    )
    job.load(backend_version=EVIL)
    for repetition in range(8):
        job.trial(
            EVIL,
            repetition,
            trial_id=f"x.{repetition}",
            verdict="INVALID" if repetition == 7 else "SUSPECT",
            verdict_reasons=(EVIL,),
            output_text=EVIL,
            backend_version=EVIL,
        )
    job.trial(EVIL, 9, trial_id="x.9", failure=failure(EVIL, EVIL))
    job.job(JobState.FAILED, failure=failure(EVIL, EVIL))
    plain = page(FakeJob(number=2).usual())
    found = page(job, FakeJob(number=2).usual())
    assert "alert(1)" in found.text  # it is shown, as text
    assert len([tag for tag, _ in found.tags if tag == "script"]) == 3
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert not [name for _, values in found.tags for name in values if name.startswith("on")]
    assert {tag for tag, _ in found.tags} - {tag for tag, _ in plain.tags} <= {"em", "section"}


def test_labels_in_plots_are_text_for_plotly_too(page):
    job = FakeJob(backend="<a href='javascript:x'>y</a>").usual()
    found = page(job, FakeJob(number=2).usual())
    assert "<a " not in json.dumps(found.figures)
    assert "&lt;a " in json.dumps(found.figures)


def test_every_plot_is_a_valid_plotly_figure(page):
    suspect = FakeJob(number=3, backend="other").usual()
    suspect.trial("single", 20, verdict="SUSPECT").trial("single", 21, verdict="INVALID")
    suspect.trial("single", 22, energy_j=3.0, energy_source="rapl")
    found = page(*usual_jobs(), suspect)
    assert len(found.figures) > 10
    for figure in found.figures:
        plotly.graph_objects.Figure(data=figure["data"], layout=figure["layout"])
    places = {values.get("id") for tag, values in found.tags if tag == "div"}
    assert {figure["id"] for figure in found.figures} <= places


def test_a_plot_holds_every_trial_and_the_median_with_its_interval(page):
    figure = page(FakeJob().usual(repetitions=8)).figures[0]
    points, median = figure["data"]
    assert len(points["x"]) == 8
    assert min(points["x"]) < median["x"][0] < max(points["x"])
    assert median["error_x"]["visible"]
    assert median["error_x"]["array"][0] > 0
    assert median["error_x"]["arrayminus"][0] > 0


def test_without_enough_repetitions_a_plot_has_no_error_bars(page):
    _, median = page(FakeJob().usual(repetitions=3)).figures[0]["data"]
    assert not median["error_x"]["visible"]


def test_trials_that_were_left_out_are_marked_over_time_and_in_no_other_plot(page):
    job = FakeJob().usual(repetitions=7)
    job.trial("single", 7, latency_s=123.0, verdict="INVALID", verdict_reasons=("THROTTLED",))
    figures = [figure for figure in page(job).figures if figure["workload"] == 0]
    holding = [figure for figure in figures if "123.0" in json.dumps(figure["data"])]
    assert holding == [figures[-1]]
    assert "THROTTLED" in json.dumps(figures[-1])


def test_the_tables_hold_every_cell_even_where_nothing_worked(page):
    bad = FakeJob(number=3, backend="broken").load(load_s=None, failure=failure("MODEL_REJECTED"))
    found = page(*usual_jobs(), bad.job(JobState.FAILED, failure=failure("MODEL_REJECTED")))
    assert "pi-1/broken/Q4_0" in found.text
    assert "FAILED: MODEL_REJECTED" in found.text


def test_a_campaign_where_nothing_worked_makes_a_page(page):
    found = page(FakeJob().trial("single", verdict="INVALID"))
    assert "all 1 trials left out" in found.text
    assert "No two cells can be compared yet." in found.text


def test_the_page_tells_definitions_and_provenance(page):
    found = page(*usual_jobs(), machine_ids={("lab", "pi-1"): "0123456789abcdef0123"})
    assert "Time to first token: from handing the prompt" in found.text
    assert digest("tiny Q4_0")[:16] in found.text
    assert "8.50" in found.text  # bits per weight
    assert "0123456789abcdef" in found.text


def test_a_running_campaign_says_so(page):
    assert "so far: 1 of 9 trials, 0 of 1 jobs done" in page(
        FakeJob().trial().job(JobState.IN_PROGRESS, trials_planned=9)
    ).text  # fmt: skip


def test_a_clock_far_off_does_not_spoil_the_page(page):
    assert "ns" in page(FakeJob().trial("single", 0, time_ns=2**63 - 1)).text


def test_the_page_is_written_to_a_file(tmp_path):
    reader = store(tmp_path, FakeJob().usual())
    write_html(build_report(reader, CAMPAIGN), tmp_path / "report.html")
    reader.close()
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")
