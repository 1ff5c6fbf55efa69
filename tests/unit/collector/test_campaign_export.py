"""A campaign with all its records in files: complete, readable by others, never half."""

import json
import zipfile
from contextlib import closing

import pytest

from fakes.fake_fleet import EPOCH, FakeDevice, FakeWorld
from fleetmark_collector.campaigns.export import export_campaign
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.errors import ConfigError, StoreUnavailable
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import EventRecord, TelemetryRecord, TrialRecord


@pytest.fixture
def world(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi-1", ends={"002": JobState.FAILED}))
    world.submit("c1")
    world.submit("c2")
    for _ in range(80):
        world.step()
    yield world
    world.close()


def export(world, target, campaign_id="c1"):
    with closing(world.store()) as store:
        return export_campaign(store, world.reader, campaign_id, target)


def lines(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_everything_of_one_campaign_is_there_and_nothing_of_another(world, tmp_path):
    target = tmp_path / "out"
    counts = export(world, target)
    assert {file.name for file in target.iterdir()} == {
        *("campaign.yaml", "campaign.json", "jobs.jsonl", "moves.jsonl", "trials.jsonl"),
        *("loads.jsonl", "job_records.jsonl", "events.jsonl", "telemetry.jsonl"),
        "late_reports.jsonl",
    }
    about = json.loads((target / "campaign.json").read_text())
    assert (about["campaign_id"], about["state"], about["format_version"]) == ("c1", "FAILED", 1)
    assert about["lines"] == counts
    assert (target / "campaign.yaml").read_text() == (tmp_path / "campaign.yaml").read_text()
    jobs = lines(target / "jobs.jsonl")
    assert [job["state"] for job in jobs] == ["SUCCEEDED", "FAILED", "SUCCEEDED", "SUCCEEDED"]
    assert jobs[1]["failure"]["message"] == "as told"
    assert jobs[0]["spec"]["workloads"][0]["prompts"] == ["hello"]
    assert {move["job_id"][:3] for move in lines(target / "moves.jsonl")} == {"c1."}
    assert len(lines(target / "trials.jsonl")) == len(world.reader.trials("c1")) == 8


def test_a_record_is_read_back_as_it_was(world, tmp_path):
    export(world, tmp_path / "out")
    first = lines(tmp_path / "out" / "trials.jsonl")[0]
    stored = world.reader.trials("c1")[0]
    assert (first["device"], first["epoch"], first["seq"]) == ("pi-1", EPOCH, stored.seq)
    assert TrialRecord.model_validate_json(json.dumps(first["record"])) == stored.record


def test_samples_and_events_of_its_jobs_go_along_and_no_others(world, tmp_path):
    start_ns = world.reader.trials("c1")[0].record.time_ns
    records = [
        TelemetryRecord(time_ns=start_ns, boot_id=EPOCH, job_id="c1.pi-1.001", cpu_percent=50),
        TelemetryRecord(time_ns=start_ns + 1, boot_id=EPOCH, job_id="c2.pi-1.001"),
        TelemetryRecord(time_ns=start_ns + 2, boot_id=EPOCH),
        *(
            EventRecord(time_ns=start_ns, severity="info", code=code, message="", job_id=job_id)
            for code, job_id in (("ours", "c1.pi-1.001"), ("theirs", "c2.pi-1.001"), ("none", None))
        ),
    ]
    world.sink.write([Stored("lab", "pi-1", EPOCH, 500 + n, one) for n, one in enumerate(records)])
    export(world, tmp_path / "out")
    (sample,) = lines(tmp_path / "out" / "telemetry.jsonl")
    assert sample["record"]["cpu_percent"] == 50
    (event,) = lines(tmp_path / "out" / "events.jsonl")
    assert event["record"]["code"] == "ours"


def test_a_zip_file_holds_the_same(world, tmp_path):
    export(world, tmp_path / "plain")
    export(world, tmp_path / "new" / "c1.zip")
    with zipfile.ZipFile(tmp_path / "new" / "c1.zip") as archive:
        assert archive.testzip() is None
        for file in (tmp_path / "plain").iterdir():
            assert archive.read(f"c1/{file.name}") == file.read_bytes()


def test_what_is_there_is_not_touched(world, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        export(world, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_that_breaks_off_leaves_nothing(world, tmp_path):
    world.reader.close()
    (tmp_path / "store.db").rename(tmp_path / "away.db")
    before = sorted(tmp_path.iterdir())
    for name in ("out", "out.zip"):
        with pytest.raises(StoreUnavailable):
            export(world, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


def test_a_place_that_cannot_be_written_is_the_users_mistake(world, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"Not a directory|File exists"):
        export(world, tmp_path / "file" / "out")
