"""What a campaign file may say, and what is said of one that is wrong."""

from pathlib import Path

import pytest

from fleetmark_collector.campaigns.file import Campaign, load_campaign
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES, QuietGate, Timeouts
from fleetmark_protocol.workloads import Workload

SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GOOD = f"""\
version: 1
name: sizes
targets: {{devices: [pi-1]}}
matrix:
  backend: [xllamacpp]
  model:
    - name: tiny
      ref: path:tiny.gguf
      sha256: {SHA}
  quantization: [Q8_0, Q4_0]
  options: {{threads: [1, 2]}}
workloads:
  - {{name: one, kind: single, prompt: hello}}
"""


def load(tmp_path: Path, text: str | bytes) -> Campaign:
    file = tmp_path / "campaign.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_campaign(file)


def complaints(tmp_path: Path, text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return caught.value.message.replace(f"{tmp_path}/", "").splitlines()


def test_a_file_is_read_with_the_contracts_own_defaults(tmp_path):
    campaign = load(tmp_path, GOOD)
    assert campaign.name == "sizes"
    assert [str(cell) for cell in campaign.cells] == [
        "xllamacpp tiny Q8_0 threads=1",
        "xllamacpp tiny Q8_0 threads=2",
        "xllamacpp tiny Q4_0 threads=1",
        "xllamacpp tiny Q4_0 threads=2",
    ]
    workload = Workload(name="one", kind="single", prompts=("hello",))
    assert {cell.workloads for cell in campaign.cells} == {(workload,)}
    assert campaign.timeouts == Timeouts()
    assert campaign.quiet_gate == QuietGate()
    assert (campaign.order, campaign.unavailable, campaign.resume) == ("blocked", "reject", True)
    assert campaign.text == GOOD


def test_one_value_may_stand_without_its_list(tmp_path):
    text = GOOD.replace("[xllamacpp]", "xllamacpp").replace("threads: [1, 2]", "threads: 1")
    (cell,) = load(tmp_path, text.replace("[Q8_0, Q4_0]", "Q8_0")).cells
    assert str(cell) == "xllamacpp tiny Q8_0 threads=1"


def test_null_leaves_an_option_to_the_engine(tmp_path):
    campaign = load(tmp_path, GOOD.replace("threads: [1, 2]", "threads: [1, null]"))
    assert [cell.labels for cell in campaign.cells] == [{"threads": 1}, {"threads": None}] * 2


def test_without_quantization_files_are_used_as_they_are(tmp_path):
    cells = load(tmp_path, GOOD.replace("  quantization: [Q8_0, Q4_0]\n", "")).cells
    assert {cell.model.quantization for cell in cells} == {None}


def test_a_ready_made_file_is_preferred_to_deriving_one(tmp_path):
    files = f"      files: {{Q4_0: {{ref: 'path:q4.gguf', sha256: {'a' * 64}}}}}\n"
    cells = load(tmp_path, GOOD.replace("  quantization", files + "  quantization")).cells
    derived, ready = cells[0].model, cells[-1].model
    assert (ready.ref, ready.sha256, ready.quantization) == ("path:q4.gguf", "a" * 64, "Q4_0")
    assert (derived.ref, derived.sha256) == ("path:tiny.gguf", SHA)


def test_anchors_and_what_looks_like_a_date_are_plain_data(tmp_path):
    text = GOOD.replace("prompt: hello", "prompt: 2026-01-01").replace(
        "devices: [pi-1]", "devices: &names [pi-1], tags: *names"
    )
    campaign = load(tmp_path, text)
    assert campaign.cells[0].workloads[0].prompts == ("2026-01-01",)
    assert campaign.targets.tags == ("pi-1",)


# Each case: what to replace in the good file, by what, and the one complaint that follows.
WRONG = {
    "unknown key": ("name: sizes", "name: sizes\ndescripton: x", "3:1: descripton: unknown key"),
    "suggests the nearest key": (
        "name: sizes",
        "name: sizes\ndescripton: x",
        "(did you mean 'description'?)",
    ),
    "says where a key belongs": (
        "name: sizes",
        "name: sizes\nthreads: 2",
        "threads: unknown key (it belongs under `matrix.options`)",
    ),
    "unknown option": (
        "threads: [1, 2]",
        "thread: 1",
        "11:13: matrix.options.thread: unknown key (did you mean 'threads'?)",
    ),
    "key given twice": ("name: sizes", "name: sizes\nname: b", "3:1: name: key given twice"),
    "no version": ("version: 1\n", "", "1:1: version: missing"),
    "another version": ("version: 1", "version: 2", "1:10: version: Input should be 1 (got 2)"),
    "name in capitals": ("name: sizes", "name: Sizes", "2:7: name: should be lower-case letters"),
    "name too long for the time to be added": ("name: sizes", f"name: {'a' * 48}", "at most 47"),
    "no target": ("devices: [pi-1]", "", "3:10: targets: names no device"),
    "target no text": ("[pi-1]", "[7]", "3:21: targets.devices[0]: Input should be a valid string"),
    "says to quote": ("[pi-1]", "[7]", "(put it in quotes)"),
    "empty matrix": ("[xllamacpp]", "[]", "5:12: matrix.backend: empty list"),
    "same backend twice": (
        "[xllamacpp]",
        "[a, a]",
        "matrix.backend[1]: entry 2 is the same",
    ),
    "no matrix": (
        GOOD[GOOD.index("matrix:") : GOOD.index("workloads:")],
        "",
        "1:1: matrix: missing",
    ),
    "wrong type": ("[1, 2]", "[1, two]", "matrix.options.threads[1]: Input should be a valid int"),
    "text for a number": ("[1, 2]", '"1"', "matrix.options.threads: Input should be a valid int"),
    "truth for a number": ("[1, 2]", "true", "matrix.options.threads: Input should be a valid int"),
    "beyond the contract's limit": ("[1, 2]", "[0]", "greater than or equal to 1 (got 0)"),
    "not a number": ("{threads: [1, 2]}", "{temperature: .nan}", "not a finite number"),
    "no such source": ("path:tiny.gguf", "ftp://x", "8:12: matrix.model[0].ref: not a model ref"),
    "short digest": (SHA, "abc", "9:15: matrix.model[0].sha256: should be 64 hexadecimal digits"),
    "quantization in small letters": ("Q4_0]", "q4_0]", "matrix.quantization[1]: should be the na"),
    "model from nowhere": (f"      ref: path:tiny.gguf\n      sha256: {SHA}\n", "", "neither"),
    "no prompt": (", prompt: hello", "", "13:5: workloads[0]: give prompt"),
    "empty prompt": ("hello", '"  "', "workloads[0].prompt: empty prompt"),
    "many prompts for a single": (
        "prompt: hello",
        "prompts: [a]",
        "workloads[0].prompts: a single workload takes prompt",
    ),
    "no prompts for a multi": (
        "kind: single, prompt: hello",
        "kind: multi, prompts: []",
        "workloads[0].prompts: empty list",
    ),
    "prompts from two places": (
        "kind: single, prompt: hello",
        "kind: multi, prompts: [a], prompts_file: x",
        "workloads[0]: give either prompts or prompts_file",
    ),
    "prompt file missing": (
        "kind: single, prompt: hello",
        "kind: multi, prompts_file: none.txt",
        "13:44: workloads[0].prompts_file: none.txt: no such file",
    ),
    "two workloads of one name": (
        "prompt: hello}",
        "prompt: hello}\n  - {name: one, kind: single, prompt: b}",
        "workloads[1]: given twice: 'one'",
    ),
    "NUL in a prompt": ("hello", '"a\\0b"', "workloads[0].prompt: prompts.0"),
    "half a character": ("hello", '"\\ud800"', "workloads[0].prompt: half of a surrogate pair"),
    "unending time limit": ("workloads:", "timeouts: {job_s: .inf}\nworkloads:", "timeouts.job_s"),
    "merge key": ("name: sizes", "name: sizes\n<<: {seed: 1}", "3:1: merge keys"),
    "tag": ("hello", "!!python/object:os.system x", "workloads[0].prompt: tag"),
    "list for a mapping": ("{devices: [pi-1]}", "[pi-1]", "3:10: targets: Input should be"),
}


@pytest.mark.parametrize(("old", "new", "complaint"), WRONG.values(), ids=WRONG)
def test_each_mistake_is_told_with_its_place(tmp_path, old, new, complaint):
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    said = complaints(tmp_path, text)
    assert any(complaint in line for line in said), said
    assert all(line.startswith("campaign.yaml:") for line in said), said


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = GOOD.replace("name: sizes", "name: S").replace("[1, 2]", "[0]").replace("hello", "''")
    said = complaints(tmp_path, text)
    assert [line.split(": ")[1] for line in said] == [
        "name",
        "matrix.options.threads[0]",
        "workloads[0].prompt",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1", "campaign.yaml:1:6: not YAML"),
        ("a: b: c", "campaign.yaml:1:5: not YAML"),
        ("version: 1\n\tname: x", "(indent with spaces, not tabs)"),
        ("a: *nowhere", "found undefined alias"),
        ("--- 1\n--- 2", "expected a single document"),
        (b"version: 1\nname: \xff", "campaign.yaml:2:7: not UTF-8 text"),
        ("", "campaign.yaml:1:1: Input should be"),
        ("- a", "campaign.yaml:1:1: Input should be"),
        ("[" * 5000, "nested deeper than"),
        ("a: &a [*a]", "nested deeper than"),
        ("#" * 1_000_001, "larger than"),
    ],
)
def test_what_is_no_campaign_at_all_is_refused(tmp_path, text, complaint):
    assert complaint in "\n".join(complaints(tmp_path, text))


