import random

import pytest

from fleetmark_collector.report import resampling
from fleetmark_collector.report.statistics import (
    Outcome,
    Pair,
    Ratio,
    estimate,
    min_sessions,
    outcome,
    ratio,
)


def values(numbers, prompts=1):
    return {
        Pair((0, index // prompts), index % prompts): float(number)
        for index, number in enumerate(numbers)
    }


def noisy(count, center, seed, spread=0.05):
    source = random.Random(seed)
    return [center * (1 + source.uniform(-spread, spread)) for _ in range(count)]


def test_the_median_of_no_values_is_absent():
    assert estimate({}, confidence=0.95, seed=0) is None


def test_an_estimate_tells_median_extremes_and_counts():
    found = estimate(values([3, 1, 2, 10], prompts=2), confidence=0.95, seed=0)
    assert (found.median, found.minimum, found.maximum) == (2.5, 1, 10)
    assert (found.count, found.sessions) == (4, 2)


@pytest.mark.parametrize(("confidence", "least"), [(0.9, 5), (0.95, 6), (0.99, 8), (0.5, 2)])
def test_the_least_number_of_sessions_is_where_the_extremes_enclose_the_median_often_enough(
    confidence, least
):
    assert min_sessions(confidence) == least
    assert 1 - 2 ** (1 - least) >= confidence > 1 - 2 ** (2 - least)


def test_below_the_least_number_of_sessions_there_is_no_interval():
    few = estimate(values(noisy(5, 1, 0)), confidence=0.95, seed=0)
    enough = estimate(values(noisy(6, 1, 0)), confidence=0.95, seed=0)
    assert (few.low, few.high, few.relative_half_width) == (None, None, None)
    assert enough.low <= enough.median <= enough.high


def test_many_prompts_do_not_stand_in_for_many_sessions():
    found = estimate(values(noisy(50, 1, 0), prompts=10), confidence=0.95, seed=0)
    assert found.sessions == 5
    assert found.low is None


def test_sessions_are_resampled_whole():
    # Each session is constant: treated as independent, 40 values would promise far too much.
    per_session = noisy(8, 1, 3)
    together = estimate(
        values([v for v in per_session for _ in range(5)], prompts=5), confidence=0.95, seed=0
    )
    alone = estimate(values(per_session), confidence=0.95, seed=0)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.15)


def test_intervals_are_the_same_for_the_same_seed():
    data = values(noisy(12, 1, 1))
    assert estimate(data, confidence=0.95, seed=7) == estimate(data, confidence=0.95, seed=7)


def test_intervals_cover_the_true_median_about_as_often_as_they_say():
    hits = 0
    for seed in range(200):
        found = estimate(values(noisy(8, 1, seed)), confidence=0.95, seed=seed)
        hits += found.low <= 1 <= found.high
    assert 176 <= hits <= 200  # 190 expected; 176 is six standard errors below


def test_a_missing_prompt_of_a_session_does_not_spoil_the_others():
    data = values(noisy(24, 1, 1), prompts=3)
    del data[Pair((0, 2), 1)]
    found = estimate(data, confidence=0.95, seed=0)
    assert found.count == 23
    assert found.low < found.median < found.high


def test_constant_values_have_an_interval_of_no_width():
    found = estimate(values([2.0] * 8), confidence=0.95, seed=0)
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)


def test_a_ratio_is_that_of_the_medians():
    found = ratio(values([4, 4, 8]), values([2, 2, 1]), confidence=0.95, seed=0)
    assert found.ratio == 2.0
    assert found.low is None


def test_the_same_places_are_resampled_together_so_that_shared_drift_cancels():
    drift = [1 + 0.1 * index for index in range(10)]
    ours, base = values([2 * d for d in drift]), values(drift)
    moved = {Pair((1, place.session[1]), 0): value for place, value in base.items()}
    paired = ratio(ours, base, confidence=0.95, seed=0)
    apart = ratio(ours, moved, confidence=0.95, seed=0)
    assert paired.paired
    assert not apart.paired
    assert (paired.low, paired.high) == pytest.approx((2.0, 2.0))
    assert apart.low < 1.8 < 2.2 < apart.high


@pytest.mark.parametrize("under", [{}, values([0, 1, 1, 1, 1, 1, 1])])
def test_a_ratio_over_nothing_or_zero_is_absent(under):
    assert ratio(values([1] * 7), under, confidence=0.95, seed=0) is None


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (1.1, 1.3, Outcome.BETTER),
        (0.7, 0.9, Outcome.WORSE),
        (0.9, 1.1, Outcome.NO_DIFFERENCE),
        (1.0, 1.1, Outcome.NO_DIFFERENCE),
        (None, None, Outcome.TOO_FEW),
    ],
)
def test_only_an_interval_without_one_shows_a_difference(low, high, shown):
    assert outcome(Ratio(1.0, low, high, True)) is shown


def test_resampling_in_batches_gives_the_interval_of_all_at_once(monkeypatch):
    values = {Pair((0, session), 0): float(session**2 % 17) for session in range(40)}
    whole = estimate(values, confidence=0.95, seed=3)
    monkeypatch.setattr(resampling, "BATCH_VALUES", 1234)
    assert estimate(values, confidence=0.95, seed=3) == whole
