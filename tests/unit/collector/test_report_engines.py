"""Engines against one another in a report: equal work, cost of frameworks, cold starts."""

import html
import io
import json
import re

import pytest
from rich.console import Console

from fakes.fake_campaign import CAMPAIGN, FakeJob, digest, store
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.enginetexts import equal_work_lines, overhead_text
from fleetmark_collector.report.export import as_json, write_csv
from fleetmark_collector.report.html import as_html
from fleetmark_collector.report.tables import render_terminal
from fleetmark_protocol.jobs import JobState


def build(tmp_path, *jobs, **how):
    reader = store(tmp_path, *jobs)
    try:
        return build_report(reader, CAMPAIGN, **how)
    finally:
        reader.close()


def job(number, backend="xllamacpp", repetitions=2, fields=None, **more):
    """A job of one prompt; `fields` are those of its trials."""
    made = FakeJob(number=number, backend=backend, **more)
    for repetition in range(repetitions):
        made.trial("single", repetition, **(fields or {}))
    return made


def ids(*values):
    return {"output_ids": values, "output_ids_sha256": digest(str(values)),
            "output_sha256": digest(f"text {values}")}  # fmt: skip


def lines(report):
    return [line for group in report.equal_work for line in equal_work_lines(group)]


def terminal(report):
    console = Console(file=io.StringIO(), width=100)
    render_terminal(report, console)
    return console.file.getvalue()


def flat(text):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", text)))


# --- equal work ----------------------------------------------------------------------------------


def test_engines_that_do_the_same_and_one_that_does_not_are_told_in_a_line_each(tmp_path):
    report = build(
        tmp_path,
        job(1, "llama_cpp", fields=ids(1, 2, 3)),
        job(2, "ollama", fields=ids(1, 2, 9)),
        job(3, "xllamacpp", fields=ids(1, 2, 3)),
    )
    assert lines(report) == [
        "llama_cpp, xllamacpp: identical",
        "ollama against llama_cpp: diverges at token 3",
    ]


def test_every_workload_of_an_engine_counts(tmp_path):
    report = build(
        tmp_path, *(FakeJob(number=n, backend=b).usual() for n, b in ((1, "a"), (2, "b")))
    )
    assert lines(report) == ["a, b: identical over 4 prompts"]


def test_devices_and_quantizations_are_set_against_themselves_only(tmp_path):
    jobs = [
        job(number, backend, device=device, quantization=quantization)
        for device in ("pi-1", "pi-2")
        for number, (backend, quantization) in enumerate(
            (("a", "Q8_0"), ("b", "Q8_0"), ("a", "Q4_0"), ("b", "Q4_0")), 1
        )
    ]
    report = build(tmp_path, *jobs)
    found = [(group.device, group.quantization, len(group.pairs)) for group in report.equal_work]
    assert sorted(found) == [
        ("pi-1", "Q4_0", 1), ("pi-1", "Q8_0", 1), ("pi-2", "Q4_0", 1), ("pi-2", "Q8_0", 1),
    ]  # fmt: skip


def test_one_engine_with_several_quantizations_is_not_set_against_itself(tmp_path):
    jobs = [job(n, quantization=q) for n, q in ((1, "Q8_0"), (2, "Q4_0"))]
    assert build(tmp_path, *jobs).equal_work == ()


def test_other_threads_make_no_other_engine_but_another_group(tmp_path):
    jobs = [
        job(number, backend, options={"threads": threads})
        for number, (backend, threads) in enumerate((("a", 1), ("b", 1), ("a", 2), ("b", 2)), 1)
    ]
    assert [len(group.engines) for group in build(tmp_path, *jobs).equal_work] == [2, 2]


def test_options_that_make_another_engine_of_a_backend_are_set_against_one_another(tmp_path):
    jobs = [
        job(1, "transformers", options={"threads": 2, "dtype": "fp32"}),
        job(2, "transformers", options={"threads": 2, "dtype": "bf16"}, fields=ids(4)),
        job(3, "llama_cpp", options={"threads": 2, "batch_tokens": 64}),
    ]
    (group,) = build(tmp_path, *jobs).equal_work
    assert [one.name for one in group.engines] == [
        "llama_cpp/batch_tokens=64", "transformers/dtype=bf16", "transformers/dtype=fp32",
    ]  # fmt: skip
    assert len(group.pairs) == 3


def test_an_engine_with_weights_of_its_own_form_is_compared_and_the_form_is_told(tmp_path):
    jobs = [
        job(1, "a", fields=ids(1)),
        job(2, "b", fields=ids(1)),
        job(3, "floating", quantization="F32", fields=ids(2)),
    ]
    assert lines(build(tmp_path, *jobs)) == [
        "a/Q4_0, b/Q4_0: identical",
        "floating/F32 against a/Q4_0: diverges at token 1; weights differ in form: Q4_0 and F32",
    ]


