"""Messages: an assignment can ask for what the contract knows, and for nothing else."""

import pytest
from pydantic import ValidationError

from fleetmark_protocol.messages import Assignment, JobSpec, Options, QuietGate, Timeouts
from fleetmark_protocol.workloads import Workload

JOB = {
    "job_id": "c.d.1",
    "campaign_id": "c",
    "backend": "xllamacpp",
    "model": {"name": "smol", "ref": "path:smol.gguf"},
    "workloads": [{"name": "short", "kind": "single", "prompts": ["Hello"]}],
}


def test_a_minimal_job_takes_the_documented_defaults():
    job = JobSpec.model_validate(JOB)
    assert job.options == Options()
    assert job.options.temperature == 0
    assert job.options.ignore_eos
    assert job.resume


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_id": "../x"},
        {"campaign_id": "a/b"},
        {"backend": "rm -rf"},
        {"backend": "os:system"},
        {"model": {"name": "../x", "ref": "path:x"}},
        {"model": {"name": "x", "ref": "path:x\0y"}},
        {"model": {"name": "x", "ref": "path:x", "sha256": "abc"}},
        {"workloads": []},
        {"workloads": [{"name": "w", "kind": "single", "prompts": []}]},
        {"workloads": [{"name": "w", "kind": "shell", "prompts": ["p"]}]},
        {"workloads": [{"name": "w", "kind": "single", "prompts": ["a\0b"]}]},
        {"labels": {f"k{n}": n for n in range(65)}},
    ],
    ids=str,
)
def test_a_job_out_of_the_contract_is_refused(wrong):
    with pytest.raises(ValidationError):
        JobSpec.model_validate({**JOB, **wrong})


@pytest.mark.parametrize("field", ["command", "env", "python", "shell", "argv"])
def test_a_job_has_no_place_for_a_command(field):
    job = JobSpec.model_validate({**JOB, field: "reboot"})
    assert field not in job.model_dump()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Options, {"threads": 0}),
        (Options, {"context_tokens": 7}),
        (Options, {"temperature": float("nan")}),
        (Options, {"seed": -1}),
        (Timeouts, {"load_s": 0}),
        (Timeouts, {"job_s": float("inf")}),
        (QuietGate, {"cpu_percent_max": 0}),
        (QuietGate, {"timeout_s": -1}),
        (Workload, {"name": "w", "kind": "single", "prompts": ["p"], "repetitions": 0}),
        (Workload, {"name": "w", "kind": "single", "prompts": ["p"], "output_tokens": 0}),
    ],
    ids=str,
)
def test_a_number_that_makes_no_sense_is_refused(kind, values):
    with pytest.raises(ValidationError):
        kind.model_validate(values)


def test_only_run_and_cancel_can_be_desired():
    for desired in ("run", "cancel"):
        Assignment.model_validate({"desired": desired, "job": JOB})
    with pytest.raises(ValidationError):
        Assignment.model_validate({"desired": "pause", "job": JOB})
