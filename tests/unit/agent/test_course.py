"""What a job asks next: order, adaptive ends, soaks, and going on after an interruption."""

import pytest

from fleetmark_agent.course import Course, Past
from fleetmark_agent.trials import plan, planned_count
from fleetmark_protocol.messages import JobSpec


def spec(*workloads, **changes) -> JobSpec:
    return JobSpec.model_validate(
        {
            "job_id": "c.d.000",
            "campaign_id": "c",
            "backend": "xllamacpp",
            "model": {"name": "m", "ref": "path:m.gguf"},
            "workloads": [
                {"kind": "single", "prompts": ["a"], "warmup": 0, "repetitions": 2, **one}
                for one in workloads
            ],
            **changes,
        }
    )


class Bench:
    """Runs a course on a clock of its own and keeps what a job log would."""

    def __init__(self, job, attempt=1, past=None):
        self.course = Course(job, attempt, past or Past())
        self.now_s = 0.0
        self.prepares_s = 0.0
        self.asked = []
        self.soak_s = []
        self.done = set(past.done if past else ())
        self.outcomes = dict(past.outcomes if past else {})
        self.endings = []

    def step(self, latency_s=1.0, failed=False):
        """Run one round; returns it, or None at the end."""
        asked = self.course.next()
        self.endings += self.course.endings()
        if asked is None:
            return None
        self.course.begin(self.now_s)
        self.now_s += self.prepares_s
        self.soak_s.append(self.course.opened(self.now_s))
        self.now_s += latency_s
        latencies = [None if failed else latency_s] * len(asked.trials)
        for outcome in self.course.took(asked, latencies, self.now_s, failed=failed):
            self.outcomes[outcome.of] = outcome
        self.done |= {trial.trial_id for trial in asked.trials}
        self.asked.append(asked)
        return asked

    def run(self, latencies=None):
        for latency_s in latencies or iter(lambda: 1.0, None):
            if self.step(latency_s) is None:
                break
        return self

    @property
    def past(self):
        return Past(frozenset(self.done), self.outcomes)

    @property
    def ids(self):
        return [
            trial.trial_id.removeprefix("c.d.000.")
            for asked in self.asked
            for trial in asked.trials
        ]


def test_starts_come_first_soaks_last_and_the_others_in_between():
    job = spec(
        {"name": "heat", "kind": "soak", "duration_s": 2, "repetitions": 1, "warmup": 1},
        {"name": "warm", "warmup": 1},
        {"name": "start", "kind": "coldstart", "warmup": 1},
    )
    ran = Bench(job).run()
    assert ran.ids == [
        *("start.w0.0", "start.0.0", "start.1.0"),
        *("heat.w0.0", "warm.w0.0", "warm.0.0", "warm.1.0"),
        *("heat.0.a1.0", "heat.0.a1.1"),
    ]
    assert [asked.cold for asked in ran.asked] == [True] * 3 + [False] * 6
    assert [asked.opens for asked in ran.asked] == [
        *(False, True, True),
        *(False, False, True, True),
        *(True, False),
    ]


def test_a_repetition_opens_with_the_first_of_its_prompts_that_is_left():
    job = spec({"name": "w", "kind": "multi", "prompts": ["a", "b", "c"]})
    ran = Bench(job).run()
    assert [asked.opens for asked in ran.asked] == [True, False, False] * 2
    past = Past(frozenset({"c.d.000.w.0.0"}))
    rest = Bench(job, attempt=2, past=past).run()
    assert [asked.opens for asked in rest.asked] == [True, False, True, False, False]


def test_every_trial_of_a_job_that_is_to_start_cold_is_cold():
    ran = Bench(spec({"name": "w", "warmup": 1}, options={"start": "cold"})).run()
    assert [asked.cold for asked in ran.asked] == [True, True, True]


def test_places_in_the_job_count_on_over_all_of_it():
    job = spec({"name": "heat", "kind": "soak", "duration_s": 3, "warmup": 1}, {"name": "w"})
    ran = Bench(job).run()
    assert [trial.index for asked in ran.asked for trial in asked.trials] == list(range(9))


def test_numbers_count_on_where_a_cell_is_measured_in_several_jobs():
    job = spec(
        {"name": "w", "warmup": 1, "first_repetition": 4},
        {"name": "heat", "kind": "soak", "duration_s": 1, "repetitions": 1, "first_repetition": 7},
    )
    ran = Bench(job).run()
    assert ran.ids == ["w.w4.0", "w.4.0", "w.5.0", "heat.7.a1.0"]
    assert [asked.trials[0].repetition for asked in ran.asked] == [4, 4, 5, 7]