def test_two_files_of_the_same_quantization_are_told(tmp_path):
    jobs = [job(1, "a"), job(2, "b", fields={"model_sha256": digest("copy")})]
    (group,) = build(tmp_path, *jobs).equal_work
    assert group.pairs[0].form == "two files of the same weights"


@pytest.mark.parametrize(
    ("fields", "options", "why"),
    [
        (
            {"model_origin_sha256": digest("x"), "model_sha256": digest("y")},
            {},
            "weights of different origin",
        ),
        (
            {"model_origin_sha256": None, "model_sha256": None},
            {},
            "where the weights come from is unknown",
        ),
        ({}, {"temperature": 0.7}, "not greedy (temperature above 0)"),
        ({"output_tokens_requested": 8}, {}, "asked for 32 and 8 tokens"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path, fields, options, why):
    other = job(2, "b", options={"threads": 2, **options}, fields=fields)
    (group,) = build(tmp_path, job(1, "a"), other).equal_work
    assert group.pairs[0].work.text == f"not comparable: {why}"


def test_invalid_trials_and_warm_ups_are_no_part_of_it(tmp_path):
    noisy = job(2, "b").trial("single", 7, verdict="INVALID", **ids(9))
    noisy.trial("single", 0, warmup=True, **ids(8))
    assert lines(build(tmp_path, job(1, "a"), noisy)) == ["a, b: identical"]
    only_bad = job(2, "b", fields={"verdict": "INVALID"})
    other = tmp_path / "other"
    other.mkdir()
    assert build(other, job(1, "a"), only_bad).equal_work == ()


def test_an_engine_that_does_not_repeat_itself_is_called_not_deterministic(tmp_path):
    moody = job(2, "b", fields=ids(1)).trial("single", 5, **ids(2))
    report = build(tmp_path, job(1, "a", fields=ids(1)), moody)
    assert "b: not deterministic: repetitions gave different output" in lines(report)
    assert [one.repeats for one in report.equal_work[0].engines] == [True, False]


def test_random_sampling_need_not_repeat_itself(tmp_path):
    warm = {"temperature": 0.7}
    moody = job(2, "b", fields=ids(1), options=warm).trial("single", 5, **ids(2))
    (group,) = build(tmp_path, job(1, "a", options=warm), moody).equal_work
    assert [one.repeats for one in group.engines] == [None, None]


def test_equal_work_is_in_the_terminal_in_the_page_and_in_the_json(tmp_path):
    report = build(tmp_path, job(1, "a", fields=ids(1, 2)), job(2, "b", fields=ids(1, 3)))
    text = terminal(report)
    assert "Equal work: pi-1, tiny Q4_0" in text
    assert "b against a: diverges at token 2" in text
    page = flat(as_html(report))
    assert "diverges at token 2" in page
    assert "repeats itself" in page
    (group,) = json.loads(json.dumps(as_json(report)))["equal_work"]
    assert [one["backend"] for one in group["engines"]] == ["a", "b"]
    (pair,) = group["pairs"]
    assert (pair["verdict"], pair["diverges_at"], pair["engines"]) == ("diverges", 2, [0, 1])


def test_token_ids_are_in_the_csv_as_numbers(tmp_path):
    report = build(tmp_path, job(1, fields=ids(11, 22)))
    write_csv(report, tmp_path / "t.csv")
    assert "11 22" in (tmp_path / "t.csv").read_text()


# --- what frameworks cost ------------------------------------------------------------------------


def framework(number=2, tpot_s=0.0125, inner="xllamacpp", **more):
    options = {"threads": 2, "inner_backend": inner}
    return FakeJob(number=number, backend="langchain", options=options, tpot_s=tpot_s, **more)


def test_a_frameworks_cost_is_told_against_the_same_engine_without_it(tmp_path):
    report = build(tmp_path, FakeJob(number=1).usual(), framework().usual())
    single = next(one for one in report.overheads if one.workload == "single")
    assert single.ratios["decode_tps"].ratio == pytest.approx(0.8, rel=0.02)
    assert single.ratios["latency_s"].ratio == pytest.approx(1.25, rel=0.02)
    assert single.ratios["decode_tps"].paired
    assert overhead_text(single).startswith(
        "single: langchain/inner_backend=xllamacpp against xllamacpp: Decode"
    )
    for text in (terminal(report), as_html(report)):
        assert overhead_text(single) in flat(text)
    assert json.loads(json.dumps(as_json(report)))["overheads"][0]["framework"].startswith("langch")


def test_a_cost_that_the_figures_do_not_show_is_not_claimed(tmp_path):
    report = build(tmp_path, FakeJob(number=1).usual(), framework(tpot_s=0.010, seed=5).usual())
    assert "no difference shown" in overhead_text(report.overheads[0])


def test_few_repetitions_are_too_few_to_tell_a_cost(tmp_path):
    report = build(tmp_path, job(1), framework().trial("single"))
    assert "too few repetitions to tell" in overhead_text(report.overheads[0])


@pytest.mark.parametrize("other", [{"quantization": "Q8_0"}, {"device": "pi-2"}, {"model": "x"}])
def test_without_a_bare_cell_like_it_no_cost_is_told(tmp_path, other):
    assert build(tmp_path, job(1, **other), framework().trial("single")).overheads == ()


def test_a_framework_that_does_other_work_is_not_compared_and_the_reason_is_told(tmp_path):
    report = build(tmp_path, job(1), framework().trial("single", output_tokens=9))
    (one,) = report.overheads
    assert one.ratios == {}
    assert overhead_text(one).endswith("not comparable: generated 9 tokens against 32")


# --- cold starts ---------------------------------------------------------------------------------


def cold(number, tpot_s=0.010, included=False, **more):
    made = FakeJob(number=number, options={"threads": 2, "start": "cold"}, tpot_s=tpot_s, **more)
    made.load()
    for repetition in range(8):
        made.trial("single", repetition, cold=True, load_s=0.5 + repetition / 100)
        trial = made.records[-1]
        fields = {"latency_cold_s": trial.latency_s + trial.load_s}
        if included:
            fields |= {"latency_s": None, "ttft_s": None, "prefill_tps": None, "load_s": None}
        made.records[-1] = trial.model_copy(update=fields)
    return made.job(JobState.SUCCEEDED)


def test_each_cold_trial_counts_with_its_own_load(tmp_path):
    (one,) = build(tmp_path, cold(1)).cells
    assert one.headline == "latency_cold_s"
    assert one.figures["latency_cold_s"].count == 8
    assert one.figures["load_s"].count == 8
    assert one.figures["load_s"].median == pytest.approx(0.535)


def test_a_warm_cell_has_one_cold_request_and_the_loads_of_its_jobs(tmp_path):
    found = build(tmp_path, FakeJob().usual()).cells[0]
    assert found.headline == "latency_s"
    assert found.figures["latency_cold_s"].count == 1
    assert found.figures["load_s"].median == 0.4


def test_cold_and_warm_trials_never_share_a_cell_though_their_options_are_equal(tmp_path):
    jobs = [job(1), job(2, fields={"cold": True, "latency_cold_s": 1.0})]
    report = build(tmp_path, *jobs)
    assert "pi-1/xllamacpp/tiny/Q4_0/start=cold/threads=2" in [one.label for one in report.cells]
    assert sorted(one.cell.cold for one in report.cells) == [False, True]


def test_cold_starts_are_compared_with_cold_starts_only(tmp_path):
    warm = FakeJob(number=3).usual()
    slow = cold(2, tpot_s=0.030, backend="other")
    report = build(tmp_path, cold(1), slow, warm, baseline="pi-1/xllamacpp/tiny/Q4_0/start=cold")
    by_label = {one.label: one for one in report.cells if one.cell.workload == "single"}
    assert (
        by_label["pi-1/other/tiny/Q4_0/start=cold/threads=2"]
        .versus.comparisons["latency_cold_s"]
        .gain.ratio
        < 1
    )
    why = by_label["pi-1/xllamacpp/tiny/Q4_0/threads=2"].versus.not_comparable
    assert why == "warm starts against cold"


def test_a_program_started_for_each_prompt_has_a_cold_latency_and_dashes_elsewhere(tmp_path):
    report = build(tmp_path, cold(1, included=True, backend="llamafile"), FakeJob(number=2).usual())
    found = next(one for one in report.cells if one.cell.config.backend == "llamafile")
    assert found.cell.cold
    assert found.figures["latency_cold_s"].count == 8
    assert "latency_s" not in found.figures
    text = terminal(report)
    row = next(line for line in text.splitlines() if line.startswith("llamafile"))
    assert " - " in row
    assert "llamafile" in as_html(report)


# --- what an engine tells at the load ------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "cost"),
    [
        ({"dtype": "bf16", "load_quantization": "none"}, "bf16"),
        ({"dtype": "fp32", "load_quantization": "int8_dynamic"}, "int8_dynamic"),
        ({}, "floating point"),
    ],
)
def test_the_cost_that_a_dequantized_row_shows_is_that_of_what_was_computed(tmp_path, told, cost):
    report = build(tmp_path, job(1).load(engine={"weights_from": "Q8_0", **told}))
    assert f"shows the cost of {cost}, not" in flat(terminal(report))


def test_rows_of_dequantized_weights_say_what_they_stand_for(tmp_path):
    told = {"weights_from": "Q4_1", "dtype": "fp32", "torch": "2.13.0"}
    report = build(tmp_path, job(1, "transformers").load(engine=told))
    remark = "weights dequantized from Q4_1: shows the cost of fp32, not the original's quality"
    assert remark in flat(terminal(report))
    page = flat(as_html(report))
    assert remark in page
    assert "torch=2.13.0" in page
    assert as_json(report)["provenance"][0]["engine"] == told
    other = tmp_path / "other"
    other.mkdir()
    assert "dequantized" not in terminal(build(other, job(1).load()))
