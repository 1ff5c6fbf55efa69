"""`matrix.exclude` and `matrix.include`: the rules of a CI matrix, and where they would mislead."""

import jsonschema
import pytest
from ruamel.yaml import YAML

from fleetmark_collector.campaigns.file import campaign_json_schema, load_campaign
from fleetmark_protocol.errors import ConfigError

TEXT = """\
version: 1
name: matrix
targets: {all: true}
matrix:
  backend: [xllamacpp, llama_cpp]
  model: {name: tiny, ref: "path:tiny.gguf"}
  quantization: [Q8_0, Q4_0]
workloads:
  - {name: one, kind: single, prompt: hello}
  - {name: two, kind: single, prompt: bye}
"""


def load(tmp_path, more="", text=TEXT):
    file = tmp_path / "matrix.yaml"
    file.write_text(text.replace("workloads:", f"{more}workloads:"))
    return load_campaign(file)


def cells(tmp_path, more="", text=TEXT):
    """Each cell in words; with its workloads where these are not all."""
    return [
        str(cell)
        if len(cell.workloads) == 2
        else f"{cell}: {'+'.join(one.name for one in cell.workloads)}"
        for cell in load(tmp_path, more, text).cells
    ]


def complaints(tmp_path, more, text=TEXT):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, more, text)
    return caught.value.message.replace(f"{tmp_path}/", "").splitlines()


ALL = ["xllamacpp tiny Q8_0", "xllamacpp tiny Q4_0", "llama_cpp tiny Q8_0", "llama_cpp tiny Q4_0"]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ("{backend: llama_cpp}", ALL[:2]),
        ("{backend: llama_cpp, quantization: Q8_0}", [*ALL[:2], ALL[3]]),
        ("[{backend: llama_cpp}, {quantization: Q4_0}]", ALL[:1]),
        ("{backend: [llama_cpp, xllamacpp], quantization: Q4_0}", [ALL[0], ALL[2]]),
        ("{model: tiny, quantization: Q8_0}", [ALL[1], ALL[3]]),
        ("{backend: xllamacpp, workload: one}", [f"{ALL[0]}: two", f"{ALL[1]}: two", *ALL[2:]]),
        ("[{workload: one}, {workload: two, backend: xllamacpp}]", [f"{c}: two" for c in ALL[2:]]),
    ],
)
def test_a_cell_is_excluded_by_all_that_an_entry_names(tmp_path, exclude, left):
    assert cells(tmp_path, f"  exclude: {exclude}\n") == left


def test_options_exclude_cells_that_have_them(tmp_path):
    text = "  options: {threads: [1, 2]}\n  exclude: {quantization: Q4_0, options: {threads: 1}}\n"
    assert cells(tmp_path, text)[:3] == [f"{ALL[0]} threads=1", f"{ALL[0]} threads=2"] + [
        f"{ALL[1]} threads=2"
    ]


def test_an_include_adds_options_to_the_cells_it_fits(tmp_path):
    include = "  include: {quantization: Q4_0, options: {batch_tokens: 64}}\n"
    added = [ALL[0], f"{ALL[1]} batch_tokens=64", ALL[2], f"{ALL[3]} batch_tokens=64"]
    assert cells(tmp_path, include) == added


def test_an_include_that_fits_no_cell_is_a_cell_of_its_own(tmp_path):
    include = "  include: {backend: ollama, model: tiny, options: {threads: 4}, workload: two}\n"
    assert cells(tmp_path, include) == [*ALL, "ollama tiny threads=4: two"]


def test_what_the_matrix_gives_is_not_overwritten_but_what_was_added_may_be(tmp_path):
    include = """\
  include:
    - options: {threads: 1}
    - {options: {threads: 2}, quantization: Q8_0}
    - {backend: xllamacpp, options: {batch_tokens: 64}}
    - {backend: ollama, model: tiny}
    - {backend: ollama, model: tiny, quantization: Q8_0}
"""
    assert cells(tmp_path, include) == [
        "xllamacpp tiny Q8_0 threads=2 batch_tokens=64",
        "xllamacpp tiny Q4_0 threads=1 batch_tokens=64",
        "llama_cpp tiny Q8_0 threads=2",
        "llama_cpp tiny Q4_0 threads=1",
        "ollama tiny",
        "ollama tiny Q8_0",
    ]


def test_an_include_brings_back_what_was_excluded(tmp_path):
    more = """\
  exclude: {backend: llama_cpp}
  include: {backend: llama_cpp, model: tiny, quantization: Q4_0, workload: one}
"""
    assert cells(tmp_path, more) == [*ALL[:2], f"{ALL[3]}: one"]


def test_a_list_in_an_include_stands_for_as_many_entries(tmp_path):
    include = "  include: {backend: ollama, model: tiny, options: {threads: [1, 2]}}\n"
    assert cells(tmp_path, include) == [*ALL, "ollama tiny threads=1", "ollama tiny threads=2"]


def test_options_for_one_workload_make_another_job_of_it(tmp_path):
    include = "  include: {backend: llama_cpp, workload: two, options: {threads: 1}}\n"
    assert cells(tmp_path, include)[2:] == [
        "llama_cpp tiny Q8_0: one",
        "llama_cpp tiny Q8_0 threads=1: two",
        "llama_cpp tiny Q4_0: one",
        "llama_cpp tiny Q4_0 threads=1: two",
    ]


