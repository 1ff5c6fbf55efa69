"""Latencies and rates out of token times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmark_agent.timing import measure, percentile

MS = 1_000_000


def timed(token_times_ms, *, counts=None, end_ms=None, prompt=10, output=None):
    counts = [1] * len(token_times_ms) if counts is None else counts
    times_ns = [round(one * MS) for one in token_times_ms]
    end_ns = round(end_ms * MS) if end_ms is not None else max(times_ns, default=0)
    return measure(
        start_ns=0,
        token_times_ns=times_ns,
        token_counts=counts,
        end_ns=end_ns,
        prompt_tokens_evaluated=prompt,
        output_tokens=sum(counts) if output is None else output,
    )


def test_a_stream_of_single_tokens_has_every_quantity():
    found = timed([100, 120, 140, 180], end_ms=185, prompt=50)
    assert found.ttft_s == pytest.approx(0.1)
    assert found.prefill_tps == pytest.approx(500)
    assert found.tpot_s == pytest.approx(0.08 / 3)
    assert found.decode_tps == pytest.approx(3 / 0.08)
    assert found.itl_p50_s == pytest.approx(0.02)
    assert found.itl_p95_s == pytest.approx(0.038)
    assert found.itl_p99_s == pytest.approx(0.0396)
    assert found.latency_s == pytest.approx(0.185)


def test_one_token_defines_no_time_between_tokens():
    assert set(timed([100]).as_fields()) == {"latency_s", "ttft_s", "prefill_tps"}


def test_no_token_leaves_only_the_latency():
    assert timed([], end_ms=30).as_fields() == {"latency_s": pytest.approx(0.03)}


def test_tokens_that_come_together_do_not_define_latencies_between_them():
    found = timed([100, 140, 180], counts=[1, 2, 1])
    assert found.itl_p50_s is None
    assert found.tpot_s == pytest.approx(0.08 / 3)


def test_chunks_that_the_engine_counts_as_more_tokens_are_not_taken_for_tokens():
    found = timed([100, 140, 180], output=9)
    assert found.itl_p50_s is None
    assert found.tpot_s == pytest.approx(0.08 / 8)


def test_tokens_that_came_with_the_first_one_took_no_decoding_time():
    assert timed([100, 200], counts=[3, 2]).tpot_s == pytest.approx(0.1 / 2)


def test_tokens_that_all_came_at_once_have_no_rate():
    assert timed([100], counts=[8]).decode_tps is None
    assert timed([100, 100], counts=[1, 1]).decode_tps is None


def test_a_step_without_a_token_is_not_the_first_token():
    found = timed([50, 100, 120], counts=[0, 1, 1])
    assert found.ttft_s == pytest.approx(0.1)
    assert found.itl_p50_s == pytest.approx(0.02)


@pytest.mark.parametrize("prompt", [None, 0])
def test_an_unknown_or_fully_cached_prompt_has_no_prefill_rate(prompt):
    assert timed([100, 120], prompt=prompt).prefill_tps is None


@pytest.mark.parametrize(("times_ms", "end_ms"), [([20, 10], 30), ([-1, 10], 30), ([10, 40], 30)])
def test_times_that_go_backwards_are_refused(times_ms, end_ms):
    with pytest.raises(ValueError, match="backwards"):
        timed(times_ms, end_ms=end_ms)


def test_counts_that_do_not_match_the_times_are_refused():
    with pytest.raises(ValueError, match="2 times for 1"):
        timed([1, 2], counts=[1])
    with pytest.raises(ValueError, match="negative"):
        timed([1, 2], counts=[1, -1])


@given(
    gaps_ms=st.lists(st.integers(1, 10_000), min_size=2, max_size=50),
    tail_ms=st.integers(0, 100),
    prompt=st.integers(1, 4096),
)
def test_the_quantities_of_any_stream_agree_with_each_other(gaps_ms, tail_ms, prompt):
    times_ms = [sum(gaps_ms[: place + 1]) for place in range(len(gaps_ms))]
    found = timed(times_ms, end_ms=times_ms[-1] + tail_ms, prompt=prompt)
    decode_s = found.tpot_s * (len(gaps_ms) - 1)
    assert found.ttft_s + decode_s + tail_ms / 1e3 == pytest.approx(found.latency_s)
    assert found.decode_tps * found.tpot_s == pytest.approx(1)
    assert found.prefill_tps * found.ttft_s == pytest.approx(prompt)
    assert found.itl_p50_s <= found.itl_p95_s <= found.itl_p99_s
    slack = 1e-12
    assert min(gaps_ms[1:]) / 1e3 - slack <= found.itl_p50_s <= max(gaps_ms[1:]) / 1e3 + slack


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40))
def test_percentiles_are_ordered_and_never_leave_the_range_of_the_values(values):
    found = [percentile(values, percent) for percent in range(101)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (min(values), max(values))


def test_a_percentile_lies_between_its_neighbours():
    assert percentile([], 95) is None
    assert percentile([7.0], 95) == 7.0
    assert percentile([2.0, 1.0], 50) == pytest.approx(1.5)
    assert percentile([float(one) for one in range(101)], 95) == pytest.approx(95)
