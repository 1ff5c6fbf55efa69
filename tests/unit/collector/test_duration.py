"""How long a job takes at a known pace, by kind of workload."""

import pytest

from fleetmark_collector.campaigns.duration import DISPATCH_S, job_time
from fleetmark_collector.campaigns.pace import Pace
from fleetmark_protocol.messages import JobSpec, ModelSpec, Options
from fleetmark_protocol.workloads import Adaptive, Workload

PACE = Pace(start_s=4.0, load_s=2.0, gap_s=0.5, prefill_s=0.1, decode_s=0.2)
PROMPT = "x" * 36  # ten tokens, as nobody has counted them
TRIAL_S = 10 * 0.1 + 5 * 0.2
START_S = 4.0 + 2.0


def time_of(*workloads, pace=PACE, counted=(), **options):
    spec = JobSpec(
        job_id="c.d.001",
        campaign_id="c",
        backend="b",
        model=ModelSpec(name="tiny", ref="path:t"),
        options=Options(**options),
        workloads=workloads,
    )
    return job_time(spec, pace, dict(counted))


def work(kind="single", **more):
    fields = {"prompts": (PROMPT,), "output_tokens": 5, "warmup": 1, "repetitions": 4, **more}
    return Workload(name=more.pop("name", "w"), kind=kind, **fields)


def likely(*workloads, **more):
    time = time_of(*workloads, **more)
    assert time.paced.low == time.paced.likely == time.paced.high
    return time.paced.likely + time.fixed_s


def test_one_start_then_request_by_request_with_gaps():
    assert likely(work()) == pytest.approx(DISPATCH_S + START_S + 5 * TRIAL_S + 4 * 0.5)
    two = likely(work(), work("multi", prompts=(PROMPT, PROMPT)))
    assert two == pytest.approx(DISPATCH_S + START_S + 14 * TRIAL_S + 13 * 0.5)


def test_a_cold_start_starts_an_engine_for_each_request():
    alone = likely(work("coldstart"))
    assert alone == pytest.approx(DISPATCH_S + 5 * (START_S + TRIAL_S))
    both = likely(work("coldstart"), work())
    assert both == pytest.approx(alone + START_S + 5 * TRIAL_S + 4 * 0.5)
    assert likely(work(), start="cold") == pytest.approx(alone)


def test_a_prompt_of_a_sweep_has_as_many_tokens_as_words():
    assert likely(work("context_sweep", prompts=("time year people",))) == pytest.approx(
        DISPATCH_S + START_S + 5 * (3 * 0.1 + 1.0) + 4 * 0.5
    )


def test_a_soak_lasts_as_long_as_it_says_whatever_the_pace():
    soak = work("soak", duration_s=900, repetitions=2)
    time = time_of(soak)
    assert time.fixed_s == 1800
    assert time.paced.likely == pytest.approx(DISPATCH_S + START_S + TRIAL_S + 2 * 0.5)


def test_a_round_of_clients_takes_longer_than_one_request_but_not_as_much_as_all_in_turn():
    rounds = [likely(work("concurrency", clients=clients)) for clients in (1, 4)]
    assert rounds[0] == pytest.approx(likely(work()))
    assert rounds[0] < rounds[1] < 4 * rounds[0]


def test_what_clients_were_seen_to_take_counts_before_the_rule_of_thumb():
    seen = Pace(**{**PACE.__dict__, "crowds": {4: 3.0}})
    assert likely(work("concurrency", clients=4), pace=seen) == pytest.approx(
        DISPATCH_S + START_S + 5 * 3 * TRIAL_S + 4 * 0.5
    )


def adaptive(pace=PACE, **more):
    fields = {"half_width_percent": 5, "min": 3, **more}
    return time_of(work(repetitions=48, adaptive=Adaptive(**fields)), pace=pace).paced


def repetitions(seconds):
    return round((seconds - DISPATCH_S - START_S + 0.5) / (TRIAL_S + 0.5) - 1, 3)


def test_adaptive_repetitions_are_between_the_fewest_and_the_most():
    span = adaptive()
    assert [repetitions(one) for one in (span.low, span.likely, span.high)] == [
        6,
        pytest.approx((6 * 48) ** 0.5, abs=0.01),
        48,
    ]


def test_their_budget_bounds_them_but_never_below_the_fewest():
    assert repetitions(adaptive(budget_s=25).high) == 10
    assert repetitions(adaptive(budget_s=1).high) == 3


def test_what_varied_more_takes_more_repetitions():
    def seen(low, high):
        return repetitions(adaptive(Pace(**{**PACE.__dict__, "low": low, "high": high})).likely)

    assert seen(0.99, 1.01) == 6
    assert 6 < seen(0.9, 1.1) < seen(0.85, 1.15) < 48
    assert seen(0.5, 2.0) == 48


def test_a_prompt_that_was_counted_is_not_guessed():
    import hashlib

    digest = hashlib.sha256(PROMPT.encode()).hexdigest()
    counted = {("tiny", digest): 110}
    assert likely(work(), counted=counted.items()) == pytest.approx(likely(work()) + 5 * 100 * 0.1)


def test_a_cold_start_takes_the_load_of_cold_starts_and_a_warm_engine_its_own():
    pace = Pace(**{**PACE.__dict__, "cold_load_s": PACE.load_s + 10})
    cold, warm = (work(kind, warmup=0, repetitions=3) for kind in ("coldstart", "single"))
    assert likely(cold, pace=pace) - likely(cold) == pytest.approx(30)
    assert likely(warm, pace=pace) == likely(warm)
