"""Kinds of workloads in a campaign file: what each takes, and what it becomes on the wire."""

from pathlib import Path

import pytest

from fleetmark_collector.campaigns.cells import count_trials, fewest_trials
from fleetmark_collector.campaigns.file import load_campaign
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.workloads import Adaptive, Workload

TEXT = """\
version: 1
name: kinds
targets: {{all: true}}
matrix:
  backend: [xllamacpp, llama_cpp]
  model: {{name: tiny, ref: "path:tiny.gguf"}}
{matrix}workloads:
{workloads}"""
SWEEP = "{name: sweep, kind: context_sweep, prompt_tokens: [16, 128]}"
CROWD = "{name: crowd, kind: concurrency, prompts: [a, b], clients: [1, 4]}"
SOAK = "{name: heat, kind: soak, prompt: a, duration_s: 60}"
START = "{name: start, kind: coldstart, prompt: a, page_cache: drop}"
ONE = "{name: one, kind: single, prompt: a}"


def load(tmp_path: Path, *workloads: str, matrix: str = "", more: str = ""):
    file = tmp_path / "campaign.yaml"
    listed = "".join(f"  - {one}\n" for one in workloads)
    file.write_text(TEXT.format(matrix=matrix, workloads=listed) + more)
    return load_campaign(file)


def asked(tmp_path: Path, *workloads: str, **more: str) -> tuple[Workload, ...]:
    return load(tmp_path, *workloads, **more).cells[0].workloads


def names(tmp_path: Path, *workloads: str, **more: str) -> list[list[str]]:
    cells = load(tmp_path, *workloads, **more).cells
    return [[one.name for one in cell.workloads] for cell in cells]


def complaint(tmp_path: Path, *workloads: str, **more: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *workloads, **more)
    return caught.value.message.replace(f"{tmp_path}/campaign.yaml:", "")


def test_a_sweep_is_a_workload_for_each_length(tmp_path):
    short, long = asked(tmp_path, SWEEP)
    assert (short.name, short.kind, len(short.prompts)) == ("sweep-16", "context_sweep", 1)
    assert len(short.prompts[0].split()) == 16
    assert (long.name, len(long.prompts[0].split())) == ("sweep-128", 128)


def test_a_single_length_may_stand_without_its_list_and_keeps_its_number(tmp_path):
    (only,) = asked(tmp_path, SWEEP.replace("[16, 128]", "16"))
    assert only.name == "sweep-16"


def test_a_crowd_is_a_workload_for_each_number_of_clients(tmp_path):
    alone, four = asked(tmp_path, CROWD)
    assert (alone.name, alone.kind, alone.clients) == ("crowd-1", "concurrency", 1)
    assert (four.name, four.clients, four.prompts) == ("crowd-4", 4, ("a", "b"))


def test_a_soak_is_asked_once_for_its_time(tmp_path):
    (soak,) = asked(tmp_path, SOAK)
    assert (soak.kind, soak.duration_s, soak.repetitions, soak.warmup) == ("soak", 60, 1, 1)


def test_a_cold_start_says_whether_the_page_cache_is_dropped(tmp_path):
    (drop,) = asked(tmp_path, START)
    (keep,) = asked(tmp_path, START.replace(", page_cache: drop", ""))
    assert (drop.kind, drop.page_cache, keep.page_cache) == ("coldstart", "drop", "keep")


def test_a_crowd_may_take_its_prompts_from_a_file(tmp_path):
    (tmp_path / "p.txt").write_text("x\ny\n")
    crowd = asked(tmp_path, CROWD.replace("prompts: [a, b]", "prompts_file: p.txt"))
    assert {one.prompts for one in crowd} == {("x", "y")}


def test_adaptive_repetitions_travel_with_the_most_as_their_number(tmp_path):
    often = "{half_width_percent: 5, min: 4, max: 40, budget_s: 600}"
    (one,) = asked(tmp_path, ONE.replace("}", f", repetitions: {often}}}"))
    assert one.repetitions == 40
    assert one.adaptive == Adaptive(half_width_percent=5, min=4, budget_s=600)
    assert (fewest_trials([one]), count_trials([one])) == (1 + 4, 1 + 40)


