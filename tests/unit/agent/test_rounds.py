"""Requests at the same time: which trials they are, and what a round of them did."""

import pytest

from fleetmark_agent.rounds import incomplete, round_fields, round_s, rounds
from fleetmark_agent.trials import plan
from fleetmark_protocol.messages import JobSpec


def job(*workloads) -> JobSpec:
    return JobSpec.model_validate(
        {
            "job_id": "c.d.000",
            "campaign_id": "c",
            "backend": "xllamacpp",
            "model": {"name": "m", "ref": "path:m.gguf"},
            "workloads": workloads,
        }
    )


def crowd(clients=3, prompts=("a", "b"), **more):
    workload = {"name": "crowd", "kind": "concurrency", "prompts": prompts, "clients": clients}
    return {**workload, "warmup": 1, "repetitions": 2, **more}


ONE = {"name": "one", "kind": "single", "prompts": ["x"], "warmup": 0, "repetitions": 2}


def test_a_round_has_a_trial_for_each_client_and_its_warmup_too():
    ids = [trial.trial_id for trial in plan(job(crowd()))]
    assert ids == [f"c.d.000.crowd.{name}.{i}" for name in ("w0", "0", "1") for i in range(3)]


def test_client_i_asks_prompt_i_modulo_their_number():
    assert [trial.prompt for trial in plan(job(crowd(warmup=0, repetitions=1)))] == ["a", "b", "a"]


def test_a_record_says_which_client_of_how_many_it_was_and_others_say_nothing():
    trials = plan(job(crowd(warmup=0, repetitions=1), {**ONE, "repetitions": 1}))
    fields = [trial.fields(cold=False) for trial in trials]
    assert [(one.get("clients"), one.get("client")) for one in fields] == [
        (3, 0),
        (3, 1),
        (3, 2),
        (None, None),
    ]
    assert [one["prompt_index"] for one in fields] == [0, 1, 0, 0]


def test_trials_of_a_round_are_together_and_all_others_alone():
    together = rounds(plan(job(crowd(2), ONE, crowd(4, name="more"))))
    names = [(trials[0].workload.name, trials[0].warmup, len(trials)) for trials in together]
    assert names == [
        ("crowd", True, 2),
        ("more", True, 4),
        ("crowd", False, 2),
        ("one", False, 1),
        ("more", False, 4),
        ("crowd", False, 2),
        ("one", False, 1),
        ("more", False, 4),
    ]


def test_one_client_is_a_round_of_its_own():
    trials = plan(job(crowd(1)))
    assert [len(together) for together in rounds(trials)] == [1, 1, 1]
    assert trials[0].client == 0


def answer(start_s, end_s, tokens, *, counted=True):
    completion = {"output_tokens": tokens} if counted else None
    return {
        "start_ns": int(start_s * 1e9),
        "end_ns": int(end_s * 1e9),
        "token_counts": [1] * tokens,
        "completion": completion,
    }


def test_throughput_is_all_tokens_over_the_time_from_the_first_start_to_the_last_end():
    answers = [answer(1.0, 4.0, 30), answer(1.5, 3.5, 20, counted=False), answer(1.2, 6.0, 50)]
    assert round_s(answers) == pytest.approx(5.0)
    rate = round_fields(answers, 20, ignore_eos=True)
    assert rate == {"throughput_tps": pytest.approx(20.0)}


def test_a_round_in_which_a_client_failed_has_no_rate():
    assert round_fields([answer(1.0, 4.0, 30), {}], 30, ignore_eos=True) == {}
    assert round_s([{}, {}]) is None


def test_a_round_that_took_no_time_has_no_rate():
    assert round_fields([answer(1.0, 1.0, 3)], 3, ignore_eos=True) == {}


def test_a_round_in_which_a_client_stopped_early_has_no_rate_unless_it_might():
    answers = [answer(1.0, 4.0, 30), answer(1.0, 2.0, 5)]
    assert round_fields(answers, 30, ignore_eos=True) == {}
    assert round_fields(answers, 30, ignore_eos=False) != {}
    assert incomplete({}, 30, ignore_eos=False)
