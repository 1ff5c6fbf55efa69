"""Which assignments an agent goes by, and what it says of those it refuses."""

import json
import sys

import pytest

from fleetmark_agent.assignments import RefusedJob, read
from fleetmark_protocol.errors import ContractError, VersionMismatch
from fleetmark_protocol.messages import Assignment
from fleetmark_protocol.version import __version__


def payload(desired="run", version=__version__, top=None, **more):
    job = {
        "job_id": "c.d.001",
        "campaign_id": "c",
        "backend": "xllamacpp",
        "model": {"name": "m", "ref": "path:m.gguf"},
        "workloads": [{"name": "w", "kind": "single", "prompts": ["p"]}],
        "labels": {"whatever": 1},
        **more,
    }
    said = {"desired": desired, "job": job, "collector_version": version, **(top or {})}
    return json.dumps(said).encode()


NEW_WORKLOAD = {"name": "w", "kind": "single", "prompts": ["p"], "think_s": 3}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"power_cap_w": 5}, "power_cap_w"),
        ({"options": {"threads": 2, "mirostat": 1}}, "options.mirostat"),
        ({"workloads": [NEW_WORKLOAD]}, "workloads.0.think_s"),
        ({"model": {"name": "m", "ref": "path:m.gguf", "lora": "x"}}, "model.lora"),
    ],
)
def test_a_job_with_a_key_that_this_version_does_not_know_is_refused_by_its_name(more, named):
    found = read(payload(**more))
    assert isinstance(found, RefusedJob)
    assert isinstance(found.problem, VersionMismatch)
    assert named in found.problem.message
    assert "upgrade the agent" in found.problem.hint
    assert (found.job.job_id, found.job.campaign_id) == ("c.d.001", "c")


def test_what_an_assignment_says_beside_its_job_may_be_unknown():
    assert isinstance(read(payload(top={"priority": 7})), Assignment)


def test_a_job_that_cannot_be_read_is_refused_with_what_is_wrong_with_it():
    found = read(payload(workloads=[{"name": "w", "kind": "video", "prompts": ["p"]}]))
    assert isinstance(found, RefusedJob)
    assert isinstance(found.problem, ContractError)
    assert "workloads.0.kind" in found.problem.message


def test_a_job_with_a_number_that_python_does_not_read_is_refused_by_its_name():
    most = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        found = read(payload().replace(b'"backend"', b'"new": ' + b"9" * 700 + b', "backend"'))
    finally:
        sys.set_int_max_str_digits(most)
    assert isinstance(found, RefusedJob)
    assert isinstance(found.problem, ContractError)
    assert "the job cannot be read: Exceeds the limit" in found.problem.message
    assert found.job.job_id == "c.d.001"


def test_a_job_too_deep_for_python_is_refused_by_its_name(monkeypatch):
    # How deep that is depends on what called; the message's own reader takes less by itself.
    def loads(_):
        raise RecursionError("too deep")

    monkeypatch.setattr("fleetmark_agent.assignments.json.loads", loads)
    found = read(payload())
    assert isinstance(found, RefusedJob)
    assert found.problem.message == "the job cannot be read: too deep"


def test_of_a_collector_too_far_away_the_version_is_the_reason_even_if_nothing_can_be_read():
    found = read(payload(version="99.0.0", workloads="all of them"))
    assert isinstance(found, RefusedJob)
    assert isinstance(found.problem, VersionMismatch)
    assert "collector 99.0.0" in found.problem.message


def test_a_collector_from_before_versions_were_said_gives_jobs():
    assert isinstance(read(payload(version=None)), Assignment)


def test_a_job_is_ended_whoever_asks_for_it():
    for said in (payload("cancel", version="99.0.0"), payload("cancel", power_cap_w=5)):
        assert isinstance(read(said), Assignment)
    unreadable = read(payload("cancel", options=3))
    assert isinstance(unreadable, RefusedJob)
    assert unreadable.head.desired == "cancel"


def test_without_even_a_name_there_is_nobody_to_answer():
    for said in (b"{}", b"\xff", b"[1", payload(job_id="../x"), payload(top={"desired": "dance"})):
        with pytest.raises(ContractError):
            read(said)


def test_many_unknown_keys_do_not_make_a_long_message():
    found = read(payload(**{f"key_{number}": 1 for number in range(90)}))
    assert len(found.problem.message) < 400
    long = read(payload(**{"\x1b" * 5000: 1}))
    assert long.problem.message.isprintable()
    assert len(long.problem.message) < 400
