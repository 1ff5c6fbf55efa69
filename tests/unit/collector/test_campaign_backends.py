"""Engines with models, quantizations, options and workloads of their own in a campaign."""

import jsonschema
import pytest
from ruamel.yaml import YAML

from fakes.fake_fleet import FakeDevice, make_inventory
from fleetmark_collector.campaigns.file import campaign_json_schema, load_campaign
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.messages import BackendInfo

TEXT = """\
version: 1
name: engines
targets: {all: true}
matrix:
  backend:
    - llama_cpp
    - name: langchain
      options: {inner_backend: [llama_cpp, ctransformers]}
      quantization: Q8_0
    - name: transformers
      quantization: null
      model: tiny
      options: {dtype: [fp32, bf16], threads: 4}
      workload: [one]
  model:
    - {name: tiny, ref: "path:tiny.gguf"}
    - {name: other, ref: "path:other.gguf"}
  quantization: [Q8_0, Q4_0]
  options: {threads: 2}
workloads:
  - {name: one, kind: single, prompt: hello, warmup: 1, repetitions: 2}
  - {name: two, kind: multi, prompts: [a, b], warmup: 0, repetitions: 3}
order: listed
"""


def load(tmp_path, text=TEXT):
    file = tmp_path / "engines.yaml"
    file.write_text(text)
    return load_campaign(file)


def complaints(tmp_path, old, new):
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, TEXT.replace(old, new, 1))
    return caught.value.message.replace(f"{tmp_path}/", "").splitlines()


def info(name, available=True, **more):
    return BackendInfo(name=name, available=available, **more)


def plan_for(tmp_path, *backends, skip=False):
    text = f"{TEXT}unavailable: skip\n" if skip else TEXT
    device = FakeDevice("pi-1", inventory=make_inventory(backends=backends))
    return make_plan(load(tmp_path, text), "c1", [device])


def test_what_an_engine_has_of_its_own_stands_instead_of_what_the_matrix_has(tmp_path):
    assert [str(cell) for cell in load(tmp_path).cells] == [
        "llama_cpp tiny Q8_0 threads=2",
        "llama_cpp tiny Q4_0 threads=2",
        "llama_cpp other Q8_0 threads=2",
        "llama_cpp other Q4_0 threads=2",
        "langchain tiny Q8_0 threads=2 inner_backend=llama_cpp",
        "langchain tiny Q8_0 threads=2 inner_backend=ctransformers",
        "langchain other Q8_0 threads=2 inner_backend=llama_cpp",
        "langchain other Q8_0 threads=2 inner_backend=ctransformers",
        "transformers tiny threads=4 dtype=fp32",
        "transformers tiny threads=4 dtype=bf16",
    ]


def test_an_engine_is_asked_only_the_workloads_that_it_names(tmp_path):
    jobs = plan_for(tmp_path, info("llama_cpp"), info("langchain"), info("transformers")).jobs
    asked = {job.spec.backend: [one.name for one in job.spec.workloads] for job in jobs}
    assert asked["transformers"] == ["one"]
    assert asked["llama_cpp"] == ["one", "two"]
    trials = {job.spec.backend: job.trials for job in jobs}
    assert trials == {"llama_cpp": 9, "langchain": 9, "transformers": 3}


def test_every_cell_is_a_job_with_an_id_of_its_own(tmp_path):
    jobs = plan_for(tmp_path, info("llama_cpp"), info("langchain"), info("transformers")).jobs
    assert len({job.spec.job_id for job in jobs}) == len(jobs) == 10
    assert jobs[-1].spec.options.dtype == "bf16"
    assert jobs[4].spec.options.inner_backend == "llama_cpp"


def test_two_entries_of_one_engine_make_cells_of_their_own(tmp_path):
    more = "    - {name: llama_cpp, options: {start: cold}}\n"
    cells = load(tmp_path, TEXT.replace("  model:\n    -", f"{more}  model:\n    -")).cells
    assert len(cells) == len({str(cell) for cell in cells}) == 14