def test_a_few_lines_of_aliases_cannot_stand_for_billions(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)
    ]
    assert "once aliases are followed" in "\n".join(complaints(tmp_path, "\n".join(lines)))


def test_a_missing_file_is_told_by_its_name(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        load_campaign(tmp_path / "none.yaml")


def test_quantizations_that_no_file_gives_are_told(tmp_path):
    text = GOOD.replace(
        f"ref: path:tiny.gguf\n      sha256: {SHA}", "files: {Q8_0: {ref: 'path:a'}}"
    )
    assert complaints(tmp_path, text) == [
        "campaign.yaml:7:7: matrix.model[0]: tiny has files for Q8_0 only, and no `ref` to derive "
        "from"
    ]


def test_prompts_must_fit_in_one_message(tmp_path):
    (tmp_path / "p.txt").write_text("x" * 150_000 + "\n")
    many = "".join(
        f"  - {{name: w{n}, kind: multi, prompts_file: p.txt}}\n"
        for n in range(MAX_PAYLOAD_BYTES // 150_000 + 1)
    )
    (said,) = complaints(tmp_path, GOOD.replace("  - {name: one", many + "  - {name: one"))
    assert "must fit in a message" in said


# --- prompt files ------------------------------------------------------------------------------


def with_prompts(tmp_path: Path, name: str, content: str | bytes) -> Campaign:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    workload = f"kind: multi, prompts_file: {name}"
    return load(tmp_path, GOOD.replace("kind: single, prompt: hello", workload))


def test_a_prompt_file_has_one_prompt_a_line(tmp_path):
    campaign = with_prompts(tmp_path, "p.txt", "\ufefffirst\r\n\n  second \n# third\u2028more")
    assert campaign.cells[0].workloads[0].prompts == ("first", "  second ", "# third\u2028more")


def test_a_yaml_prompt_file_may_have_prompts_of_several_lines(tmp_path):
    campaign = with_prompts(tmp_path, "p.yaml", "- first\n- |\n  two\n  lines\n")
    assert campaign.cells[0].workloads[0].prompts == ("first", "two\nlines\n")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("p.txt", " \n\n", "p.txt: no prompt in it"),
        ("p.txt", b"good\nbad \xff", "p.txt:2:5: not UTF-8 text"),
        ("p.yaml", "a: b", "p.yaml:1:1: not a YAML list of prompts"),
        ("p.yaml", "- a\n- 7", "p.yaml:2:3: [1]: not a text"),
        ("p.yaml", "- [", "not YAML"),
    ],
)
def test_a_prompt_file_that_is_wrong_is_told_with_its_own_place(tmp_path, name, content, complaint):
    with pytest.raises(ConfigError) as caught:
        with_prompts(tmp_path, name, content)
    assert "campaign.yaml:13:44: workloads[0].prompts_file: " in caught.value.message
    assert complaint in caught.value.message
