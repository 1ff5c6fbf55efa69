"""What released collectors said, through today's agent: acks free, jobs are taken or refused."""

import json

import pytest

from conversing import Device
from fleetmark_agent.assignments import RefusedJob, read
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import VersionMismatch
from fleetmark_protocol.messages import Assignment
from fleetmark_protocol.records import RECORD
from fleetmark_protocol.version import __version__
from recordedwire import FAR, NEAR, RELEASES, records, wire


def assignments(release, version=None):
    return [said for said in wire(release, "jobs", version) if said.payload]


def keys(value, path=""):
    """All keys of JSON, with where they are."""
    if isinstance(value, dict):
        return {f"{path}.{key}" for key in value} | {
            one for key, item in value.items() for one in keys(item, f"{path}.{key}")
        }
    if isinstance(value, list):
        return {one for item in value for one in keys(item, f"{path}[]")}
    return set()


@pytest.mark.parametrize("version", [None, *NEAR])
@pytest.mark.parametrize("release", RELEASES)
def test_acks_of_a_release_or_one_minor_version_apart_free_what_they_name(
    tmp_path, release, version
):
    acks = wire(release, "ack", version)
    device = Device(tmp_path, epoch=acks[0].json()["epoch"])
    sent = records(release)
    for seq in sorted(sent):
        # As the agent put them in: the numbers of its outbox are those of the recording.
        assert device.outbox.append(RECORD.validate_python(sent[seq])) == seq
    device.talk.greet()
    device.talk.turn()
    assert sum(map(len, device.batches())) == len(sent)
    for said in acks:
        device.talk.received(device.topic("ack"), said.payload)
    assert device.outbox.backlog().records == 0
    assert device.talk.centre.version == (version or release)


@pytest.mark.parametrize("version", FAR)
@pytest.mark.parametrize("release", RELEASES)
def test_acks_of_a_collector_further_apart_free_nothing(tmp_path, release, version, capsys):
    acks = wire(release, "ack", version)
    device = Device(tmp_path, epoch=acks[0].json()["epoch"])
    for record in records(release).values():
        device.outbox.append(RECORD.validate_python(record))
    device.talk.greet()
    device.talk.turn()
    for said in acks:
        device.talk.received(device.topic("ack"), said.payload)
    assert device.outbox.backlog().records == len(records(release))
    assert f"agent {__version__} and collector {version}" in device.talk.centre.refusal


@pytest.mark.parametrize("version", [None, *NEAR])
@pytest.mark.parametrize("release", RELEASES)
def test_jobs_of_a_release_or_one_minor_version_apart_are_read_as_they_are(release, version):
    found = assignments(release, version)
    assert {said.json()["desired"] for said in found} == {"run", "cancel"}
    for said in found:
        assignment = read(said.payload)
        assert isinstance(assignment, Assignment)
        # The values, too: a default that has changed since would change what is measured.
        assert assignment.model_dump(mode="json", exclude_none=True) == said.json()


@pytest.mark.parametrize("release", RELEASES)
def test_what_today_says_of_a_job_that_asks_for_nothing_new_has_no_key_that_the_release_lacks(
    release,
):
    """Else every device of the release would reject every job: see the rules of growth."""
    for said in assignments(release):
        again = codec.encode(codec.decode(Assignment, said.payload))
        new = keys(json.loads(again)["job"]) - keys(said.json()["job"])
        assert new == set(), "new keys of a job must be absent where nobody asks for them"


@pytest.mark.parametrize("version", FAR)
@pytest.mark.parametrize("release", RELEASES)
def test_jobs_of_a_collector_further_apart_are_refused_and_their_cancelling_is_not(
    release, version
):
    for said in assignments(release, version):
        found = read(said.payload)
        if said.json()["desired"] == "cancel":
            assert isinstance(found, Assignment)
            continue
        assert isinstance(found, RefusedJob)
        assert found.job.job_id == topics.parse(said.topic).job_id
        assert isinstance(found.problem, VersionMismatch)
        assert f"collector {version}" in found.problem.message
