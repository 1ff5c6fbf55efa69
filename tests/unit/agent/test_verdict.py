"""Which trials may be compared, and why not."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmark_agent.verdict import Observed, Reason, Thresholds, judge, unexplained_cpu_percent
from fleetmark_protocol.records import Verdict

GOOD = Observed(
    failed=False,
    prompt_tokens=20,
    prompt_tokens_evaluated=20,
    output_tokens=64,
    output_tokens_requested=64,
    ignore_eos=True,
    clock_step_s=0.0,
    swap_in_bytes=0,
    cpu_steal_percent_mean=0.0,
    cpu_freq_hz_min=2.4e9,
    cpu_freq_hz_max_of_job=2.4e9,
    throttled_before=0,
    throttled_after=0,
    throttled_throughout=False,
    quiet_before=True,
    cores=4,
    cpu_percent_mean=98.0,
    backend_cpu_percent_mean=388.0,
    agent_cpu_percent=1.0,
)
MIB = 2**20


def test_a_trial_with_nothing_against_it_is_valid():
    assert judge(GOOD) == (Verdict.VALID, ())


def test_what_was_not_observed_does_not_speak_against_a_trial():
    assert judge(Observed()) == (Verdict.VALID, ())


@pytest.mark.parametrize(
    ("observed", "verdict", "reason"),
    [
        ({"failed": True}, Verdict.INVALID, Reason.FAILURE),
        ({"round_incomplete": True}, Verdict.INVALID, Reason.INCOMPLETE_ROUND),
        ({"prompt_tokens_evaluated": 1}, Verdict.INVALID, Reason.CACHED_PREFIX),
        ({"output_tokens": 63}, Verdict.INVALID, Reason.FEWER_TOKENS_THAN_ASKED),
        (
            {"output_tokens": 63, "ignore_eos": False},
            Verdict.SUSPECT,
            Reason.FEWER_TOKENS_THAN_ASKED,
        ),
        ({"clock_step_s": 0.06}, Verdict.SUSPECT, Reason.CLOCK_STEP),
        ({"clock_step_s": -3600.0}, Verdict.SUSPECT, Reason.CLOCK_STEP),
        ({"swap_in_bytes": 5 * MIB}, Verdict.INVALID, Reason.SWAP_IN),
        ({"cpu_steal_percent_mean": 2.5}, Verdict.SUSPECT, Reason.CPU_STEAL),
        ({"cpu_steal_percent_mean": 10.5}, Verdict.INVALID, Reason.CPU_STEAL),
        ({"cpu_freq_hz_min": 1.5e9}, Verdict.SUSPECT, Reason.FREQUENCY_DROP),
        ({"throttled_after": 0x50005}, Verdict.INVALID, Reason.THROTTLED),
        ({"throttled_throughout": True}, Verdict.SUSPECT, Reason.THROTTLED),
        ({"throttled_after": 0x50005, "soak": True}, Verdict.SUSPECT, Reason.THROTTLED),
        ({"cooled_before": False}, Verdict.SUSPECT, Reason.NOT_COOLED),
        ({"quiet_before": False}, Verdict.SUSPECT, Reason.COMPETING_LOAD),
        ({"backend_cpu_percent_mean": 300.0}, Verdict.SUSPECT, Reason.COMPETING_LOAD),
    ],
)
def test_each_rule_speaks_for_itself_and_only_for_itself(observed, verdict, reason):
    assert judge(replace(GOOD, **observed)) == (verdict, (reason.value,))


@pytest.mark.parametrize(
    "observed",
    [
        {"clock_step_s": 0.05},
        {"swap_in_bytes": 4 * MIB},
        {"cpu_steal_percent_mean": 2.0},
        {"cpu_freq_hz_min": 0.8 * 2.4e9},
        {"output_tokens": 65},
        {"throttled_before": 5, "throttled_after": 5},
        {"cpu_percent_mean": 100.0, "backend_cpu_percent_mean": 375.0, "agent_cpu_percent": 0.0},
    ],
)
def test_at_the_line_itself_a_trial_still_passes(observed):
    assert judge(replace(GOOD, **observed)) == (Verdict.VALID, ())


def test_all_reasons_are_told_and_the_worst_one_decides():
    observed = replace(GOOD, clock_step_s=1.0, failed=True, quiet_before=False)
    assert judge(observed) == (Verdict.INVALID, ("failure", "clock_step", "competing_load"))


def test_one_cause_is_told_once():
    observed = replace(GOOD, quiet_before=False, backend_cpu_percent_mean=100.0)
    assert judge(observed)[1] == ("competing_load",)


def test_the_lines_can_be_drawn_elsewhere():
    strict = Thresholds(unexplained_cpu_percent=1.0)
    assert judge(GOOD, strict)[1] == ("competing_load",)


def test_load_is_unexplained_only_where_everything_is_known():
    assert unexplained_cpu_percent(GOOD) == pytest.approx(4 * 98 - 388 - 1)
    for name in ("cores", "cpu_percent_mean", "backend_cpu_percent_mean", "agent_cpu_percent"):
        assert unexplained_cpu_percent(replace(GOOD, **{name: None})) is None


def _optional_fields():
    required = {"failed", "ignore_eos", "round_incomplete", "soak"}
    return [field.name for field in fields(Observed) if field.name not in required]


SEVERITY = list(Verdict)
FLAGS = ("quiet_before", "cooled_before", "throttled_throughout")
number = st.floats(0, 1e12) | st.integers(0, 2**40)
observations = st.builds(
    Observed,
    failed=st.booleans(),
    ignore_eos=st.booleans(),
    round_incomplete=st.booleans(),
    soak=st.booleans(),
    **{name: st.none() | st.booleans() for name in FLAGS},
    **{name: st.none() | number for name in _optional_fields() if name not in FLAGS},
)


@given(observations, st.sampled_from(_optional_fields()))
def test_knowing_less_never_makes_a_trial_worse(observed, hidden):
    verdict, reasons = judge(observed)
    blinded, fewer = judge(replace(observed, **{hidden: None}))
    assert SEVERITY.index(blinded) <= SEVERITY.index(verdict)
    assert set(fewer) <= set(reasons)


@given(observations)
def test_a_trial_is_valid_exactly_when_no_reason_is_given(observed):
    verdict, reasons = judge(observed)
    assert (verdict is Verdict.VALID) == (not reasons)
    assert set(reasons) <= {reason.value for reason in Reason}