def test_clients_ask_in_rounds_and_a_round_that_is_recorded_in_part_is_asked_again_whole():
    crowd = {"name": "crowd", "kind": "concurrency", "clients": 3, "prompts": ["a", "b"]}
    job = spec({**crowd, "warmup": 1})
    ran = Bench(job).run()
    assert [len(asked.trials) for asked in ran.asked] == [3, 3, 3]
    assert [trial.prompt for trial in ran.asked[0].trials] == ["a", "b", "a"]
    assert ran.asked[0].trials[0].warmup
    recorded = [trial.trial_id for trial in plan(job)][:5]
    again = Bench(job, attempt=2, past=Past(frozenset(recorded))).run()
    assert [len(asked.trials) for asked in again.asked] == [3, 3]
    assert again.ids == ran.ids[3:]


def test_what_is_planned_is_the_most_that_there_can_be():
    job = spec(
        {"name": "a", "warmup": 1, "repetitions": 5, "adaptive": {"half_width_percent": 5}},
        {"name": "b", "kind": "concurrency", "clients": 4, "repetitions": 2},
        {"name": "c", "kind": "soak", "duration_s": 9, "repetitions": 3, "warmup": 1},
    )
    assert planned_count(job) == 6 + 8 + 4


# --- adaptive repetitions -------------------------------------------------------------------------

ADAPTIVE = {"name": "w", "repetitions": 50, "adaptive": {"half_width_percent": 5}}


def test_repetitions_stop_when_the_median_is_known_and_say_so():
    ran = Bench(spec(ADAPTIVE)).run()
    assert len(ran.asked) == 6
    (end,) = ran.endings
    assert (end.repetitions, end.reason, end.half_width_percent) == (6, "target", 0)


def test_an_even_workload_ends_while_an_uneven_one_beside_it_goes_on():
    job = spec(ADAPTIVE, {**ADAPTIVE, "name": "rough", "repetitions": 9})
    ran = Bench(job)
    for number in range(100):
        # Every other request is one of `rough`, until that is alone.
        rough = number % 2 == 1 or number >= 12
        if ran.step(1.0 + number if rough else 5.0) is None:
            break
    assert [(end.workload, end.repetitions, end.reason) for end in ran.endings] == [
        ("w", 6, "target"),
        ("rough", 9, "most"),
    ]
    assert ran.ids[-3:] == ["rough.6.0", "rough.7.0", "rough.8.0"]


def test_the_latency_of_a_repetition_is_the_sum_over_its_prompts():
    # Each prompt varies, the sum does not.
    job = spec({**ADAPTIVE, "kind": "multi", "prompts": ["a", "b"]})
    ran = Bench(job).run([1.0, 9.0, 9.0, 1.0] * 20)
    assert [(end.repetitions, end.reason) for end in ran.endings] == [(6, "target")]
    assert len(ran.asked) == 12


def test_the_budget_is_of_this_workloads_repetitions_alone():
    job = spec(
        {**ADAPTIVE, "adaptive": {"half_width_percent": 0.1, "min": 2, "budget_s": 9}},
        {"name": "slow", "repetitions": 4, "warmup": 1},
    )
    ran = Bench(job)
    for latency_s in [50.0, 2.0, 100.0, 3.0, 100.0, 3.5, 100.0, 5.0, 100.0]:
        assert ran.step(latency_s) is not None
    assert ran.step() is None
    assert [asked.workload.name for asked in ran.asked] == ["slow", *["w", "slow"] * 4]
    # 2 + 3 + 3.5 s are less than 9, so a fourth one began.
    assert [(end.repetitions, end.reason) for end in ran.endings] == [(4, "budget")]


def test_the_time_of_a_round_is_spent_once_however_many_asked():
    rules = {"half_width_percent": 0.1, "min": 1, "budget_s": 5}
    job = spec({**ADAPTIVE, "kind": "concurrency", "clients": 3, "adaptive": rules})
    ran = Bench(job).run([2.0] * 9)
    assert [(end.repetitions, end.reason) for end in ran.endings] == [(3, "budget")]


def test_nothing_is_kept_of_warm_ups_and_of_repetitions_whose_number_is_fixed():
    ran = Bench(spec({**ADAPTIVE, "warmup": 2, "repetitions": 2}, {"name": "fixed"})).run()
    assert sorted(ran.outcomes) == ["c.d.000.w.0.0", "c.d.000.w.1.0"]