def test_where_the_matrix_gives_no_quantization_an_include_may(tmp_path):
    text = TEXT.replace("  quantization: [Q8_0, Q4_0]\n", "")
    include = "  include: {backend: llama_cpp, quantization: Q4_0}\n"
    assert cells(tmp_path, include, text) == ["xllamacpp tiny", "llama_cpp tiny Q4_0"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "exclude: {backend: lama_cpp}",
            "8:22: matrix.exclude.backend: no cell has the backend 'lama_cpp' "
            "(did you mean 'llama_cpp'?)",
        ),
        (
            "exclude: [{model: tiny, quantization: [Q8_0, Q5_0]}]",
            "8:48: matrix.exclude[0].quantization[1]: no cell has the quantization 'Q5_0' "
            "(did you mean 'Q8_0'?)",
        ),
        (
            "exclude: {workload: three}",
            "8:23: matrix.exclude.workload: no cell has the workload 'three' (known: one, two)",
        ),
        (
            "exclude: {options: {threads: 1}}",
            "8:32: matrix.exclude.options.threads: no cell has the option 'threads'",
        ),
        ("exclude: {}", "8:12: matrix.exclude: names nothing: give backend, model, quantization,"),
        (
            "exclude: {backend: [llama_cpp, xllamacpp]}",
            "8:12: matrix.exclude: excludes every cell: none is left",
        ),
        ("exclude: {bakend: x}", "8:13: matrix.exclude.bakend: unknown key (did you mean 'backen"),
        (
            "include: {backend: xllamacpp, quantization: Q8_0}",
            "8:12: matrix.include: makes nothing new: the matrix has this cell already",
        ),
        (
            "include: {backend: ollama}",
            "8:12: matrix.include: fits no cell of the matrix, and a new cell needs model as well",
        ),
        (
            "include: {quantization: Q5_0}",
            "8:12: matrix.include: fits no cell of the matrix, and a new cell needs backend and mo",
        ),
        (
            "include: {backend: ollama, model: tinny}",
            "8:37: matrix.include.model: no model 'tinny' in this file (did you mean 'tiny'?)",
        ),
        (
            "include: [{backend: ollama, model: tiny}, {backend: ollama, model: tiny, "
            "workload: one}]",
            "8:45: matrix.include[1]: makes a cell twice: ollama tiny one",
        ),
        (
            "include: {backend: Ollama, model: tiny}",
            "8:22: matrix.include.backend: should be lower",
        ),
    ],
)
def test_an_entry_that_does_nothing_or_too_much_is_told_with_its_place(tmp_path, more, said):
    lines = complaints(tmp_path, f"  {more}\n")
    assert any(line.startswith(f"matrix.yaml:{said}") for line in lines), lines


def test_an_exclude_whose_values_never_meet_excludes_nothing(tmp_path):
    text = TEXT.replace(
        "backend: [xllamacpp, llama_cpp]",
        "backend: [xllamacpp, {name: llama_cpp, quantization: Q8_0}]",
    )
    more = "  exclude: {backend: llama_cpp, quantization: Q4_0}\n"
    assert complaints(tmp_path, more, text) == [
        "matrix.yaml:8:12: matrix.exclude: excludes nothing: no cell has all of this"
    ]


def test_an_option_that_makes_two_cells_the_same_is_told(tmp_path):
    text = TEXT.replace(
        "backend: [xllamacpp, llama_cpp]",
        "backend: [llama_cpp, {name: llama_cpp, options: {start: cold}}]",
    )
    lines = complaints(tmp_path, "  include: {options: {start: cold}}\n", text)
    assert lines[0] == (
        "matrix.yaml:8:12: matrix.include: makes a cell twice: llama_cpp tiny Q4_0 one start=cold"
    )


def test_a_file_that_the_model_lacks_is_told_at_the_include(tmp_path):
    text = TEXT.replace(
        'ref: "path:tiny.gguf"', 'files: {Q8_0: {ref: "path:a"}, Q4_0: {ref: "path:b"}}'
    )
    assert complaints(tmp_path, "  include: {backend: ollama, model: tiny}\n", text) == [
        "matrix.yaml:8:12: matrix.include: tiny has no `ref`: say which of its `files` to use with "
        "matrix.quantization (known: Q8_0, Q4_0)"
    ]


def test_a_file_that_only_excluded_cells_would_need_may_be_missing(tmp_path):
    text = TEXT.replace('ref: "path:tiny.gguf"', 'files: {Q8_0: {ref: "path:a"}}')
    assert cells(tmp_path, "  exclude: {quantization: Q4_0}\n", text) == [ALL[0], ALL[2]]


def test_editors_know_both_keys():
    schema = campaign_json_schema()
    data = YAML(typ="safe").load(TEXT)
    data["matrix"] |= {"exclude": [{"backend": "llama_cpp"}], "include": {"workload": ["one"]}}
    jsonschema.validate(data, schema)
    data["matrix"]["include"] = [{"bakend": "x"}]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema)