def test_only_the_width_must_be_said_of_adaptive_repetitions(tmp_path):
    (one,) = asked(tmp_path, ONE.replace("}", ", repetitions: {half_width_percent: 5}}"))
    assert (one.repetitions, one.adaptive) == (50, Adaptive(half_width_percent=5, min=3))
    # No budget ends it, and an interval takes six.
    assert (fewest_trials([one]), count_trials([one])) == (1 + 6, 1 + 50)


@pytest.mark.parametrize(
    ("workload", "trials"),
    [
        (SWEEP, 2 * (1 + 8)),
        (CROWD, 1 * (1 + 8) + 4 * (1 + 8)),
        (SOAK, 1 + 1),
        (START, 1 + 8),
        (ONE, 1 + 8),
        ("{name: two, kind: multi, prompts: [a, b], repetitions: 3}", 1 + 6),
    ],
)
def test_trials_are_counted_by_kind(tmp_path, workload, trials):
    assert load(tmp_path, workload).cells[0].trials == trials


# --- names in the matrix -----------------------------------------------------------------------


def test_a_backend_that_names_a_sweep_is_asked_all_of_it_or_one_length(tmp_path):
    def of(name: str) -> list[list[str]]:
        backend = f"[xllamacpp, {{name: llama_cpp, workload: {name}}}]"
        text = TEXT.replace("[xllamacpp, llama_cpp]", backend.replace("{", "{{").replace("}", "}}"))
        file = tmp_path / "campaign.yaml"
        file.write_text(text.format(matrix="", workloads=f"  - {SWEEP}\n  - {ONE}\n"))
        return [[one.name for one in cell.workloads] for cell in load_campaign(file).cells]

    everything = ["sweep-16", "sweep-128", "one"]
    assert of("sweep") == [everything, ["sweep-16", "sweep-128"]]
    assert of("sweep-128") == [everything, ["sweep-128"]]
    assert of("[one, sweep-16, sweep]") == [everything, everything]


def test_exclude_and_include_name_a_sweep_or_one_length(tmp_path):
    exclude = "  exclude: {{backend: llama_cpp, workload: {}}}\n"
    everything = ["sweep-16", "sweep-128", "one"]
    workloads = (SWEEP, ONE)
    assert names(tmp_path, *workloads, matrix=exclude.format("sweep")) == [everything, ["one"]]
    some = ["sweep-16", "one"]
    assert names(tmp_path, *workloads, matrix=exclude.format("sweep-128")) == [everything, some]
    include = "  include: {backend: ollama, model: tiny, workload: sweep}\n"
    assert names(tmp_path, *workloads, matrix=include)[-1] == ["sweep-16", "sweep-128"]


def test_a_workload_that_is_not_there_is_told_with_the_nearest(tmp_path):
    include = "  include: {backend: ollama, model: tiny, workload: sweep-12}\n"
    assert "no workload 'sweep-12' in this file (did you mean 'sweep-128'?)" in complaint(
        tmp_path, SWEEP, matrix=include
    )
    exclude = "  exclude: {backend: llama_cpp, workload: sweeep}\n"
    assert "no cell has the workload 'sweeep' (did you mean 'sweep'?)" in complaint(
        tmp_path, SWEEP, ONE, matrix=exclude
    )


def test_two_entries_that_make_one_name_are_told(tmp_path):
    said = complaint(tmp_path, SWEEP, ONE.replace("name: one", "name: sweep-16"))
    assert said.startswith("9:12: workloads[1].name: 'sweep-16' is a workload of 'sweep' and of")
    other = CROWD.replace("name: crowd", "name: sweep").replace("clients: [1, 4]", "clients: 16")
    assert "given twice: 'sweep'" in complaint(tmp_path, SWEEP, other)


def test_a_name_with_its_number_must_still_be_a_name(tmp_path):
    said = complaint(tmp_path, SWEEP.replace("name: sweep", f"name: {'s' * 60}"))
    assert "workloads[0].name: at most 63 characters with what is added: " in said
    assert asked(tmp_path, SWEEP.replace("name: sweep", f"name: {'s' * 59}"))