def test_editors_take_a_name_and_a_mapping(tmp_path):
    schema = campaign_json_schema()
    data = YAML(typ="safe").load(TEXT)
    jsonschema.validate(data, schema)
    for wrong in ({"nam": "x"}, {"name": "A"}, "A", {"name": "x", "options": {"threads": 0}}):
        data["matrix"]["backend"] = [wrong]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, schema)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "- llama_cpp",
            "- Llama",
            "engines.yaml:6:7: matrix.backend[0]: should be lower-case letters",
        ),
        (
            "- name: langchain\n      options",
            "- options",
            "engines.yaml:7:7: matrix.backend[1].name: missing",
        ),
        ("quantization: Q8_0", "quantisation: Q8_0", "9:7: matrix.backend[1].quantisation: unkn"),
        ("quantization: Q8_0", "quantization: q8", "9:21: matrix.backend[1].quantization: should"),
        ("threads: 4", "threads: 0", "13:47: matrix.backend[2].options.threads: Input should be"),
        (
            "model: tiny",
            "model: tinny",
            "12:14: matrix.backend[2].model: no model 'tinny' in this file (did you mean 'tiny'?)",
        ),
        ("[one]", "[one, three]", "14:23: matrix.backend[2].workload[1]: no workload 'three'"),
        (
            "- llama_cpp",
            "- llama_cpp\n    - llama_cpp",
            "matrix.backend[1]: entry 2 is the same",
        ),
        ("- llama_cpp", "- 7", "matrix.backend[0]: Input should be"),
    ],
)
def test_each_mistake_is_told_with_its_place(tmp_path, old, new, complaint):
    said = complaints(tmp_path, old, new)
    assert any(complaint in line for line in said), said


def test_two_entries_that_make_the_same_cell_are_a_mistake(tmp_path):
    more = "    - {name: llama_cpp, quantization: Q8_0}\n"
    (said,) = complaints(tmp_path, "  model:\n    -", f"{more}  model:\n    -")
    assert said.startswith(
        "engines.yaml:15:7: matrix.backend[3]: makes cells that matrix.backend[0]"
    )


def test_a_framework_is_missing_where_the_engine_it_drives_is(tmp_path):
    missing = info("ctransformers", available=False, reason="not installed")
    backends = (info("llama_cpp"), info("langchain"), info("transformers"), missing)
    refused = [job for job in plan_for(tmp_path, *backends).jobs if job.refusal]
    assert {job.spec.options.inner_backend for job in refused} == {"ctransformers"}
    assert "'ctransformers' is not available there: not installed" in str(refused[0].refusal)
    left_out = plan_for(tmp_path, *backends, skip=True).left_out
    assert [str(one.cell) for one in left_out] == [
        "langchain tiny Q8_0 threads=2 inner_backend=ctransformers",
        "langchain other Q8_0 threads=2 inner_backend=ctransformers",
    ]


def test_an_option_that_an_engine_would_not_honour_is_told_before_the_start(tmp_path):
    plan = plan_for(
        tmp_path,
        info("llama_cpp", takes=("context_tokens", "threads")),
        info("langchain", takes=("inner_backend", "threads")),
        info("transformers", takes=("threads",)),
        info("ctransformers"),
    )
    refused = {str(job.cell): job.refusal for job in plan.jobs if job.refusal is not None}
    assert refused == {
        f"transformers tiny threads=4 dtype={dtype}": "backend 'transformers' does not take dtype "
        "there"
        for dtype in ("fp32", "bf16")
    }


def test_agents_that_do_not_tell_their_options_and_defaults_are_not_judged(tmp_path):
    text = TEXT.replace("options: {threads: 2}", "options: {seed: 0, batch_tokens: null}")
    device = FakeDevice(
        "pi-1",
        inventory=make_inventory(
            backends=(
                info("llama_cpp", takes=("threads",)),
                info("langchain"),
                info("transformers"),
                info("ctransformers"),
            )
        ),
    )
    plan = make_plan(load(tmp_path, text), "c1", [device])
    assert [job.refusal for job in plan.jobs] == [None] * 10