def test_after_an_interruption_the_repetitions_go_on_and_end_where_they_would_have():
    latencies = [1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 0.95, 1.05, 1.0, 1.02, 1.01, 1.0, 1.0, 1.0, 1.0]
    whole = Bench(spec(ADAPTIVE)).run([*latencies, *latencies])
    for cut in range(1, len(whole.asked)):
        first = Bench(spec(ADAPTIVE))
        for latency_s in latencies[:cut]:
            first.step(latency_s)
        rest = Bench(spec(ADAPTIVE), attempt=2, past=first.past).run(latencies[cut:])
        assert first.ids + rest.ids == whole.ids
        assert rest.endings == whole.endings


def test_a_repetition_that_may_not_be_compared_counts_towards_the_most_only():
    job = spec({**ADAPTIVE, "repetitions": 8})
    ran = Bench(job)
    for number in range(9):
        if ran.step(failed=number < 3) is None:
            break
    (end,) = ran.endings
    assert (end.repetitions, end.reason, end.half_width_percent) == (8, "most", None)


def test_the_latency_of_a_round_is_that_of_its_slowest_client():
    job = spec({**ADAPTIVE, "kind": "concurrency", "clients": 2})
    course, now_s = Course(job, 1, Past()), 0.0
    for number in range(6):
        asked = course.next()
        course.begin(now_s)
        now_s += 2
        course.took(asked, [2.0, 0.1 * number], now_s, failed=False)
    assert course.next() is None
    assert [(end.repetitions, end.half_width_percent) for end in course.endings()] == [(6, 0)]


# --- soaks ----------------------------------------------------------------------------------------

SOAK = {"name": "heat", "kind": "soak", "prompts": ["a", "b"], "duration_s": 10, "repetitions": 1}


def test_a_soak_asks_until_its_time_has_passed_and_the_last_request_may_end_later():
    ran = Bench(spec(SOAK)).run([3.0] * 20)
    assert ran.ids == ["heat.0.a1.0", "heat.0.a1.1", "heat.0.a1.2", "heat.0.a1.3"]
    assert ran.soak_s == [0, 3, 6, 9]
    assert [asked.trials[0].prompt_index for asked in ran.asked] == [0, 1, 0, 1]
    assert [asked.trials[0].again for asked in ran.asked] == [False, False, True, True]


def test_a_soaks_time_begins_with_its_first_request_each_time():
    ran = Bench(spec({**SOAK, "repetitions": 2}, {"name": "w", "repetitions": 1}))
    ran.run([100.0, 4.0, 4.0, 4.0, 10.0])
    assert ran.ids == ["w.0.0", "heat.0.a1.0", "heat.0.a1.1", "heat.0.a1.2", "heat.1.a1.0"]
    assert ran.soak_s == [None, 0, 4, 8, 0]


def test_a_soaks_time_counts_from_when_its_requests_really_begin():
    bench = Bench(spec(SOAK))
    bench.prepares_s = 0.5
    bench.run([2.0] * 3)
    assert bench.soak_s[:3] == [0.0, 2.5, 5.0]


def test_a_soak_that_was_cut_short_begins_anew_under_other_ids():
    job = spec({**SOAK, "repetitions": 2})
    first = Bench(job)
    for _ in range(6):
        first.step(3.0)
    assert first.ids[-2:] == ["heat.1.a1.0", "heat.1.a1.1"]
    again = Bench(job, attempt=2, past=first.past).run([3.0] * 9)
    assert again.ids == [f"heat.1.a2.{number}" for number in range(4)]
    assert again.soak_s == [0, 3, 6, 9]
    assert not set(first.ids) & set(again.ids)
    assert Bench(job, attempt=3, past=again.past).run().asked == []


def test_a_soak_ends_with_a_request_that_fails_and_is_not_begun_again():
    ran = Bench(spec(SOAK))
    ran.step(1.0)
    ran.step(0.1, failed=True)
    assert ran.step() is None
    assert Bench(spec(SOAK), attempt=2, past=ran.past).step() is None


@pytest.mark.parametrize("kind", ["single", "coldstart", "context_sweep"])
def test_what_has_nothing_left_asks_nothing(kind):
    job = spec({"name": "w", "kind": kind, "warmup": 1})
    done = frozenset(trial.trial_id for trial in plan(job))
    assert Course(job, 2, Past(done)).next() is None
