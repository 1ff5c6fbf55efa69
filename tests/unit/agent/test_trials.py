"""The trials of a job: their order, their identity, and what an answer becomes."""

from fleetmark_agent.trials import measured_fields, plan, sha256_text
from fleetmark_protocol.messages import JobSpec


def spec(**changes) -> JobSpec:
    fields = {
        "job_id": "c.d.000",
        "campaign_id": "c",
        "backend": "xllamacpp",
        "model": {"name": "m", "ref": "path:m.gguf"},
        "workloads": [
            {"name": "one", "kind": "single", "prompts": ["a"], "warmup": 2, "repetitions": 3},
            {"name": "many", "kind": "multi", "prompts": ["b", "c"], "warmup": 0, "repetitions": 2},
        ],
    }
    return JobSpec.model_validate({**fields, **changes})


def test_warmups_come_first_and_each_repetition_asks_every_workload():
    order = [
        (t.workload.name, t.repetition, t.prompt_index, t.warmup, t.prompt) for t in plan(spec())
    ]
    assert order == [
        ("one", 0, 0, True, "a"),
        ("one", 1, 0, True, "a"),
        ("one", 0, 0, False, "a"),
        ("many", 0, 0, False, "b"),
        ("many", 0, 1, False, "c"),
        ("one", 1, 0, False, "a"),
        ("many", 1, 0, False, "b"),
        ("many", 1, 1, False, "c"),
        ("one", 2, 0, False, "a"),
    ]


def test_trial_ids_are_unique_and_the_same_for_every_attempt():
    ids = [trial.trial_id for trial in plan(spec())]
    assert len(set(ids)) == len(ids)
    assert ids == [trial.trial_id for trial in plan(spec())]
    assert all(trial_id.startswith("c.d.000.") for trial_id in ids)


def answer(**changes):
    return {
        "start_ns": 1_000_000_000,
        "end_ns": 1_500_000_000,
        "token_times_ns": [1_100_000_000, 1_200_000_000, 1_400_000_000],
        "token_counts": [1, 1, 1],
        "token_ids": [5, 6, 7],
        "text": "abc",
        "completion": {
            "prompt_tokens": 4,
            "prompt_tokens_evaluated": 4,
            "output_tokens": 3,
            "stop_reason": "length",
            "prompt_ids": [1, 2, 3, 4],
            "engine_prefill_s": 0.09,
            "engine_decode_s": 0.3,
        },
        **changes,
    }


def test_an_answer_becomes_the_fields_of_a_record():
    fields = measured_fields(answer())
    assert fields["ttft_s"] == 0.1
    assert fields["tpot_s"] == 0.15
    assert fields["latency_s"] == 0.5
    assert fields["prefill_tps"] == 40
    assert fields["output_tokens"] == 3
    assert fields["output_ids_sha256"] == sha256_text("5,6,7")
    assert fields["output_sha256"] == sha256_text("abc")


def test_an_engine_without_token_ids_has_no_digest_of_them():
    fields = measured_fields(answer(token_ids=[]))
    assert fields["output_ids_sha256"] is None
    assert fields["output_sha256"] == sha256_text("abc")


def test_a_request_is_described_whatever_comes_of_it():
    sweep = {"name": "sweep-128", "kind": "context_sweep", "prompts": ["a b"], "warmup": 0}
    (trial,) = plan(spec(workloads=[{**sweep, "repetitions": 1, "output_tokens": 7}]))
    assert trial.fields(cold=False) == {
        "trial_id": "c.d.000.sweep-128.0.0",
        "trial_index": 0,
        "workload": "sweep-128",
        "workload_kind": "context_sweep",
        "repetition": 0,
        "prompt_index": 0,
        "warmup": False,
        "cold": False,
        "prompt_sha256": sha256_text("a b"),
        "output_tokens_requested": 7,
    }
