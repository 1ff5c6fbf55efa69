"""Estimates, job logs and exports of records in InfluxDB: the Reader's role is all they need."""

import json
from contextlib import closing

import pytest

from collected import event, job, load, stored, telemetry, trial
from fakes.fake_fleet import CAMPAIGN, START_NS, FakeDevice, make_campaign
from fleetmark_collector.campaigns.export import export_campaign
from fleetmark_collector.campaigns.history import read_history
from fleetmark_collector.campaigns.joblog import read_log
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.reader import InfluxReader
from fleetmark_collector.sinks.influxdb.writing import InfluxSink
from fleetmark_protocol.jobs import JobState

pytestmark = pytest.mark.integration

CELL = "xllamacpp tiny Q8_0 threads=1"
JOB = "c1.pi.001"
S = 1_800_000_000


def test_a_campaign_is_estimated_logged_and_exported_from_influxdb(influxd, tmp_path):
    settings = InfluxSettings(url=influxd.url, bucket=influxd.name)
    text = CAMPAIGN.replace("[Q8_0, Q4_0]", "Q8_0").replace("[1, 2]", "1")
    campaign = make_campaign(tmp_path, text)
    of = {"campaign_id": "c1", "job_id": JOB}
    records = [
        job(S, "IN_PROGRESS", **of),
        event(S, code="waiting_for_machine", job_id=JOB),
        load(S + 5, load_s=3.0, **of),
        *(
            trial(
                S + 5 + 3 * number,
                f"{JOB}.one.{number}.0",
                prompt_tokens=10,
                output_tokens=20,
                ttft_s=0.5,
                latency_s=2.5,
                **of,
            )
            for number in range(5)
        ),
        telemetry(S + 6, job_id=JOB),
        telemetry(S + 7),
        job(S + 20, "SUCCEEDED", trials_recorded=5, trials_planned=5, **of),
    ]
    with (
        closing(CampaignStore(tmp_path / "state.db", lambda: START_NS)) as store,
        closing(InfluxSink(settings)) as sink,
        closing(InfluxReader(settings)) as reader,
    ):
        sink.connect()
        store.create(campaign, make_plan(campaign, "c1", [FakeDevice("pi")]))
        store.set_job_state(JOB, JobState.SUCCEEDED, attempt=1)
        sink.write([stored(one, number) for number, one in enumerate(records, 1)])

        (pace,) = read_history(store, reader, {CELL: None}).paces.values()
        assert (pace.load_s, pace.gap_s, pace.trials) == pytest.approx((3.0, 0.5, 5))
        assert (pace.prefill_s, pace.decode_s) == pytest.approx((0.05, 0.1))

        log = read_log(store, reader, store.named_job(JOB))
        assert {entry.what for entry in log if entry.source == "device"} == {
            "IN_PROGRESS",
            "SUCCEEDED",
            "waiting_for_machine",
        }

        counts = export_campaign(store, reader, "c1", tmp_path / "out")
    assert {name: counts[f"{name}.jsonl"] for name in ("trials", "loads", "events")} == {
        "trials": 5,
        "loads": 1,
        "events": 1,
    }
    assert (counts["job_records.jsonl"], counts["telemetry.jsonl"]) == (2, 1)
    first = json.loads((tmp_path / "out" / "trials.jsonl").read_text().splitlines()[0])
    assert first["record"]["trial_id"] == f"{JOB}.one.0.0"