# --- what a kind does not take, and what does not go together ------------------------------------


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (ONE.replace("}", ", duration_s: 1}"), "takes prompt, not duration_s (soak does)"),
        (SWEEP.replace("}", ", clients: 2}"), "takes prompt_tokens, not clients (concurrency does"),
        (SOAK.replace("}", ", page_cache: drop}"), "prompts_file, not page_cache (coldstart does)"),
        (START.replace("}", ", prompts: [b]}"), "takes page_cache or prompt, not prompts (multi, "),
        (CROWD.replace(", clients: [1, 4]", ""), "a concurrency workload needs clients"),
        (CROWD.replace("prompts: [a, b], ", ""), "give either prompt, prompts or prompts_file"),
        (SOAK.replace("60", "0"), "workloads[0].duration_s: Input should be greater than 0"),
        (SWEEP.replace("128", "40000"), "prompt_tokens[1]: Input should be less than or equal to"),
        (SWEEP.replace("[16, 128]", "[]"), "workloads[0].prompt_tokens: empty list"),
        (ONE.replace("}", ", repetitions: true}"), "repetitions: should be a number, or a mapping"),
        (ONE.replace("}", ", repetitions: 0}"), "repetitions: Input should be greater than or eq"),
        (ONE.replace("}", ", repetitions: {}}"), "repetitions.half_width_percent: missing"),
    ],
)
def test_keys_that_a_kind_does_not_take_or_needs_are_told(tmp_path, workload, said):
    assert said in complaint(tmp_path, workload)


def test_a_sweep_must_fit_in_the_context_of_every_cell_that_is_asked_it(tmp_path):
    matrix = "  options: {{context_tokens: [{}, 512]}}\n"
    said = complaint(tmp_path, SWEEP, matrix=matrix.format(192))
    assert said == (
        "9:60: workloads[0].prompt_tokens[1]: 128 prompt tokens, one that begins the text and 64 "
        "output tokens do not fit in the context of 192 tokens of xllamacpp tiny "
        "context_tokens=192: set matrix.options.context_tokens to 193 or more"
    )
    assert asked(tmp_path, SWEEP, matrix=matrix.format(193))
    exclude = "  exclude: {options: {context_tokens: 192}, workload: sweep-128}\n"
    assert asked(tmp_path, SWEEP, matrix=matrix.format(192) + exclude)


@pytest.mark.parametrize("workload", [ONE, SOAK, CROWD, START])
def test_an_answer_must_fit_in_the_context_beside_a_prompt_whatever_the_kind(tmp_path, workload):
    long = workload.replace("}", ", output_tokens: 2048}")
    said = complaint(tmp_path, long)
    assert said == (
        f"8:{len('  - ') + long.index('output_tokens') + len('output_tokens: ') + 1}: "
        "workloads[0].output_tokens: a prompt of one token at least and 2048 output tokens do not "
        "fit in the context of 2048 tokens of xllamacpp tiny: set matrix.options.context_tokens to "
        "2049 or more, or output_tokens to 2047 or less"
    )
    assert asked(tmp_path, long.replace("2048", "2047"))
    matrix = "  options: {context_tokens: [2049, 4096]}\n"
    assert asked(tmp_path, long, matrix=matrix)
    said = complaint(tmp_path, ONE, matrix="  options: {context_tokens: [64, 4096]}\n")
    assert "workloads[0]: a prompt of one token at least and 64 output tokens" in said
    exclude = "  exclude: {options: {context_tokens: 2048}, workload: WHICH}\n"
    other = "{name: other, kind: single, prompt: b}"
    name = workload.split(",")[0].removeprefix("{name: ")
    matrix = "  options: {context_tokens: [2048, 4096]}\n" + exclude.replace("WHICH", name)
    assert asked(tmp_path, long, other, matrix=matrix)


@pytest.mark.parametrize("workload", [SOAK, CROWD])
def test_what_keeps_an_engine_busy_cannot_start_it_for_each_trial(tmp_path, workload):
    said = complaint(tmp_path, workload, matrix="  options: {start: [warm, cold]}\n")
    assert "workloads[0].kind: a " in said
    assert "keeps one engine busy, but xllamacpp tiny start=cold starts one" in said
    assert asked(tmp_path, START, matrix="  options: {start: cold}\n")


def test_cool_down_and_order_have_the_contracts_defaults(tmp_path):
    plain = load(tmp_path, ONE)
    assert (plain.order, plain.blocks, plain.cool_down) == ("blocked", 4, None)
    said = load(tmp_path, ONE, more="cool_down: {temperature_c: 55}\norder: interleaved\n")
    assert said.cool_down.model_dump() == {
        "temperature_c": 55,
        "before": "job",
        "timeout_s": 600,
    }
    assert (said.order, said.blocks) == ("interleaved", 4)
