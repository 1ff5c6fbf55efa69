"""Records of trials: when they were, who of a round may be compared, and what was cold."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fakes.fake_engine import PAUSE_S, START_S, FakeEngine, answer
from fleetmark_agent import session
from fleetmark_agent.cooling import Cooler
from fleetmark_agent.course import Round
from fleetmark_agent.database import Database
from fleetmark_agent.engine import Timed
from fleetmark_agent.joblog import JobLog
from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.models.stored import StoredModel
from fleetmark_agent.outbox import Outbox
from fleetmark_agent.recorder import Recorder
from fleetmark_agent.results import Results, Start, counted_latency_s
from fleetmark_agent.session import Session
from fleetmark_agent.trials import plan
from fleetmark_protocol.errors import BackendError, OutboxFull
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import JobSpec


def spec(workload, **more):
    return JobSpec.model_validate(
        {
            "job_id": "c.d.000",
            "campaign_id": "c",
            "backend": "xllamacpp",
            "model": {"name": "m", "ref": "remote:m"},
            "options": {"threads": 1},
            "workloads": [
                {"name": "w", "prompts": ["a"], "output_tokens": 8, "warmup": 0, **workload}
            ],
            **more,
        }
    )


@pytest.fixture
def model(tmp_path):
    return StoredModel(tmp_path, "remote", None, None, None, None, None, ModelFacts(), "m")


# --- rounds ---------------------------------------------------------------------------------------


@pytest.fixture
def judged(model):
    """Record a round of three clients, the first with what a test wants; returns its records."""

    def run(first, *, ignore_eos=True, prepared=False):
        job = spec(
            {"kind": "concurrency", "clients": 3, "repetitions": 1},
            options={"threads": 1, "ignore_eos": ignore_eos},
        )
        window = FakeEngine().window(1.0)
        dones = [Timed(answer(), window, None, prepared) for _ in range(3)]
        dones[0] = replace(dones[0], **first)
        results = Results(job, job.options, 1, model, quiet=True)
        asked = Round(tuple(plan(job)), cold=False, opens=True)
        return results.trials(asked, dones, Start(1, load_s=0.5))

    return run


def test_a_round_in_which_all_did_their_work_is_compared(judged):
    records = judged({})
    assert [record.verdict_reasons for record in records] == [()] * 3
    assert all(record.throughput_tps == pytest.approx(24) for record in records)


@pytest.mark.parametrize(
    "first", [{"answer": answer(3)}, {"answer": {}, "error": BackendError("it said no")}]
)
def test_who_asked_beside_a_client_that_did_less_than_it_had_to_is_not_compared(judged, first):
    records = judged(first)
    assert [record.verdict for record in records] == ["INVALID"] * 3
    assert "incomplete_round" not in records[0].verdict_reasons
    assert [record.verdict_reasons for record in records[1:]] == [("incomplete_round",)] * 2
    assert [record.throughput_tps for record in records] == [None] * 3


def test_a_model_that_may_end_by_itself_spoils_nobodys_round(judged):
    records = judged({"answer": answer(3)}, ignore_eos=False)
    assert [record.verdict for record in records] == ["SUSPECT", "VALID", "VALID"]
    assert records[0].throughput_tps == pytest.approx(19)


def test_an_engine_that_has_worked_since_its_load_is_not_cold(judged):
    assert [one.latency_cold_s for one in judged({})] == [pytest.approx(1.5)] * 3
    assert [one.latency_cold_s for one in judged({}, prepared=True)] == [None] * 3


# --- adaptive repetitions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cold", "included", "counted"), [(False, False, 1), (False, True, None), (True, True, 1)]
)
def test_a_load_within_a_request_counts_only_where_each_is_to_start_cold(
    model, cold, included, counted
):
    job = spec({"kind": "single", "repetitions": 1})
    done = Timed(answer(load_included=included), FakeEngine().window(1.0), None)
    asked = Round(tuple(plan(job)), cold=cold, opens=True)
    results = Results(job, job.options, 1, model, quiet=True)
    (record,) = results.trials(asked, [done], Start(1))
    assert counted_latency_s(record) == counted


# --- when -----------------------------------------------------------------------------------------


class Bench:
    """A session of a job on an engine that is none."""

    def __init__(self, directory, model, job, monkeypatch):
        self.engines, self.checks = [], []
        monkeypatch.setattr(session, "Engine", self._engine)
        database = Database(directory / "o.db")
        self.outbox = Outbox(database, 10**8)
        joblog = JobLog(database)
        joblog.accept(job)
        recorder = Recorder(database, self.outbox, joblog, stopped=lambda: True)
        cooler = Cooler(None, lambda: None, lambda: False, lambda: None)
        self.session = Session(
            None,
            recorder,
            job,
            1,
            model,
            quiet=True,
            cooler=cooler,
            stopped=lambda: False,
            check_model=lambda: self.checks.append(("read", len(self.engines))),
            still_good=lambda: self.checks.append(("looked at", len(self.engines))),
        )

    def _engine(self, *args):
        self.engines.append(FakeEngine(*args))
        return self.engines[-1]

    def trials(self):
        self.session.run()
        every = [json.loads(body) for _, body in self.outbox.batch(1000, 10**9)]
        return [record for record in every if record["kind"] == "trial"]


def test_a_trial_is_when_its_window_opened_not_when_it_was_prepared(tmp_path, model, monkeypatch):
    job = spec({"kind": "single", "repetitions": 2})
    bench = Bench(tmp_path, model, job, monkeypatch)
    times = [trial["time_ns"] for trial in bench.trials()]
    assert times == [opened.time_ns for opened in bench.engines[0].opened[1:]]


def test_a_model_is_checked_before_each_start_of_an_engine_and_looked_at_after_each_load(
    tmp_path, model, monkeypatch
):
    job = spec({"kind": "coldstart", "repetitions": 2})
    bench = Bench(tmp_path, model, job, monkeypatch)
    bench.trials()
    assert len(bench.engines) > 1
    expected = [
        one for n in range(len(bench.engines)) for one in (("read", n), ("looked at", n + 1))
    ]
    assert bench.checks == expected


def test_a_soak_begins_with_the_window_of_its_first_request(tmp_path, model, monkeypatch):
    job = spec({"kind": "soak", "duration_s": PAUSE_S + 2, "repetitions": 1})
    bench = Bench(tmp_path, model, job, monkeypatch)

    def now_s():
        return bench.engines[0].mono() / 1e9 if bench.engines else START_S

    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=now_s))
    assert [trial["soak_s"] for trial in bench.trials()] == [0, PAUSE_S + 1]


# --- a disk that is full --------------------------------------------------------------------------


def test_saying_again_how_a_job_ended_waits_for_no_disk(tmp_path, monkeypatch):
    database = Database(tmp_path / "o.db")
    outbox = Outbox(database, 10**8)
    recorder = Recorder(database, outbox, JobLog(database), stopped=lambda: True)
    ended = recorder.final(spec({"kind": "single"}), JobState.CANCELED, None, None)

    def full(_record):
        raise OutboxFull("no room")

    monkeypatch.setattr(outbox, "append", full)
    with pytest.raises(OutboxFull):
        recorder.again(ended)
